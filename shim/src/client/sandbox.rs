//! Pods: the Sandbox service, and what podwright-shim adds to it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use api::podwright as own;
use api::sandbox as wire;

use super::connection::Client;
use super::error::{Error, Result};
use super::time;

/// A pod's namespaces, as podwright-shim is asked for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateSandbox {
    /// The pod's id.
    pub id: String,
    /// The shim's bundle.
    pub bundle: PathBuf,
    /// The name of the pod in its own uts namespace.
    pub hostname: String,
    /// Kernel parameters, set once in the pod's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Whether it shares the host's ipc namespace.
    pub host_ipc: bool,
    /// Whether it keeps the host's name.
    pub host_uts: bool,
    /// Whether its containers share one pid namespace.
    pub shared_pid: bool,
    /// The cgroup of that namespace's init, relative to the cgroup root.
    pub cgroup_path: String,
    /// The pod's network namespace; `None` for the host's.
    pub netns: Option<PathBuf>,
    /// Of the pod's own user namespace; without both it has none.
    pub uids: Vec<IdMapping>,
    /// The same for groups.
    pub gids: Vec<IdMapping>,
    /// Whether its network namespace is made here, inside the user namespace.
    pub own_network: bool,
    /// The OCI runtime's program, where it need not guard itself if it is executed from a read-only mount.
    pub guarded_runtime: Option<PathBuf>,
}

/// A range of ids in a user namespace, and what they are outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMapping {
    /// The first one inside.
    pub container: u32,
    /// The first one outside.
    pub host: u32,
    /// How many there are.
    pub length: u32,
}

/// Where a pod's namespaces are held; `None` is the host's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// For System V and POSIX message queues and shared memory.
    pub ipc: Option<PathBuf>,
    /// For the host name.
    pub uts: Option<PathBuf>,
    /// Shared by the pod's containers.
    pub pid: Option<PathBuf>,
    /// For users.
    pub user: Option<PathBuf>,
    /// The init of the shared pid namespace.
    pub init_pid: Option<u32>,
    /// For the network, where it was made with the others.
    pub net: Option<PathBuf>,
}

/// A sandbox that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// The process to watch: the shim's own with podwright-shim.
    pub pid: u32,
    /// When it became ready.
    pub created_at: SystemTime,
    /// Its namespaces; empty with other shims.
    pub namespaces: Namespaces,
}

