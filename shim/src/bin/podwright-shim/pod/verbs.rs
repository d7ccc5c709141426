//! The Sandbox service's verbs, but for those that end it.

use std::rc::Rc;
use std::time::SystemTime;

use api::podwright::{Namespaces, SandboxOptions};
use api::sandbox::{
    CreateSandboxRequest, CreateSandboxResponse, PlatformRequest, PlatformResponse,
    SandboxStatusRequest, SandboxStatusResponse, StartSandboxRequest, StartSandboxResponse,
    WaitSandboxRequest, WaitSandboxResponse,
};
use api::types::Platform;

use super::Pod;
use super::namespaces::{self, Held};
use crate::reactor::{self, Exit, Once};
use crate::rpc::Failure;
use crate::task::timestamp;

/// Where the pod is in its life.
#[derive(Default)]
pub(super) enum Sandbox {
    /// Not asked for: under containerd, a pause container may stand in for it.
    #[default]
    Absent,
    /// Its namespaces are being made.
    Making,
    Created(Held),
    Ready {
        held: Held,
        since: SystemTime,
    },
    Stopped,
}

/// Makes the pod's namespaces.
pub(crate) async fn create(
    pod: &Rc<Pod>,
    request: CreateSandboxRequest,
) -> Result<CreateSandboxResponse, Failure> {
    check(pod, &request.sandbox_id)?;
    let options = match &request.options {
        None => SandboxOptions::default(),
        Some(any) => api::unpack::<SandboxOptions>(any).map_err(Failure::invalid)?,
    };
    if !matches!(&*pod.sandbox.borrow(), Sandbox::Absent) {
        return Err(Failure::exists(format_args!("sandbox {:?}", request.sandbox_id)));
    }
    *pod.sandbox.borrow_mut() = Sandbox::Making;
    let made = namespaces::make(pod, &options).await;
    let mut sandbox = pod.sandbox.borrow_mut();
    match made {
        // Stopped meanwhile: what was made goes with this scope.
        Ok(_) if !matches!(&*sandbox, Sandbox::Making) => {
            Err(Failure::precondition("the sandbox was stopped"))
        }
        Ok(held) => {
            if let Some(exit) = held.init_exit() {
                reactor::spawn(ends_with_init(Rc::clone(pod), exit));
            }
            *sandbox = Sandbox::Created(held);
            Ok(CreateSandboxResponse {})
        }
        Err(failure) => {
            *sandbox = Sandbox::Absent;
            Err(failure)
        }
    }
}

/// Without its init a pid namespace takes no more processes, so the pod is over.
async fn ends_with_init(pod: Rc<Pod>, exit: Rc<Once<Exit>>) {
    let exit = exit.wait().await;
    *pod.sandbox.borrow_mut() = Sandbox::Stopped;
    pod.ended.set(exit.at);
}

/// Says where the namespaces are.
pub(crate) fn start(
    pod: &Rc<Pod>,
    request: &StartSandboxRequest,
) -> Result<StartSandboxResponse, Failure> {
    check(pod, &request.sandbox_id)?;
    let mut sandbox = pod.sandbox.borrow_mut();
    let (held, since) = match std::mem::take(&mut *sandbox) {
        Sandbox::Created(held) => (held, SystemTime::now()),
        // Asked again: the same answer.
        Sandbox::Ready { held, since } => (held, since),
        other => {
            *sandbox = other;
            return Err(Failure::precondition("the sandbox is not created"));
        }
    };
    let answer = StartSandboxResponse {
        pid: std::process::id(),
        created_at: Some(timestamp(since)),
        spec: Some(api::pack::<Namespaces>(&held.paths())),
    };
    *sandbox = Sandbox::Ready { held, since };
    Ok(answer)
}

/// What can run here.
pub(crate) fn platform(_: &PlatformRequest) -> Result<PlatformResponse, Failure> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let platform =
        Platform { os: "linux".into(), architecture: architecture.into(), ..Platform::default() };
    Ok(PlatformResponse { platform: Some(platform) })
}

/// Answered when the sandbox is stopped.
pub(crate) async fn wait(
    pod: &Rc<Pod>,
    request: &WaitSandboxRequest,
) -> Result<WaitSandboxResponse, Failure> {
    check(pod, &request.sandbox_id)?;
    let at = pod.ended.wait().await;
    Ok(WaitSandboxResponse { exit_status: 0, exited_at: Some(timestamp(at)) })
}

/// Ready or not, and on request the paths of the namespaces.
pub(crate) fn status(
    pod: &Rc<Pod>,
    request: &SandboxStatusRequest,
) -> Result<SandboxStatusResponse, Failure> {
    check(pod, &request.sandbox_id)?;
    let mut answer = SandboxStatusResponse {
        sandbox_id: pod.id.clone(),
        pid: std::process::id(),
        state: "SANDBOX_NOTREADY".into(),
        exited_at: pod.ended.get().map(timestamp),
        ..SandboxStatusResponse::default()
    };
    if let Sandbox::Ready { held, since } = &*pod.sandbox.borrow() {
        answer.state = "SANDBOX_READY".into();
        answer.created_at = Some(timestamp(*since));
        if request.verbose {
            let paths = held.paths();
            let named = [
                ("ipc", paths.ipc),
                ("uts", paths.uts),
                ("pid", paths.pid),
                ("user", paths.user),
                ("net", paths.net),
            ];
            answer.info = named.into_iter().map(|(name, path)| (name.to_owned(), path)).collect();
            answer.info.insert("init_pid".into(), paths.init_pid.to_string());
        }
    }
    Ok(answer)
}

/// A shim serves one sandbox.
pub(super) fn check(pod: &Pod, id: &str) -> Result<(), Failure> {
    if id.is_empty() || id == pod.id {
        return Ok(());
    }
    Err(Failure::not_found(format_args!("no sandbox {id:?}")))
}
