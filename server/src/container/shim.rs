//! A pod's shim, as the daemon drives it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use shim::client::{self, Client, CreateSandbox, CreateTask, Options, Podwright, Stdio};
use snapshotter::mount::Mount;

use super::Container;
use super::node::Node;
use super::state::Timestamp;
use super::watch_exit::EXIT_RECORD;
use crate::config::CgroupDriver;
use crate::error::{Error, Result};
use crate::failpoint;
use crate::host::{Handler, process};
use crate::id::SandboxId;
use crate::resource;

pub(crate) use shim::client::Namespaces;

/// Name of a shim's socket in its directory.
const SOCKET: &str = "shim.sock";
/// Its program, looked for beside the daemon's own.
const PROGRAM: &str = "podwright-shim";
/// How long a shim may take to say where it listens.
const START: Duration = Duration::from_secs(30);
/// How long a shim that was told to end may take.
const END: Duration = Duration::from_secs(2);

/// A shim that is, or was, running.
#[derive(Debug)]
pub(crate) struct Shim {
    id: SandboxId,
    address: String,
    pub pid: u32,
    pub started: u64,
    /// Replaced when the connection was lost and the shim was not.
    client: Mutex<Client>,
}

/// The namespaces that a pod is to get.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub hostname: String,
    pub sysctls: BTreeMap<String, String>,
    pub host_ipc: bool,
    pub host_uts: bool,
    pub shared_pid: bool,
    /// Of the shared pid namespace's init.
    pub cgroup: String,
    pub netns: Option<PathBuf>,
}

/// A command in a container.
#[derive(Debug)]
pub(crate) struct Exec {
    pub id: String,
    pub dir: PathBuf,
    /// OCI process, JSON.
    pub process: Vec<u8>,
    pub stdout: PathBuf,
    pub stderr: PathBuf,
}

/// How a container ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exit {
    pub code: i32,
    pub at: Timestamp,
}

/// What a shim says of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TaskState {
    Created,
    Running {
        pid: u32,
    },
    Stopped {
        pid: u32,
    },
    /// It does not know it.
    Unknown,
}

/// Why nobody can say how a container ended.
#[derive(Debug)]
pub(crate) enum WaitError {
    /// The connection is gone; the shim may live.
    Disconnected,
    /// The shim answers, and cannot tell.
    Refused(Error),
}

/// How long a call may take that only asks or signals.
const ASK: Duration = Duration::from_secs(10);
/// How long one may take that runs an OCI runtime, on a node that is busy.
const ACT: Duration = Duration::from_secs(230);

#[allow(clippy::needless_pass_by_value, reason = "the form that map_err takes")]
fn refused(err: client::Error) -> Error {
    let text = match &err {
        client::Error::Connect { source, .. } => format!("{err}: {source}"),
        _ => err.to_string(),
    };
    match err {
        client::Error::Lost { .. } | client::Error::Connect { .. } => Error::Unavailable(text),
        client::Error::Deadline { .. } => Error::DeadlineExceeded(text),
        client::Error::Refused { .. } | client::Error::Malformed { .. } => Error::Runtime(text),
    }
}

/// The connection's own task ends with it.
#[allow(
    clippy::disallowed_methods,
    reason = "carries the connection; ends when either side closes it"
)]
async fn connect(address: &str) -> Result<Client> {
    let (client, driver) = client::connect(address, ASK).await.map_err(refused)?;
    tokio::spawn(driver);
    Ok(client)
}

pub(super) fn nanoseconds(at: SystemTime) -> Timestamp {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .ok()
        .and_then(|since| Timestamp::try_from(since.as_nanos()).ok())
        .unwrap_or(0)
}

/// An exit code is a byte, as a rule.
pub(super) fn code(status: u32) -> i32 {
    i32::try_from(status).unwrap_or(i32::MAX)
}

