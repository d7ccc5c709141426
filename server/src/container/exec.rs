//! ExecSync: one command in a running container, with what it wrote and how it ended.
//!
//! Output goes through two FIFOs of ours that the process itself holds open, so nothing of it passes through the
//! shim. Reading ends when the last writer closes, or a short time after the process has ended: a child that it
//! left behind may hold a FIFO for ever.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::Container;
use super::node::Node;
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
/// How long a killed process may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// The container's process as the OCI runtime takes it, without what only concerns its first one.
pub(super) const PROCESS_FILE: &str = "process.json";

/// What a command left.
#[derive(Debug)]
pub(crate) struct Output {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub code: i32,
}

/// Runs `command`; kills it at `limit`, and when the operation is cancelled, since nobody waits for it any more.
///
/// # Errors
/// `WrongState` unless the container runs, `DeadlineExceeded` at the limit.
pub(crate) async fn sync(
    node: &Node,
    container: &Container,
    shim: &Shim,
    command: Vec<String>,
    limit: Option<Duration>,
    operation: &Operation,
) -> Result<Output> {
    if !matches!(container.state(), State::Running(_)) {
        let state = container.state();
        return Err(Error::WrongState(format!(
            "container {} is {}, not running",
            container.id(),
            state.name()
        )));
    }
    operation.enter("starting the command")?;
    let exec = prepare(container, &command).await?;
    let dir = exec.dir.clone();
    let result = run(node, container, shim, &exec, limit, operation).await;
    shim.delete_exec(container, &exec.id).await;
    let remove = move || failpoint::sure("exec/remove", || std::fs::remove_dir_all(dir));
    tokio::task::spawn_blocking(remove).await.ok();
    result
}

async fn run(
    node: &Node,
    container: &Container,
    shim: &Shim,
    exec: &Exec,
    limit: Option<Duration>,
    operation: &Operation,
) -> Result<Output> {
    let mut over = pin!(over(limit, operation));
    let stdout = open(&exec.stdout)?;
    let stderr = open(&exec.stderr)?;
    tokio::select! {
        started = shim.start_exec(container, exec) => started?,
        why = &mut over => return Err(end(container, shim, exec, why).await),
    }
    // A cancel is noticed while waiting, where the command is killed.
    operation.enter("waiting for the command to end").ok();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = {
        let mut reading =
            pin!(async { tokio::join!(read(stdout, &mut out), read(stderr, &mut err)) });
        let mut ended = pin!(async {
            tokio::select! {
                code = shim.wait_exec(container, &exec.id) => code,
                why = &mut over => Err(end(container, shim, exec, why).await),
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
    err.truncate(MAX_OUTPUT - out.len());
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

/// Kills the command, or the OCI runtime that is still starting it.
async fn end(container: &Container, shim: &Shim, exec: &Exec, why: String) -> Error {
    if let Err(err) = shim.signal_exec(container, &exec.id, Signal::KILL.as_raw()).await {
        return err;
    }
    tokio::time::timeout(KILL_LIMIT, shim.wait_exec(container, &exec.id)).await.ok();
    Error::DeadlineExceeded(format!("command in container {} {why} and was killed", container.id()))
}

/// Keeps the first `MAX_OUTPUT` bytes and drops the rest, so that the process is never blocked by us.
async fn read(mut from: pipe::Receiver, into: &mut Vec<u8>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let room = MAX_OUTPUT.saturating_sub(into.len());
        into.extend_from_slice(&buffer[..n.min(room)]);
    }
}

fn open(path: &Path) -> Result<pipe::Receiver> {
    pipe::OpenOptions::new().open_receiver(path).map_err(Error::io("open", path))
}

/// Makes the FIFOs and the process description.
async fn prepare(container: &Container, command: &[String]) -> Result<Exec> {
    let id = crate::id::ContainerId::random().short().to_owned();
    let dir = container.fixed.bundle.join("exec").join(&id);
    let (bundle, command) = (container.fixed.bundle.clone(), command.to_vec());
    blocking(move || {
        let process = process(&bundle, &command)?;
        failpoint::step("exec/directory", || {
            std::fs::create_dir_all(&dir).map_err(Error::io("create", &dir))
        })?;
        let (stdout, stderr) = (fifo(dir.join("stdout"))?, fifo(dir.join("stderr"))?);
        Ok(Exec { id, dir, process, stdout, stderr })
    })
    .await
}

fn fifo(path: PathBuf) -> Result<PathBuf> {
    failpoint::step("exec/fifo", || {
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .map_err(Error::io("make the fifo", &path))
    })?;
    Ok(path)
}

/// The container's own process with another command line, without a terminal. Blocks.
fn process(bundle: &Path, command: &[String]) -> Result<Vec<u8>> {
    let path = bundle.join(PROCESS_FILE);
    let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
    let mut process: serde_json::Value = serde_json::from_slice(&bytes)
        .map_err(|err| Error::Internal(format!("{}: {err}", path.display())))?;
    process["args"] = command.into();
    process["terminal"] = false.into();
    serde_json::to_vec(&process).map_err(|err| Error::Internal(err.to_string()))
}
