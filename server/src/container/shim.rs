//! A pod's shim, as the daemon drives it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use shim::client::{
    self, Client, CreateSandbox, CreateTask, IdMapping, Options, Podwright, Stdio, Users,
};
use snapshotter::mount::Mount;
use tokio::sync::Notify;

use super::Container;
use super::config::{self, UsernsOptions};
use super::node::Node;
use super::place::Place;
use super::state::Timestamp;
use super::watch_exit::EXIT_RECORD;
use crate::config::CgroupDriver;
use crate::error::{Error, Result};
use crate::failpoint;
use crate::host::{Handler, process};
use crate::id::SandboxId;
use crate::resource;
use crate::telemetry::apart;

pub(crate) use shim::client::Namespaces;

mod doubt;

pub(crate) use doubt::Suspect;

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
    doubts: Notify,
    seen: Mutex<doubt::Seen>,
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
    /// A user namespace of the pod's own.
    pub users: Option<UsernsOptions>,
    /// Its network namespace is made inside that.
    pub own_network: bool,
    /// The OCI runtime, where it need not guard itself.
    pub guarded_runtime: Option<PathBuf>,
}

/// A command in a container.
#[derive(Debug)]
pub(crate) struct Exec {
    pub id: String,
    pub dir: PathBuf,
    /// OCI process, JSON.
    pub process: Vec<u8>,
    pub terminal: bool,
    /// FIFOs; `None`: the process gets the null device.
    pub stdin: Option<PathBuf>,
    pub stdout: Option<PathBuf>,
    pub stderr: Option<PathBuf>,
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
/// How long the OCI runtime may take to forget a container before we go without.
const FORGET: Duration = Duration::from_secs(10);
/// A call that takes longer makes one ask whether the shim answers at all.
const SOON: Duration = Duration::from_secs(2);
/// How long a killed shim may take to be gone.
const KILL: Duration = Duration::from_secs(10);

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

/// What is not there (any more) needs neither a signal nor a deletion.
async fn absent_is_done<T>(call: impl Future<Output = client::Result<T>>) -> client::Result<()> {
    match call.await {
        Err(err) if !err.is_not_found() => Err(err),
        _ => Ok(()),
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
        Ok((Self::new(id, answer.address, pid, started, client), up.namespaces))
    }

    /// Attaches to a shim that an earlier daemon started.
    pub(crate) async fn attach(id: &SandboxId, dir: &Path, pid: u32, started: u64) -> Result<Self> {
        if !process::is_alive(pid, started) {
            return Err(Error::Unavailable(format!("its shim, process {pid}, is gone")));
        }
        let address = format!("unix://{}", dir.join(SOCKET).display());
        let client = connect(&address).await?;
        Ok(Self::new(id, address, pid, started, client))
    }

    fn new(id: &SandboxId, address: String, pid: u32, started: u64, client: Client) -> Self {
        let client = Mutex::new(client);
        let (doubts, seen) = (Notify::new(), Mutex::default());
        Self { id: id.clone(), address, pid, started, client, doubts, seen }
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
            if !self.is_alive() || pidfd.readable().await.is_ok() {
                return;
            }
        }
        while self.is_alive() {
            tokio::time::sleep(POLL).await;
        }
    }

