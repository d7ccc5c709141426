//! Runs a shim's command with bounds on time and output.

use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::{Error, Shim};
use crate::client::NAMESPACE;

/// What is read of a shim's answer.
const MAX_STDOUT: u64 = 64 * 1024;
/// What is read of its complaints.
const MAX_STDERR: u64 = 16 * 1024;
/// How long complaints are waited for after the answer: the shim itself, which goes on, may
/// hold the pipe.
const STDERR_GRACE: Duration = Duration::from_millis(200);

/// What the command printed, if it succeeded.
pub(super) async fn run(
    shim: &Shim<'_>,
    verb: &'static str,
    input: Vec<u8>,
    limit: Duration,
) -> Result<Vec<u8>, Error> {
    let mut child = command(shim, verb).spawn().map_err(|source| spawn_error(shim, source))?;
    let group = child.id();
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async move {
        if let Some(mut stdin) = stdin {
            // A shim that does not read its parameters is within its rights.
            let _ = stdin.write_all(&input).await;
        }
    };
    let work = async {
        let ((), printed, said) = tokio::join!(feed, read(stdout, MAX_STDOUT), async {
            let mut said = Vec::new();
            read_into(stderr, MAX_STDERR, &mut said, child.wait())
                .await
                .map(|status| (status, said))
        });
        (printed, said)
    };
    let outcome = tokio::time::timeout(limit, work).await;
    let Ok((printed, said)) = outcome else {
        kill_group(group);
        return Err(Error::Deadline { binary: shim.binary.to_owned(), verb, limit });
    };
    let (status, said) = said.map_err(|source| spawn_error(shim, source))?;
    if !status.success() {
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        let said = if said.is_empty() { status.to_string() } else { said };
        return Err(Error::Failed { binary: shim.binary.to_owned(), verb, said });
    }
    Ok(printed)
}

fn command(shim: &Shim<'_>, verb: &str) -> Command {
    let mut command = std::process::Command::new(shim.binary);
    command.args(["-namespace", NAMESPACE, "-address", shim.address, "-publish-binary"]);
    command.arg(shim.publish_binary).args(["-id", shim.id]);
    if verb == "delete" {
        command.arg("-bundle").arg(shim.bundle);
    }
    if shim.debug {
        command.arg("-debug");
    }
    command.arg(verb).current_dir(shim.bundle);
    let environment = [
        ("GOMAXPROCS", "2"),
        ("MAX_SHIM_VERSION", "3"),
        ("TTRPC_ADDRESS", shim.events),
        ("GRPC_ADDRESS", shim.address),
        ("NAMESPACE", NAMESPACE),
    ];
    command.envs(environment).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Command::from(command)
}

async fn read(source: Option<impl AsyncRead + Unpin>, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(source) = source {
        let _ = source.take(limit).read_to_end(&mut bytes).await;
    }
    bytes
}

/// Reads until the end of the stream, or until a little after `exit`.
async fn read_into<T>(
    source: Option<impl AsyncRead + Unpin>,
    limit: u64,
    bytes: &mut Vec<u8>,
    exit: impl Future<Output = T>,
) -> T {
    let Some(source) = source else { return exit.await };
    let mut source = source.take(limit);
    let mut exit = std::pin::pin!(exit);
    tokio::select! {
        status = &mut exit => {
            let _ = tokio::time::timeout(STDERR_GRACE, source.read_to_end(bytes)).await;
            status
        }
        _ = source.read_to_end(bytes) => exit.await,
    }
}

/// Ends a command that hangs, with whatever it has started and not yet sent off.
fn kill_group(group: Option<u32>) {
    let group = group.and_then(|group| i32::try_from(group).ok());
    if let Some(group) = group.and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

fn spawn_error(shim: &Shim<'_>, source: std::io::Error) -> Error {
    Error::Spawn { binary: shim.binary.to_owned(), source }
}
