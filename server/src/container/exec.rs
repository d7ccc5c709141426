//! Commands in a running container: ExecSync, and what the streams of Exec stand on.
//!
//! Their standard streams are FIFOs of ours in memory that the process itself holds open, so nothing of them passes
//! through the shim, except where the process has a terminal. Reading ends when the last writer closes, or a short
//! time after the process has ended: a child that it left behind may hold a FIFO for ever.

use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::Container;
use super::node::Node;
use super::relabel::relabel;
use super::shim::{Exec, Shim};
use super::state::State;
use crate::error::{Error, Result};
use crate::failpoint;
use crate::operation::Operation;
use crate::telemetry::blocking;

/// Of both streams together; what follows is read and dropped. The kubelet takes 16 MiB a message, its frame included.
const MAX_OUTPUT: usize = (16 << 20) - FRAME;
/// Room for the rest of the answer.
const FRAME: usize = 1024;
/// How long a command that is not wanted any more may take to be started.
const START_LIMIT: Duration = Duration::from_secs(1);
/// How long a killed process may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// The container's process as the OCI runtime takes it, without what only concerns its first one.
pub(super) const PROCESS_FILE: &str = "process.json";
/// Where a bundle keeps the FIFOs of its commands, one directory for each.
const DIR: &str = "exec";
/// What a FIFO is made to hold, so that a process and its client take turns less often.
const FIFO_SIZE: usize = 256 << 10;

/// What a command left.
#[derive(Debug)]
pub(crate) struct Output {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub code: i32,
}

/// A command, and the streams that it is to have. With a terminal, all output is `stdout`'s.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    pub arguments: Vec<String>,
    pub terminal: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// Our ends of a process's streams.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub stdin: Option<pipe::Sender>,
    pub stdout: Option<pipe::Receiver>,
    pub stderr: Option<pipe::Receiver>,
}

/// A command that was started. Whoever has it calls `forget` in the end.
#[derive(Debug)]
pub(crate) struct Running {
    container: Arc<Container>,
    shim: Arc<Shim>,
    exec: Exec,
}

/// Runs `command`; kills it at `limit`, and when the operation is cancelled, since nobody waits for it any more.
///
/// # Errors
/// `WrongState` unless the container runs, `DeadlineExceeded` at the limit.
pub(crate) async fn sync(
    node: &Node,
    container: &Arc<Container>,
    shim: &Arc<Shim>,
    arguments: Vec<String>,
    limit: Option<Duration>,
    operation: &Operation,
) -> Result<Output> {
    node.expect_move();
    operation.enter("starting the command")?;
    operation.allow(limit.unwrap_or(Duration::MAX));
    let command = Command { arguments, terminal: false, stdin: false, stdout: true, stderr: true };
    let mut over = pin!(over(limit, operation));
    let (running, streams) = start(container, shim, &command, &mut over).await?;
    // A cancel is noticed while waiting, where the command is killed.
    operation.enter("waiting for the command to end").ok();
    let result = collect(node, &running, streams, over).await;
    // The answer is there: nobody has to wait for what is left to be cleared away.
    node.tasks.spawn(tracing::Span::current(), running.forget());
    result
}

async fn collect(
    node: &Node,
    running: &Running,
    streams: Streams,
    over: impl Future<Output = String>,
) -> Result<Output> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = {
        let reading =
            async { tokio::join!(read(streams.stdout, &mut out), read(streams.stderr, &mut err)) };
        let mut reading = pin!(reading);
        let mut ended = pin!(async {
            tokio::select! {
                code = running.ended() => code,
                why = over => Err(running.cut_off(why).await),
            }
        });
        tokio::select! {
            code = &mut ended => {
                tokio::time::timeout(node.config.exec_drain, reading).await.ok();
                code?
            }
            // Both streams are closed; the process itself may go on.
            _ = &mut reading => ended.await?,
        }
    };
    fit(&mut out, &mut err);
    Ok(Output { stdout: out, stderr: err, code })
}

/// Returns, with the reason, when the command shall not go on.
async fn over(limit: Option<Duration>, operation: &Operation) -> String {
    let limit_passed = async {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = limit_passed => {
            format!("did not end within {} s", limit.unwrap_or_default().as_secs())
        }
        () = operation.cancelled() => "is not waited for any more".to_owned(),
    }
}