impl Shim {
    /// Starts the shim of a new pod and has it make the pod's namespaces.
    pub(crate) async fn launch(
        node: &Node,
        id: &SandboxId,
        handler: &Handler,
        dir: &Path,
        wanted: Wanted,
    ) -> Result<(Self, Namespaces)> {
        tracing::debug!(sandbox = %id, handler = handler.name, "starting the shim");
        let own =
            std::env::current_exe().map_err(Error::io("find", Path::new("/proc/self/exe")))?;
        let program = match node.config.shim.as_os_str().is_empty() {
            true => own.with_file_name(PROGRAM),
            false => node.config.shim.clone(),
        };
        let launch = shim::launch::Shim {
            binary: &program,
            id: id.as_str(),
            bundle: dir,
            address: &node.config.socket.to_string_lossy(),
            events: "",
            publish_binary: &own,
            debug: tracing::enabled!(tracing::Level::DEBUG),
        };
        let answer = failpoint::step_async("launch/spawn", async {
            let answer = shim::launch::start(&launch, &Options::None, START).await;
            answer.map_err(|err| Error::Runtime(with_source(&err)))
        })
        .await?;
        let (client, pid) = match answer.pid {
            Some(pid) => (None, pid),
            None => {
                let client = connect(&answer.address).await?;
                let pid = client.identify(id.as_str(), ASK).await.map_err(refused)?.0;
                (Some(client), pid)
            }
        };
        let started = process::start_time(pid)
            .ok_or_else(|| Error::Unavailable(format!("the shim {pid} ended at once")))?;
        // Before anything that may fail: what is remembered can be ended.
        resource::remember_shim(dir, pid, started)?;
        let client = match client {
            Some(client) => client,
            None => connect(&answer.address).await?,
        };
        failpoint::step_async("launch/create-sandbox", async {
            client.create_sandbox(wanted.request(id, dir), ASK).await.map_err(refused)
        })
        .await?;
        let up = failpoint::step_async("launch/start-sandbox", async {
            client.start_sandbox(id.as_str(), ASK).await.map_err(refused)
        })
        .await?;
        let (address, client) = (answer.address, Mutex::new(client));
        Ok((Self { id: id.clone(), address, pid, started, client }, up.namespaces))
    }

    /// Attaches to a shim that an earlier daemon started.
    pub(crate) async fn attach(id: &SandboxId, dir: &Path, pid: u32, started: u64) -> Result<Self> {
        if !process::is_alive(pid, started) {
            return Err(Error::Unavailable(format!("its shim, process {pid}, is gone")));
        }
        let address = format!("unix://{}", dir.join(SOCKET).display());
        let client = Mutex::new(connect(&address).await?);
        Ok(Self { id: id.clone(), address, pid, started, client })
    }

    pub(crate) fn is_alive(&self) -> bool {
        process::is_alive(self.pid, self.started)
    }

