//! Exec and attach: a process's streams on one side, a client's on the other.
//!
//! A session owns all that it uses and ends with the first of: the process, the client, the idle limit, the daemon.
//! A command whose client is gone is killed; a container is only let go of. What a process has printed when it ends
//! is delivered before its end is told, and what a child of it holds open is not waited for.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;

use super::channel::{CHUNK, Input, Output};
use super::report::{Outcome, Version};
use super::typed;
use crate::container::exec::{self, Command, Running, Streams};
use crate::container::shim::Shim;
use crate::container::{Container, attach};
use crate::error::Result;

/// What is read at most from a process that has ended: more than its pipe held then is another process's.
const MAX_LEFT: usize = 1 << 20;

/// The client's side.
#[derive(Debug)]
pub(super) struct Client {
    pub version: Version,
    pub stdin: Option<Input>,
    pub stdout: Option<Output>,
    pub stderr: Option<Output>,
    pub resize: Option<Input>,
    pub error: Output,
    /// The client is gone, or has to go.
    pub gone: CancellationToken,
}

/// What the client asked for, checked.
#[derive(Debug, Clone)]
pub(super) struct Remote {
    pub container: Arc<Container>,
    pub shim: Arc<Shim>,
    pub what: What,
    pub terminal: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// A new process, or the container's own.
#[derive(Debug, Clone)]
pub(super) enum What {
    Exec(Vec<String>),
    Attach,
}

/// Serves the client to the end of its session.
pub(super) async fn run(remote: Remote, client: Client, drain: Duration) {
    let Client { version, stdin, stdout, stderr, resize, error, gone } = client;
    let outputs = [stdout, stderr];
    let inputs = (stdin, resize);
    let outcome = match remote.what.clone() {
        What::Exec(command) => run_exec(&remote, command, inputs, &outputs, &gone, drain).await,
        What::Attach => run_attach(&remote, inputs, &outputs, &gone).await,
    };
    for output in outputs.into_iter().flatten() {
        output.end().await;
    }
    if let Some(text) = outcome.text(version) {
        error.send(text).await.ok();
    }
    error.end().await;
}

async fn run_exec(
    remote: &Remote,
    arguments: Vec<String>,
    (stdin, sizes): (Option<Input>, Option<Input>),
    outputs: &[Option<Output>; 2],
    gone: &CancellationToken,
    drain: Duration,
) -> Outcome {
    let command = Command {
        arguments,
        terminal: remote.terminal,
        stdin: stdin.is_some(),
        stdout: outputs[0].is_some() || remote.terminal,
        stderr: outputs[1].is_some(),
    };
    let failed = |err| Outcome::Failed(format!("error executing command in container: {err}"));
    let left = async {
        gone.cancelled().await;
        "has lost its client".to_owned()
    };
    let started = exec::start(&remote.container, &remote.shim, &command, left).await;
    let (running, streams) = match started {
        Ok(started) => started,
        Err(err) => return failed(err),
    };
    let Streams { stdin: fifo, stdout, stderr } = streams;
    let exited = CancellationToken::new();
    let inputs = async {
        let resize = |size| running.resize(size);
        typed::follow(stdin, fifo, sizes, resize, running.close_stdin()).await;
        std::future::pending::<()>().await;
    };
    let outputs = async {
        let (code, (), ()) = tokio::join!(
            end(&running, gone, &exited),
            pump(stdout, outputs[0].as_ref(), &exited, drain),
            pump(stderr, outputs[1].as_ref(), &exited, drain),
        );
        code
    };
    let code = tokio::select! {
        code = outputs => code,
        () = inputs => unreachable!("inputs never end a session"),
    };
    running.forget().await;
    match code {
        Ok(0) => Outcome::Success,
        Ok(code) => Outcome::Exited { command: command.arguments, code },
        Err(err) => failed(err),
    }
}

/// Waits for the end of a command, and kills it where its client is gone.
async fn end(
    running: &Running,
    gone: &CancellationToken,
    exited: &CancellationToken,
) -> Result<i32> {
    let code = tokio::select! {
        code = running.ended() => code,
        () = gone.cancelled() => {
            running.kill().await.inspect_err(|err| tracing::warn!(%err, "a command without a client was not killed")).ok();
            running.ended().await
        }
    };
    exited.cancel();
    code
}

async fn run_attach(
    remote: &Remote,
    (stdin, sizes): (Option<Input>, Option<Input>),
    outputs: &[Option<Output>; 2],
    gone: &CancellationToken,
) -> Outcome {
    let failed = |err| Outcome::Failed(format!("error attaching to container: {err}"));
    let wanted = [stdin.is_some(), outputs[0].is_some(), outputs[1].is_some()];
    let (view, streams) = match attach::begin(&remote.container, &remote.shim, wanted).await {
        Ok(begun) => begun,
        Err(err) => return failed(err),
    };
    let Streams { stdin: fifo, stdout, stderr } = streams;
    let over = CancellationToken::new();
    let inputs = async {
        typed::follow(stdin, fifo, sizes, |size| view.resize(size), async {}).await;
        std::future::pending::<()>().await;
    };
    let outputs = async {
        let viewed = async {
            let ended = tokio::select! {
                ended = view.ended() => ended,
                () = gone.cancelled() => Ok(()),
            };
            over.cancel();
            ended
        };
        // What is in the pipes when the view ends is all there will be.
        let (ended, (), ()) = tokio::join!(
            viewed,
            pump(stdout, outputs[0].as_ref(), &over, Duration::ZERO),
            pump(stderr, outputs[1].as_ref(), &over, Duration::ZERO),
        );
        ended
    };
    let ended = tokio::select! {
        ended = outputs => ended,
        () = inputs => unreachable!("inputs never end a session"),
    };
    view.forget().await;
    ended.map_or_else(failed, |()| Outcome::Success)
}

/// From the process to the client. What a client does not take any more is read and dropped. Ends with the stream,
/// or when `over` and nothing comes for `patience`.
async fn pump(
    from: Option<pipe::Receiver>,
    to: Option<&Output>,
    over: &CancellationToken,
    patience: Duration,
) {
    let (Some(mut from), mut to) = (from, to) else { return };
    let mut left = MAX_LEFT;
    loop {
        let mut bytes = BytesMut::with_capacity(CHUNK);
        let read = tokio::select! {
            biased;
            read = from.read_buf(&mut bytes) => read,
            () = async { over.cancelled().await; tokio::time::sleep(patience).await } => {
                // What the pipe holds may not have been told of yet.
                bytes.resize(CHUNK, 0);
                let read = rustix::io::read(&from, &mut bytes[..]);
                bytes.truncate(read.unwrap_or(0));
                read.map_err(std::io::Error::from)
            }
        };
        let Ok(count @ 1..) = read else { return };
        if over.is_cancelled() {
            left = left.saturating_sub(count);
        }
        if let Some(output) = to
            && output.send(bytes.freeze()).await.is_err()
        {
            to = None;
        }
        if left == 0 {
            return;
        }
    }
}