/// Cuts both to what one answer holds: the longer one gives way, so that a flood on one leaves the other whole.
fn fit(out: &mut Vec<u8>, err: &mut Vec<u8>) {
    let half = MAX_OUTPUT / 2;
    let (for_out, for_err) = (MAX_OUTPUT - err.len().min(half), MAX_OUTPUT - out.len().min(half));
    out.truncate(for_out);
    err.truncate(for_err.min(MAX_OUTPUT - out.len()));
}

/// Keeps the first `MAX_OUTPUT` bytes and drops the rest, so that the process is never blocked by us.
async fn read(from: Option<pipe::Receiver>, into: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let room = MAX_OUTPUT.saturating_sub(into.len());
        into.extend_from_slice(&buffer[..n.min(room)]);
    }
}

/// Starts `command`, unless `over` says before that why it is not wanted any more.
///
/// # Errors
/// `WrongState` unless the container runs; what the OCI runtime says where it cannot be started.
pub(crate) async fn start(
    container: &Arc<Container>,
    shim: &Arc<Shim>,
    command: &Command,
    over: impl Future<Output = String>,
) -> Result<(Running, Streams)> {
    must_run(container)?;
    let exec = prepare(container, command).await?;
    let running = Running { container: container.clone(), shim: shim.clone(), exec };
    let begun = {
        let mut beginning = pin!(running.begin());
        tokio::select! {
            begun = &mut beginning => begun,
            why = over => {
                running.end_start(beginning).await;
                Err(running.was_killed(&why))
            }
        }
    };
    match begun {
        Ok(streams) => Ok((running, streams)),
        Err(err) => {
            running.forget().await;
            Err(err)
        }
    }
}

/// # Errors
/// `WrongState` unless it does.
pub(crate) fn must_run(container: &Container) -> Result<()> {
    let state = container.state();
    if matches!(state, State::Running(_)) {
        return Ok(());
    }
    let text = format!("container {} is {}, not running", container.id(), state.name());
    Err(Error::WrongState(text))
}

impl Running {
    /// Opens our ends and starts the process. The reading ends are there first: a FIFO without a reader refuses its
    /// writer; the other way round holds for standard input.
    async fn begin(&self) -> Result<Streams> {
        let exec = &self.exec;
        let mut streams = Streams {
            stdin: None,
            stdout: exec.stdout.as_deref().map(receiver).transpose()?,
            stderr: exec.stderr.as_deref().map(receiver).transpose()?,
        };
        let (added, started) = self.shim.start_exec(&self.container, exec).await;
        if added.is_err() && started.is_ok() {
            self.kill().await?;
        }
        added.and(started)?;
        // A process that has ended already reads nothing.
        streams.stdin = exec.stdin.as_deref().and_then(sender);
        Ok(streams)
    }

    /// Its exit code, once it has ended.
    pub(crate) async fn ended(&self) -> Result<i32> {
        self.shim.wait_exec(&self.container, &self.exec.id).await
    }

    /// Kills the command; the reason as an error.
    async fn cut_off(&self, why: String) -> Error {
        match self.kill().await {
            Ok(()) => self.was_killed(&why),
            Err(err) => err,
        }
    }

    fn was_killed(&self, why: &str) -> Error {
        let id = self.container.id();
        Error::DeadlineExceeded(format!("command in container {id} {why} and was killed"))
    }

    /// Kills a command that is being started, once it has been: killed in the middle of that, an OCI runtime may leave a
    /// process that nobody knows. One that takes long is killed all the same.
    async fn end_start(&self, mut beginning: Pin<&mut impl Future<Output = Result<Streams>>>) {
        let mut begun = tokio::time::timeout(START_LIMIT, &mut beginning).await;
        if begun.is_err() {
            let id = &self.exec.id;
            self.shim.signal_exec(&self.container, id, Signal::KILL.as_raw()).await.ok();
            begun = tokio::time::timeout(KILL_LIMIT, beginning).await;
        }
        if let Ok(Ok(_)) = begun
            && let Err(err) = self.kill().await
        {
            tracing::warn!(container = %self.container.id(), %err, "a command that nobody waits for was not killed");
        }
    }

    /// Kills it with what it has started, and waits a little until it is gone.
    pub(crate) async fn kill(&self) -> Result<()> {
        self.shim.signal_exec(&self.container, &self.exec.id, Signal::KILL.as_raw()).await?;
        tokio::time::timeout(KILL_LIMIT, self.ended()).await.ok();
        Ok(())
    }

    /// Its standard input has ended.
    pub(crate) async fn close_stdin(&self) {
        self.shim.close_stdin(&self.container, &self.exec.id).await;
    }