    fn client(&self) -> Client {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, fresh: Client) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
    }

    /// What a call comes to. One that takes long or gets no answer is a reason to ask whether the shim answers at all.
    async fn answered<T>(
        &self,
        call: impl Future<Output = client::Result<T>>,
    ) -> client::Result<T> {
        let mut call = pin!(call);
        let result = match tokio::time::timeout(SOON, &mut call).await {
            Ok(result) => result,
            Err(_) => {
                self.doubt();
                call.await
            }
        };
        if let Err(client::Error::Deadline { .. }) = &result {
            self.doubt();
        }
        result
    }

    /// A call that changes something.
    async fn effect<T>(
        &self,
        name: &'static str,
        call: impl Future<Output = client::Result<T>>,
    ) -> Result<T> {
        let answered = async { self.answered(call).await.map_err(refused) };
        failpoint::step_async(name, answered).await
    }

    /// Kills it: an end like any other for those who watch it.
    pub(crate) async fn kill(&self) -> Result<()> {
        let (pid, started) = (self.pid, self.started);
        apart(move || process::kill(pid, started, KILL).map_err(Error::Runtime)).await
    }

    /// Returns when the pod is over though its shim may not be: the init of its processes has ended.
    pub(crate) async fn sandbox_over(&self) {
        const RETRY: Duration = Duration::from_secs(1);
        while self.client().wait_sandbox(self.id.as_str()).await.is_err() {
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Creates the container in its OCI runtime; the pid of its first process.
    pub(crate) async fn create(
        &self,
        node: &Node,
        container: &Container,
        rootfs: Vec<Mount>,
        volumes: Vec<(Mount, PathBuf)>,
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
            volumes,
            users: users(node, &fixed.place),
            ..Podwright::default()
        };
        let task = CreateTask {
            id: fixed.id.to_string(),
            bundle: fixed.bundle.clone(),
            rootfs,
            stdio: Stdio { terminal: fixed.config.tty, ..Stdio::default() },
            options: Options::Podwright(options),
        };
        self.effect("shim/create", self.client().create(task, ACT)).await
    }

    pub(crate) async fn start(&self, container: &Container) -> Result<()> {
        let id = container.id().as_str();
        self.effect("shim/start", self.client().start(id, "", ACT)).await.map(drop)
    }

    /// Waits for the container's end.
    pub(crate) async fn wait(&self, container: &Container) -> Result<Exit, WaitError> {
        match self.client().wait(container.id().as_str(), "").await {
            Ok(exit) => Ok(Exit { code: code(exit.status), at: nanoseconds(exit.at) }),
            // Whoever watches the shim connects to it again, or ends it.
            Err(err) if err.is_lost() => Err(WaitError::Disconnected),
            Err(err) => Err(WaitError::Refused(refused(err))),
        }
    }

    /// Sends a signal to the container's first process. No error if it is gone.
    pub(crate) async fn signal(&self, container: &Container, number: i32) -> Result<()> {
        self.signal_exec(container, "", number).await
    }

    /// Has the shim and the OCI runtime forget a container that does not run. True if they know of none then.
    pub(crate) async fn forget(&self, container: &Container) -> bool {
        let client = self.client();
        let delete = client.delete(container.id().as_str(), "", FORGET);
        match self.effect("shim/delete", absent_is_done(delete)).await {
            Ok(()) => true,
            Err(err) => {
                tracing::warn!(container = %container.id(), %err, "not deleted by its shim");
                false
            }
        }
    }

    pub(crate) async fn state(&self, container: &Container) -> Result<TaskState> {
        use client::Status;
        match self.answered(self.client().state(container.id().as_str(), "", ASK)).await {
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
        let id = container.id().as_str();
        self.effect("shim/update", self.client().update(id, resources, ACT)).await
    }

    /// Shows the container's output through FIFOs of ours until it exits, and passes input on. True if the output
    /// came faster than it was read.
    pub(crate) async fn view(
        &self,
        container: &Container,
        fifos: [Option<&Path>; 4],
    ) -> Result<bool> {
        let path =
            |path: Option<&Path>| path.map(Path::to_string_lossy).unwrap_or_default().into_owned();
        let attached = self.client().attach(container.id().as_str(), fifos.map(path)).await;
        attached.map_err(|err| match &err {
            client::Error::Refused { code: client::Code::Unimplemented, .. } => Error::Unsupported(
                "the pod was started by an older version, whose shim cannot attach".into(),
            ),
            _ => refused(err),
        })
    }

    pub(crate) async fn reopen_log(&self, container: &Container) -> Result<()> {
        let id = container.id().as_str();
        self.effect("shim/reopen-log", self.client().reopen_log(id, ASK)).await
    }

    /// Adds a command to a running container and starts it: what each of the two came to. It may have been started
    /// though the other has failed.
    pub(crate) async fn start_exec(
        &self,
        container: &Container,
        exec: &Exec,
    ) -> (Result<()>, Result<()>) {
        let path = |path: &Option<PathBuf>| {
            path.as_deref().map(Path::to_string_lossy).unwrap_or_default().into_owned()
        };
        let wire = client::Exec {
            id: container.id().to_string(),
            exec_id: exec.id.clone(),
            process: exec.process.clone(),
            stdio: Stdio {
                terminal: exec.terminal,
                stdin: path(&exec.stdin),
                stdout: path(&exec.stdout),
                stderr: path(&exec.stderr),
            },
        };
        let client = self.client();
        // One after the other in one breath: a shim begins calls in the order in which they come.
        let (added, started) = tokio::join!(
            self.effect("shim/exec", client.exec(wire, ASK)),
            self.effect("shim/exec-start", client.start(container.id().as_str(), &exec.id, ACT)),
        );
        (added, started.map(drop))
    }

    /// The exit code of a command.
    pub(crate) async fn wait_exec(&self, container: &Container, exec: &str) -> Result<i32> {
        let exit = self.client().wait(container.id().as_str(), exec).await.map_err(refused)?;
        Ok(code(exit.status))
    }

    /// Sends a signal to a command and to what it has started. No error if it is gone.
    pub(crate) async fn signal_exec(
        &self,
        container: &Container,
        exec: &str,
        number: i32,
    ) -> Result<()> {
        let number =
            u32::try_from(number).map_err(|_| Error::Internal(format!("signal {number}")))?;
        // For the container itself this means all of its processes, which a signal to its first does not.
        let all = !exec.is_empty();
        let client = self.client();
        let kill = client.kill(container.id().as_str(), exec, number, all, ASK);
        self.effect("shim/kill", absent_is_done(kill)).await
    }

    /// Ends the standard input of a command, or of the container where `exec` is empty.
    pub(crate) async fn close_stdin(&self, container: &Container, exec: &str) {
        if let Err(err) = self.client().close_stdin(container.id().as_str(), exec, ASK).await
            && !err.is_not_found()
        {
            tracing::warn!(container = %container.id(), exec, %err, "standard input not closed");
        }
    }

    /// Tells a command's terminal its size, or the container's where `exec` is empty. Without effect once it is gone.
    pub(crate) async fn resize(&self, container: &Container, exec: &str, size: (u32, u32)) {
        if let Err(err) = self.client().resize(container.id().as_str(), exec, size, ASK).await {
            tracing::debug!(container = %container.id(), exec, %err, "terminal not resized");
        }
    }

    pub(crate) async fn delete_exec(&self, container: &Container, exec: &str) {
        let client = self.client();
        let delete = client.delete(container.id().as_str(), exec, ASK);
        if let Err(err) = self.effect("shim/exec-delete", absent_is_done(delete)).await {
            tracing::warn!(container = %container.id(), exec, %err, "exec not deleted by its shim");
        }
    }

    /// Tells the shim to end and waits a little; whoever releases it kills it if it does not.
    pub(crate) async fn shut_down(&self) {
        let client = self.client();
        let told = self.effect("shim/shutdown", client.shutdown_sandbox(self.id.as_str(), ASK));
        if told.await.is_ok() {
            tokio::time::timeout(END, self.ended()).await.ok();
        }
    }
}

/// The pod's users, as the shim has to know them.
fn users(node: &Node, place: &Place) -> Option<Users> {
    let users = place.users.as_ref()?;
    let (uid, gid) = users.root();
    Some(Users {
        namespace: place.user.clone()?,
        mapped_root: node.hands.snapshotter.root().to_owned(),
        uid,
        gid,
    })
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
            uids: mappings(self.users.as_ref().map(|users| &users.uids)),
            gids: mappings(self.users.as_ref().map(|users| &users.gids)),
            own_network: self.own_network,
            guarded_runtime: self.guarded_runtime,
        }
    }
}

fn mappings(of: Option<&Vec<config::IdMapping>>) -> Vec<IdMapping> {
    let mapping = |one: &config::IdMapping| IdMapping {
        container: one.container_id,
        host: one.host_id,
        length: one.length,
    };
    of.into_iter().flatten().map(mapping).collect()
}

/// An error and what is behind it.
fn with_source(err: &dyn std::error::Error) -> String {
    match err.source() {
        Some(source) => format!("{err}: {source}"),
        None => err.to_string(),
    }
}