impl Client {
    /// Makes a pod's namespaces.
    pub async fn create_sandbox(&self, sandbox: CreateSandbox, limit: Duration) -> Result<()> {
        let text = |path: Option<PathBuf>| {
            path.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let netns = text(sandbox.netns);
        let options = own::SandboxOptions {
            hostname: sandbox.hostname,
            sysctls: sandbox.sysctls,
            host_ipc: sandbox.host_ipc,
            host_uts: sandbox.host_uts,
            shared_pid: sandbox.shared_pid,
            cgroup_path: sandbox.cgroup_path,
            netns_path: netns.clone(),
            uids: sandbox.uids.iter().map(mapping).collect(),
            gids: sandbox.gids.iter().map(mapping).collect(),
            own_network: sandbox.own_network,
            guarded_runtime: text(sandbox.guarded_runtime),
        };
        let request = wire::CreateSandboxRequest {
            sandbox_id: sandbox.id,
            bundle_path: sandbox.bundle.to_string_lossy().into_owned(),
            options: Some(api::pack(&options)),
            netns_path: netns,
            ..Default::default()
        };
        let _: wire::CreateSandboxResponse =
            self.call(wire::SERVICE, "CreateSandbox", &request, Some(limit)).await?;
        Ok(())
    }

    /// Starts the sandbox and learns where its namespaces are. Asked again, answers the same.
    pub async fn start_sandbox(&self, id: &str, limit: Duration) -> Result<Started> {
        const METHOD: &str = "StartSandbox";
        let request = wire::StartSandboxRequest { sandbox_id: id.into() };
        let answer: wire::StartSandboxResponse =
            self.call(wire::SERVICE, METHOD, &request, Some(limit)).await?;
        let namespaces = match answer.spec.as_ref().map(api::unpack::<own::Namespaces>) {
            None | Some(Err(api::NotPacked::Other { .. })) => Namespaces::default(),
            Some(Ok(namespaces)) => from_wire(namespaces),
            Some(Err(error)) => {
                return Err(Error::Malformed { method: METHOD, what: error.to_string() });
            }
        };
        let created_at = time::from_wire(answer.created_at);
        Ok(Started { pid: answer.pid, created_at, namespaces })
    }

    /// Kills what runs in the sandbox and lets its namespaces go.
    pub async fn stop_sandbox(&self, id: &str, limit: Duration) -> Result<()> {
        // The shim gives up a little before we do, so that its reason arrives.
        let seconds = u32::try_from(limit.as_secs().saturating_sub(1).max(1)).unwrap_or(u32::MAX);
        let request = wire::StopSandboxRequest { sandbox_id: id.into(), timeout_secs: seconds };
        let _: wire::StopSandboxResponse =
            self.call(wire::SERVICE, "StopSandbox", &request, Some(limit)).await?;
        Ok(())
    }

    /// Waits until the sandbox is stopped.
    pub async fn wait_sandbox(&self, id: &str) -> Result<()> {
        let request = wire::WaitSandboxRequest { sandbox_id: id.into() };
        let _: wire::WaitSandboxResponse =
            self.call(wire::SERVICE, "WaitSandbox", &request, None).await?;
        Ok(())
    }

    /// Whether the sandbox is ready.
    pub async fn sandbox_ready(&self, id: &str, limit: Duration) -> Result<bool> {
        let request = wire::SandboxStatusRequest { sandbox_id: id.into(), verbose: false };
        let answer: wire::SandboxStatusResponse =
            self.call(wire::SERVICE, "SandboxStatus", &request, Some(limit)).await?;
        Ok(answer.state == "SANDBOX_READY")
    }

    /// Ends the sandbox and the shim. That it closes the connection is a success too.
    pub async fn shutdown_sandbox(&self, id: &str, limit: Duration) -> Result<()> {
        let request = wire::ShutdownSandboxRequest { sandbox_id: id.into() };
        let answer: Result<wire::ShutdownSandboxResponse> =
            self.call(wire::SERVICE, "ShutdownSandbox", &request, Some(limit)).await;
        match answer {
            Err(error) if !error.is_lost() => Err(error),
            _ => Ok(()),
        }
    }

    /// Lets a container's log go on in a new file at the same path.
    pub async fn reopen_log(&self, id: &str, limit: Duration) -> Result<()> {
        let request = own::ReopenLogRequest { id: id.into() };
        let _: own::ReopenLogResponse =
            self.call(own::SERVICE, "ReopenLog", &request, Some(limit)).await?;
        Ok(())
    }

    /// Shows a container's output through FIFOs that have a reader, and passes input on; returns when that is over.
    /// True if the output came faster than it was read. The first FIFO carries nothing; when its reader has gone, this
    /// is over too.
    pub async fn attach(
        &self,
        id: &str,
        [leash, stdin, stdout, stderr]: [String; 4],
    ) -> Result<bool> {
        let request = own::AttachRequest { id: id.into(), stdin, stdout, stderr, leash };
        let answer: own::AttachResponse = self.call(own::SERVICE, "Attach", &request, None).await?;
        Ok(answer.too_slow)
    }

    /// The version of a podwright-shim, which is how it is told from other shims.
    pub async fn ping(&self, limit: Duration) -> Result<String> {
        let answer: own::PingResponse =
            self.call(own::SERVICE, "Ping", &own::PingRequest {}, Some(limit)).await?;
        Ok(answer.version)
    }
}

fn from_wire(namespaces: own::Namespaces) -> Namespaces {
    let path = |text: String| (!text.is_empty()).then(|| text.into());
    Namespaces {
        ipc: path(namespaces.ipc),
        uts: path(namespaces.uts),
        pid: path(namespaces.pid),
        user: path(namespaces.user),
        init_pid: (namespaces.init_pid != 0).then_some(namespaces.init_pid),
        net: path(namespaces.net),
    }
}

fn mapping(mapping: &IdMapping) -> own::IdMapping {
    let IdMapping { container, host, length } = *mapping;
    own::IdMapping { container_id: container, host_id: host, length }
}
