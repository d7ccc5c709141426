//! Containers: the Task service.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use api::podwright::CreateOptions;
use api::task as wire;
use prost_types::Any;
use snapshotter::mount::Mount;

use super::connection::Client;
use super::error::Result;
use super::time;
use crate::mounts;

/// The type under which an exec's process document travels.
const PROCESS: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
/// The type under which new resource limits travel.
const RESOURCES: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

/// A container to create.
#[derive(Debug, Clone, Default)]
pub struct CreateTask {
    /// Its id, unique within the shim's runtime root.
    pub id: String,
    /// The directory with `config.json` and `rootfs/`.
    pub bundle: PathBuf,
    /// What the shim mounts at `rootfs/`, where only the container sees it.
    pub rootfs: Vec<Mount>,
    /// Its streams.
    pub stdio: Stdio,
    /// What the shim is told beyond the protocol.
    pub options: Options,
}

/// The streams of a process: FIFO paths or URIs; empty for none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stdio {
    /// Whether it gets a terminal; then there is no separate error stream.
    pub terminal: bool,
    /// Input.
    pub stdin: String,
    /// Output.
    pub stdout: String,
    /// Error output.
    pub stderr: String,
}

/// Options of the shim's kind.
#[derive(Debug, Clone, Default)]
pub enum Options {
    /// The shim's defaults.
    #[default]
    None,
    /// For podwright-shim.
    Podwright(Podwright),
    /// For any other shim: a packed message.
    Other(Any),
}

/// How podwright-shim is to run a container.
#[derive(Debug, Clone, Default)]
pub struct Podwright {
    /// The OCI runtime's program.
    pub runtime: PathBuf,
    /// The OCI runtime's state directory; `None` for its default.
    pub runtime_root: Option<PathBuf>,
    /// Put before the OCI runtime's verb.
    pub runtime_args: Vec<String>,
    /// Whether cgroups are made through systemd.
    pub systemd_cgroup: bool,
    /// The CRI log file; `None` discards the output.
    pub log_path: Option<PathBuf>,
    /// Where longer lines are split; 0 means 16 KiB.
    pub log_max_line: u32,
    /// Whether standard input is open.
    pub stdin: bool,
    /// Whether it closes with the first client's.
    pub stdin_once: bool,
    /// Where the exit record goes.
    pub exit_path: Option<PathBuf>,
    /// Where the pid file goes; `None` for `<bundle>/pid`.
    pub pid_path: Option<PathBuf>,
    /// What is mounted beside the root file system, and where: an absolute path each. Only the OCI
    /// runtime sees it there.
    pub volumes: Vec<(Mount, PathBuf)>,
    /// The pod's users; `None`: the host's.
    pub users: Option<Users>,
}

/// A user namespace, as far as a container's files are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Users {
    /// Where the namespace is held.
    pub namespace: PathBuf,
    /// The directory that all layers lie below: what is mounted of it gets owners of the namespace.
    pub mapped_root: PathBuf,
    /// The namespace's root, as the host numbers it: whose the standard streams are.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// A further process in a container.
#[derive(Debug, Clone, Default)]
pub struct Exec {
    /// The container.
    pub id: String,
    /// The process's own id.
    pub exec_id: String,
    /// The OCI process document, in JSON.
    pub process: Vec<u8>,
    /// Its streams.
    pub stdio: Stdio,
}

/// Where a process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The shim does not say.
    Unknown,
    /// Made, not started.
    Created,
    /// Runs.
    Running,
    /// Has exited.
    Stopped,
    /// Is frozen, or about to be.
    Paused,
}

/// What a shim knows of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Its pid on the host; 0 if it was not started.
    pub pid: u32,
    /// Where it is in its life.
    pub status: Status,
    /// How it ended, once it is stopped.
    pub exit: Option<Exit>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The exit code, or 128 plus the signal.
    pub status: u32,
    /// When.
    pub at: SystemTime,
}