    /// Returns when the shim's process has ended.
    pub(crate) async fn ended(&self) {
        const POLL: Duration = Duration::from_secs(1);
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK).ok());
        if let Some(Ok(pidfd)) = pidfd.map(crate::sys::pidfd) {
            // The pid could have been reused before it was opened.
            if self.is_alive() {
                pidfd.readable().await.ok();
            }
        }
        while self.is_alive() {
            tokio::time::sleep(POLL).await;
        }
    }

    fn client(&self) -> Client {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn reconnect(&self) -> Result<()> {
        let fresh = connect(&self.address).await?;
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// Creates the container in its OCI runtime; the pid of its first process.
    pub(crate) async fn create(
        &self,
        node: &Node,
        container: &Container,
        rootfs: Vec<Mount>,
    ) -> Result<u32> {
        let fixed = &container.fixed;
        let options = Podwright {
            runtime: fixed.handler.binary.clone(),
            runtime_root: Some(node.runtime_root(&fixed.handler.name)),
            systemd_cgroup: node.host.cgroup_driver == CgroupDriver::Systemd,
            log_path: fixed.log_path.clone(),
            stdin: fixed.config.stdin,
            stdin_once: fixed.config.stdin_once,
            exit_path: Some(fixed.bundle.join(EXIT_RECORD)),
            pid_path: Some(fixed.bundle.join("pid")),
            ..Podwright::default()
        };
        let task = CreateTask {
            id: fixed.id.to_string(),
            bundle: fixed.bundle.clone(),
            rootfs,
            stdio: Stdio { terminal: fixed.config.tty, ..Stdio::default() },
            options: Options::Podwright(options),
        };
        failpoint::step_async("shim/create", async {
            self.client().create(task, ACT).await.map_err(refused)
        })
        .await
    }

    pub(crate) async fn start(&self, container: &Container) -> Result<()> {
        failpoint::step_async("shim/start", async {
            let id = container.id().as_str();
            self.client().start(id, "", ACT).await.map(drop).map_err(refused)
        })
        .await
    }

    /// Waits for the container's end.
    pub(crate) async fn wait(&self, container: &Container) -> Result<Exit, WaitError> {
        match self.client().wait(container.id().as_str(), "").await {
            Ok(exit) => Ok(Exit { code: code(exit.status), at: nanoseconds(exit.at) }),
            Err(err) if err.is_lost() => {
                self.reconnect().await.ok();
                Err(WaitError::Disconnected)
            }
            Err(err) => Err(WaitError::Refused(refused(err))),
        }
    }

    /// Sends a signal to the container's first process. No error if it is gone.
    pub(crate) async fn signal(&self, container: &Container, number: i32) -> Result<()> {
        self.signal_exec(container, "", number).await
    }

    /// Has the shim and the OCI runtime forget a container that does not run. True if they know of none then.
    pub(crate) async fn forget(&self, container: &Container) -> bool {
        let deleted = failpoint::step_async("shim/delete", async {
            match self.client().delete(container.id().as_str(), "", ACT).await {
                Err(err) if !err.is_not_found() => Err(refused(err)),
                _ => Ok(()),
            }
        });
        match deleted.await {
            Ok(()) => true,
            Err(err) => {
                tracing::warn!(container = %container.id(), %err, "not deleted by its shim");
                false
            }
        }
    }

    pub(crate) async fn state(&self, container: &Container) -> Result<TaskState> {
        use client::Status;
        match self.client().state(container.id().as_str(), "", ASK).await {
            Ok(state) => Ok(match state.status {
                Status::Created => TaskState::Created,
                Status::Running | Status::Paused => TaskState::Running { pid: state.pid },
                Status::Stopped => TaskState::Stopped { pid: state.pid },
                Status::Unknown => TaskState::Unknown,
            }),
            Err(err) if err.is_not_found() => Ok(TaskState::Unknown),
            Err(err) => Err(refused(err)),
        }
    }

    pub(crate) async fn update(&self, container: &Container, resources: Vec<u8>) -> Result<()> {
        failpoint::step_async("shim/update", async {
            let id = container.id().as_str();
            self.client().update(id, resources, ACT).await.map_err(refused)
        })
        .await
    }

    pub(crate) async fn reopen_log(&self, container: &Container) -> Result<()> {
        failpoint::step_async("shim/reopen-log", async {
            self.client().reopen_log(container.id().as_str(), ASK).await.map_err(refused)
        })
        .await
    }

    /// Adds a command to a running container and starts it.
    pub(crate) async fn start_exec(&self, container: &Container, exec: &Exec) -> Result<()> {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let wire = client::Exec {
            id: container.id().to_string(),
            exec_id: exec.id.clone(),
            process: exec.process.clone(),
            stdio: Stdio {
                stdout: path(&exec.stdout),
                stderr: path(&exec.stderr),
                ..Stdio::default()
            },
        };
        let client = self.client();
        failpoint::step_async("shim/exec", async { client.exec(wire, ASK).await.map_err(refused) })
            .await?;
        failpoint::step_async("shim/exec-start", async {
            let id = container.id().as_str();
            client.start(id, &exec.id, ACT).await.map(drop).map_err(refused)
        })
        .await
    }

    /// The exit code of a command.
    pub(crate) async fn wait_exec(&self, container: &Container, exec: &str) -> Result<i32> {
        let exit = self.client().wait(container.id().as_str(), exec).await.map_err(refused)?;
        Ok(code(exit.status))
    }

    pub(crate) async fn signal_exec(
        &self,
        container: &Container,
        exec: &str,
        number: i32,
    ) -> Result<()> {
        let number =
            u32::try_from(number).map_err(|_| Error::Internal(format!("signal {number}")))?;
        failpoint::step_async("shim/kill", async {
            match self.client().kill(container.id().as_str(), exec, number, false, ASK).await {
                Err(err) if !err.is_not_found() => Err(refused(err)),
                _ => Ok(()),
            }
        })
        .await
    }

    pub(crate) async fn delete_exec(&self, container: &Container, exec: &str) {
        let deleted = failpoint::step_async("shim/exec-delete", async {
            match self.client().delete(container.id().as_str(), exec, ASK).await {
                Err(err) if !err.is_not_found() => Err(refused(err)),
                _ => Ok(()),
            }
        });
        if let Err(err) = deleted.await {
            tracing::warn!(container = %container.id(), exec, %err, "exec not deleted by its shim");
        }
    }

    /// Tells the shim to end and waits a little; whoever releases it kills it if it does not.
    pub(crate) async fn shut_down(&self) {
        let told = failpoint::step_async("shim/shutdown", async {
            self.client().shutdown_sandbox(self.id.as_str(), ASK).await.map_err(refused)
        });
        if told.await.is_ok() {
            tokio::time::timeout(END, self.ended()).await.ok();
        }
    }
}

impl Wanted {
    fn request(self, id: &SandboxId, dir: &Path) -> CreateSandbox {
        CreateSandbox {
            id: id.to_string(),
            bundle: dir.to_owned(),
            hostname: self.hostname,
            sysctls: self.sysctls,
            host_ipc: self.host_ipc,
            host_uts: self.host_uts,
            shared_pid: self.shared_pid,
            cgroup_path: self.cgroup,
            netns: self.netns,
        }
    }
}

/// An error and what is behind it.
fn with_source(err: &dyn std::error::Error) -> String {
    match err.source() {
        Some(source) => format!("{err}: {source}"),
        None => err.to_string(),
    }
}