    /// Tells its terminal its size.
    pub(crate) async fn resize(&self, size: (u32, u32)) {
        self.shim.resize(&self.container, &self.exec.id, size).await;
    }

    /// Lets go of everything that was its own.
    pub(crate) async fn forget(self) {
        self.shim.delete_exec(&self.container, &self.exec.id).await;
        let dir = self.exec.dir;
        let remove = move || failpoint::sure("exec/remove", || std::fs::remove_dir_all(dir));
        tokio::task::spawn_blocking(remove).await.ok();
    }
}

/// Our end of a FIFO that a process, or a shim, writes to.
pub(super) fn receiver(path: &Path) -> Result<pipe::Receiver> {
    let opened = pipe::OpenOptions::new().open_receiver(path).map_err(Error::io("open", path))?;
    // A refusal (quota) only costs speed.
    rustix::pipe::fcntl_setpipe_size(&opened, FIFO_SIZE).ok();
    Ok(opened)
}

/// Our end of a FIFO that is read by somebody; `None` where nobody does.
pub(super) fn sender(path: &Path) -> Option<pipe::Sender> {
    let opened = pipe::OpenOptions::new().open_sender(path).ok()?;
    rustix::pipe::fcntl_setpipe_size(&opened, FIFO_SIZE).ok();
    Some(opened)
}

/// Makes the FIFOs and the process description.
async fn prepare(container: &Container, command: &Command) -> Result<Exec> {
    let id = crate::id::ContainerId::random().short().to_owned();
    let dir = container.fixed.bundle.join(DIR).join(&id);
    let (bundle, command) = (container.fixed.bundle.clone(), command.clone());
    let label = container.fixed.mount_label.clone();
    blocking(move || {
        let process = process(&bundle, &command)?;
        failpoint::step("exec/directory", || {
            std::fs::create_dir_all(&dir).map_err(Error::io("create", &dir))
        })?;
        let fifo = |wanted: bool, name| {
            let made = wanted.then(|| fifo(dir.join(name))).transpose()?;
            // The process opens files of its own label, and none of ours.
            if let (Some(path), Some(label)) = (&made, &label) {
                relabel(path, label, &|| false).map_err(Error::Internal)?;
            }
            Ok::<_, Error>(made)
        };
        let stdin = fifo(command.stdin, "stdin")?;
        let stdout = fifo(command.stdout, "stdout")?;
        let stderr = fifo(command.stderr && !command.terminal, "stderr")?;
        let terminal = command.terminal;
        Ok(Exec { id, process, terminal, stdin, stdout, stderr, dir })
    })
    .await
}

pub(super) fn fifo(path: PathBuf) -> Result<PathBuf> {
    failpoint::step("exec/fifo", || {
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .map_err(Error::io("make the fifo", &path))
    })?;
    Ok(path)
}

/// The container's own process with another command line, and a terminal or none. Blocks.
fn process(bundle: &Path, command: &Command) -> Result<Vec<u8>> {
    let path = bundle.join(PROCESS_FILE);
    let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
    let mut process: serde_json::Value = serde_json::from_slice(&bytes)
        .map_err(|err| Error::Internal(format!("{}: {err}", path.display())))?;
    process["args"] = command.arguments.clone().into();
    process["terminal"] = command.terminal.into();
    if command.terminal
        && let Some(env) = process["env"].as_array_mut()
        && !env.iter().any(|one| one.as_str().is_some_and(|one| one.starts_with("TERM=")))
    {
        env.push("TERM=xterm".into());
    }
    serde_json::to_vec(&process).map_err(|err| Error::Internal(err.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_on_one_stream_leaves_the_other_whole() {
        for (out, err, kept) in [
            (MAX_OUTPUT, 0, (MAX_OUTPUT, 0)),
            (MAX_OUTPUT, 7, (MAX_OUTPUT - 7, 7)),
            (7, MAX_OUTPUT, (7, MAX_OUTPUT - 7)),
            (MAX_OUTPUT, MAX_OUTPUT, (MAX_OUTPUT / 2, MAX_OUTPUT / 2)),
            (5, 6, (5, 6)),
        ] {
            let (mut out, mut err) = (vec![0; out], vec![0; err]);
            fit(&mut out, &mut err);
            assert!(out.len() + err.len() <= MAX_OUTPUT);
            assert_eq!((out.len(), err.len()), kept);
        }
    }
}
