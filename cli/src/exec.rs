//! `podwright exec`: runs a command in a container.

use std::io::Write;
use std::process::ExitCode;

use anyhow::bail;
use api::cri::v1::{ExecRequest, ExecSyncRequest};

use crate::daemon::Daemon;
use crate::find::Candidates;
use crate::session;

/// Run a command in a container, and exit as it does
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Pass stdin on
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Kill the command after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 0, hide_default_value = true)]
    timeout: u32,
    /// The container's id or name, or its pod's if the pod has only one
    container: String,
    /// What to run, and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub(crate) async fn run(args: Args, daemon: &mut Daemon) -> anyhow::Result<ExitCode> {
    let container = Candidates::load(daemon).await?.container(&args.container)?;
    if args.interactive || args.tty {
        if args.timeout > 0 {
            bail!("a command with -i or -t has no time limit: leave out --timeout");
        }
        let request = ExecRequest {
            container_id: container.id,
            cmd: args.command,
            tty: args.tty,
            stdin: args.interactive,
            stdout: true,
            stderr: !args.tty,
        };
        let url = daemon.runtime.exec(request).await?.into_inner().url;
        return session::run(&daemon.tls, &url, args.interactive, args.tty).await;
    }
    let request = ExecSyncRequest {
        container_id: container.id,
        cmd: args.command,
        timeout: i64::from(args.timeout),
    };
    let answer = daemon.runtime.exec_sync(request).await?.into_inner();
    std::io::stdout().write_all(&answer.stdout)?;
    std::io::stderr().write_all(&answer.stderr)?;
    Ok(exit_code(answer.exit_code))
}

/// A container's or command's exit code as our own. One that does not fit is a failure still.
pub(crate) fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