impl Client {
    /// Creates a container, which waits for [`Client::start`]; returns its first process.
    pub async fn create(&self, task: CreateTask, limit: Duration) -> Result<u32> {
        let request = wire::CreateTaskRequest {
            id: task.id,
            bundle: task.bundle.to_string_lossy().into_owned(),
            rootfs: task.rootfs.iter().map(mounts::to_wire).collect(),
            terminal: task.stdio.terminal,
            stdin: task.stdio.stdin,
            stdout: task.stdio.stdout,
            stderr: task.stdio.stderr,
            options: task.options.pack(),
            ..Default::default()
        };
        let answer: wire::CreateTaskResponse =
            self.task_call("Create", &request, Some(limit)).await?;
        Ok(answer.pid)
    }

    /// Starts a container (`exec_id` empty) or an exec; returns its pid.
    pub async fn start(&self, id: &str, exec_id: &str, limit: Duration) -> Result<u32> {
        let request = wire::StartRequest { id: id.into(), exec_id: exec_id.into() };
        let answer: wire::StartResponse = self.task_call("Start", &request, Some(limit)).await?;
        Ok(answer.pid)
    }

    /// Registers a further process.
    pub async fn exec(&self, exec: Exec, limit: Duration) -> Result<()> {
        let request = wire::ExecProcessRequest {
            id: exec.id,
            exec_id: exec.exec_id,
            terminal: exec.stdio.terminal,
            stdin: exec.stdio.stdin,
            stdout: exec.stdio.stdout,
            stderr: exec.stdio.stderr,
            spec: Some(Any { type_url: PROCESS.into(), value: exec.process }),
        };
        self.task_call("Exec", &request, Some(limit)).await
    }

    /// Waits until a process has exited, however long that takes.
    pub async fn wait(&self, id: &str, exec_id: &str) -> Result<Exit> {
        let request = wire::WaitRequest { id: id.into(), exec_id: exec_id.into() };
        let answer: wire::WaitResponse = self.task_call("Wait", &request, None).await?;
        Ok(Exit { status: answer.exit_status, at: time::from_wire(answer.exited_at) })
    }

    /// What the shim knows of a process.
    pub async fn state(&self, id: &str, exec_id: &str, limit: Duration) -> Result<State> {
        let request = wire::StateRequest { id: id.into(), exec_id: exec_id.into() };
        let answer: wire::StateResponse = self.task_call("State", &request, Some(limit)).await?;
        use api::types::Status as Wire;
        let status = match answer.status() {
            Wire::Unknown => Status::Unknown,
            Wire::Created => Status::Created,
            Wire::Running => Status::Running,
            Wire::Stopped => Status::Stopped,
            Wire::Paused | Wire::Pausing => Status::Paused,
        };
        let exit = (status == Status::Stopped)
            .then(|| Exit { status: answer.exit_status, at: time::from_wire(answer.exited_at) });
        Ok(State { pid: answer.pid, status, exit })
    }

    /// Sends a signal to a process, or to all of the container's.
    pub async fn kill(
        &self,
        id: &str,
        exec_id: &str,
        signal: u32,
        all: bool,
        limit: Duration,
    ) -> Result<()> {
        let request = wire::KillRequest { id: id.into(), exec_id: exec_id.into(), signal, all };
        self.task_call("Kill", &request, Some(limit)).await
    }

    /// Ends a process's standard input.
    pub async fn close_stdin(&self, id: &str, exec_id: &str, limit: Duration) -> Result<()> {
        let request = wire::CloseIoRequest { id: id.into(), exec_id: exec_id.into(), stdin: true };
        self.task_call("CloseIO", &request, Some(limit)).await
    }

    /// Tells a process's terminal its size.
    pub async fn resize(
        &self,
        id: &str,
        exec_id: &str,
        (width, height): (u32, u32),
        limit: Duration,
    ) -> Result<()> {
        let request =
            wire::ResizePtyRequest { id: id.into(), exec_id: exec_id.into(), width, height };
        self.task_call("ResizePty", &request, Some(limit)).await
    }

