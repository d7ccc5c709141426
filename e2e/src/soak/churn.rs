//! The work: each thread runs one pod after the other, as a kubelet would, and repeats what a killed daemon did
//! not answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tonic::{Code, Status};

use super::Soak;
use crate::cgroup;
use crate::cri::*;
use crate::image::catalogue::{BUSYBOX, LAYERS, WEB};
use crate::pod::{container, namespaces, sandbox, shell};
use crate::poll::LIMIT;
use crate::world::World;

/// How long a call is repeated while no daemon answers.
const PATIENCE: Duration = Duration::from_secs(60);
const PROBE: Duration = Duration::from_secs(1);
/// A pod lives for so many probes: 1 to this.
const MAX_PROBES: usize = 4;
const CODE: i32 = 3;

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// Makes a call, and again with the same request for as long as the daemon that should answer is being replaced.
fn call<T>(
    soak: &Soak,
    what: &str,
    call: impl Fn(&World) -> Result<T, Status>,
) -> Result<T, String> {
    let start = Instant::now();
    loop {
        let status = match call(&soak.world()) {
            Ok(answer) => return Ok(answer),
            Err(status) => status,
        };
        let again = matches!(status.code(), Code::Unavailable | Code::Cancelled | Code::Unknown);
        if !again || start.elapsed() > PATIENCE {
            return Err(format!("{what}: {status}"));
        }
        add(&soak.counts.retries);
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// One pod after the other until the soak ends; what failed.
pub(super) fn pods(soak: &Soak, number: usize) -> Vec<String> {
    let mut failures = Vec::new();
    let mut round = number;
    while soak.goes_on() {
        round += 1;
        if let Err(failure) = pod(soak, &format!("soak-{number}"), round) {
            failures.push(failure);
        }
    }
    failures
}

fn pod(soak: &Soak, name: &str, round: usize) -> Result<(), String> {
    let mut config = sandbox(&soak.world(), name);
    if round.is_multiple_of(3)
        && let Some(security) =
            config.linux.as_mut().and_then(|linux| linux.security_context.as_mut())
    {
        security.namespace_options = Some(namespaces(NamespaceMode::Pod, NamespaceMode::Pod));
    }
    let (logs, parent) = (config.log_directory.clone(), cgroup_parent(&config));
    let id = call(soak, "RunPodSandbox", |world| {
        let request = RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
        world.client.run_pod_sandbox(request).map(|answer| answer.pod_sandbox_id)
    })?;
    add(&soak.counts.pods);
    let lived = live(soak, &id, &config, round);
    let ended = end(soak, &id);
    let _ = std::fs::remove_dir_all(logs);
    lived.and(ended).and_then(|()| forget_cgroup(&parent))
}

fn cgroup_parent(config: &PodSandboxConfig) -> String {
    let linux = config.linux.as_ref().map(|linux| linux.cgroup_parent.as_str());
    linux.unwrap_or_default().trim_start_matches('/').to_owned()
}

/// The pod's own cgroup is the kubelet's to remove; it can, since nothing of a container's is left in it.
fn forget_cgroup(parent: &str) -> Result<(), String> {
    let start = Instant::now();
    loop {
        let roots = cgroup::roots(parent);
        let left = roots.iter().filter(|root| std::fs::remove_dir(root).is_err()).count();
        if left == 0 {
            return Ok(());
        }
        if start.elapsed() > LIMIT {
            return Err(format!("the cgroup {parent} is in use after its pod was removed"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn live(soak: &Soak, id: &str, config: &PodSandboxConfig, round: usize) -> Result<(), String> {
    let talks = "while :; do echo a line of a log, of the usual length, with some words in it; usleep 20000; done";
    let running = start(soak, id, config, "runs", talks)?;
    let ending = start(soak, id, config, "ends", &format!("sleep 0.3; exit {CODE}"))?;
    for probe in 0..=round % MAX_PROBES {
        std::thread::sleep(PROBE);
        let answer = call(soak, "ExecSync", |world| world.try_exec(&running, &["true"], 10))?;
        if answer.exit_code != 0 {
            return Err(format!("probe {probe} of {running}: {}", answer.exit_code));
        }
        add(&soak.counts.execs);
    }
    let status = call(soak, "ContainerStatus", |world| world.container_status(&ending))?;
    if status.state() != ContainerState::ContainerExited || status.exit_code != CODE {
        return Err(format!("{ending}: {:?}, code {}", status.state(), status.exit_code));
    }
    add(&soak.counts.exits);
    call(soak, "StopContainer", |world| world.stop_container(&running, (round % 2) as i64))?;
    call(soak, "RemoveContainer", |world| world.remove_container(&ending))
}

fn start(
    soak: &Soak,
    pod: &str,
    config: &PodSandboxConfig,
    name: &str,
    line: &str,
) -> Result<String, String> {
    let request = CreateContainerRequest {
        pod_sandbox_id: pod.into(),
        config: Some(container(name, BUSYBOX, &shell(line))),
        sandbox_config: Some(config.clone()),
    };
    let id = call(soak, "CreateContainer", |world| {
        world.client.create_container(request.clone()).map(|answer| answer.container_id)
    })?;
    add(&soak.counts.containers);
    let started = call(soak, "StartContainer", |world| world.start_container(&id));
    // Started already: the daemon was killed before it could say so.
    let state = call(soak, "ContainerStatus", |world| world.container_status(&id))?.state();
    match (started, state) {
        (Err(failure), ContainerState::ContainerCreated | ContainerState::ContainerUnknown) => {
            Err(failure)
        }
        _ => Ok(id),
    }
}

fn end(soak: &Soak, id: &str) -> Result<(), String> {
    call(soak, "StopPodSandbox", |world| {
        let request = StopPodSandboxRequest { pod_sandbox_id: id.into() };
        world.client.stop_pod_sandbox(request)
    })?;
    call(soak, "RemovePodSandbox", |world| {
        let request = RemovePodSandboxRequest { pod_sandbox_id: id.into() };
        world.client.remove_pod_sandbox(request)
    })?;
    Ok(())
}

/// Images come and go beside the pods.
pub(super) fn images(soak: &Soak) -> Vec<String> {
    let mut failures = Vec::new();
    while soak.goes_on() {
        for image in [LAYERS, WEB] {
            failures.extend(call(soak, "PullImage", |world| world.try_pull(image)).err());
            add(&soak.counts.pulls);
        }
        std::thread::sleep(PROBE);
        let spec = Some(ImageSpec { image: LAYERS.into(), ..Default::default() });
        let removed = call(soak, "RemoveImage", |world| {
            world.client.remove_image(RemoveImageRequest { image: spec.clone() })
        });
        failures.extend(removed.err());
    }
    for image in [LAYERS, WEB] {
        let spec = Some(ImageSpec { image: image.into(), ..Default::default() });
        let request = RemoveImageRequest { image: spec };
        let removed = call(soak, "RemoveImage", |world| world.client.remove_image(request.clone()));
        failures.extend(removed.err());
    }
    failures
}