    /// Forgets a process that has exited; for a container, removes what its runtime keeps.
    pub async fn delete(&self, id: &str, exec_id: &str, limit: Duration) -> Result<Exit> {
        let request = wire::DeleteRequest { id: id.into(), exec_id: exec_id.into() };
        let answer: wire::DeleteResponse = self.task_call("Delete", &request, Some(limit)).await?;
        Ok(Exit { status: answer.exit_status, at: time::from_wire(answer.exited_at) })
    }

    /// All processes of a container.
    pub async fn pids(&self, id: &str, limit: Duration) -> Result<Vec<u32>> {
        let request = wire::PidsRequest { id: id.into() };
        let answer: wire::PidsResponse = self.task_call("Pids", &request, Some(limit)).await?;
        Ok(answer.processes.into_iter().map(|process| process.pid).collect())
    }

    /// Freezes a container.
    pub async fn pause(&self, id: &str, limit: Duration) -> Result<()> {
        self.task_call("Pause", &wire::PauseRequest { id: id.into() }, Some(limit)).await
    }

    /// Thaws it.
    pub async fn resume(&self, id: &str, limit: Duration) -> Result<()> {
        self.task_call("Resume", &wire::ResumeRequest { id: id.into() }, Some(limit)).await
    }

    /// Changes a container's limits to an OCI `LinuxResources` document, in JSON.
    pub async fn update(&self, id: &str, resources: Vec<u8>, limit: Duration) -> Result<()> {
        let resources = Some(Any { type_url: RESOURCES.into(), value: resources });
        let request =
            wire::UpdateTaskRequest { id: id.into(), resources, annotations: Default::default() };
        self.task_call("Update", &request, Some(limit)).await
    }

    /// Asks a shim for its pid and a container's (0 if it does not have it yet).
    pub async fn identify(&self, id: &str, limit: Duration) -> Result<(u32, u32)> {
        let request = wire::ConnectRequest { id: id.into() };
        let answer: wire::ConnectResponse =
            self.task_call("Connect", &request, Some(limit)).await?;
        Ok((answer.shim_pid, answer.task_pid))
    }

    /// Lets a shim without containers exit. That it closes the connection instead of answering
    /// is a success too.
    pub async fn shutdown(&self, id: &str, now: bool, limit: Duration) -> Result<()> {
        let request = wire::ShutdownRequest { id: id.into(), now };
        match self.task_call("Shutdown", &request, Some(limit)).await {
            Err(error) if error.is_lost() => Ok(()),
            other => other,
        }
    }
}

impl Options {
    pub(crate) fn pack(self) -> Option<Any> {
        match self {
            Self::None => None,
            Self::Other(any) => Some(any),
            Self::Podwright(options) => Some(api::pack(&options.to_wire())),
        }
    }
}

impl Podwright {
    fn to_wire(&self) -> CreateOptions {
        let text = |path: &Option<PathBuf>| {
            path.as_ref().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
        };
        CreateOptions {
            runtime: self.runtime.to_string_lossy().into_owned(),
            runtime_root: text(&self.runtime_root),
            systemd_cgroup: self.systemd_cgroup,
            log_path: text(&self.log_path),
            log_max_line: self.log_max_line,
            stdin: self.stdin,
            stdin_once: self.stdin_once,
            cgroup_path: String::new(),
            exit_path: text(&self.exit_path),
            pid_path: text(&self.pid_path),
            runtime_args: self.runtime_args.clone(),
            volumes: self.volumes.iter().map(volume).collect(),
            user_namespace: text(&self.users.as_ref().map(|users| users.namespace.clone())),
            mapped_root: text(&self.users.as_ref().map(|users| users.mapped_root.clone())),
            io_uid: self.users.as_ref().map_or(0, |users| users.uid),
            io_gid: self.users.as_ref().map_or(0, |users| users.gid),
        }
    }
}

fn volume((mount, target): &(Mount, PathBuf)) -> api::types::Mount {
    let target = target.to_string_lossy().into_owned();
    api::types::Mount { target, ..mounts::to_wire(mount) }
}
