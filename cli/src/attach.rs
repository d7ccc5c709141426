//! `podwright attach`: the streams of a container's own process.

use std::process::ExitCode;

use api::cri::v1::AttachRequest;

use crate::daemon::Daemon;
use crate::find::Candidates;
use crate::session;

/// Show what a running container prints from now on, and type into it
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Pass stdin on
    #[arg(short, long)]
    interactive: bool,
    /// The container has a terminal
    #[arg(short, long)]
    tty: bool,
    /// The container's id or name, or its pod's if the pod has only one
    container: String,
}

pub(crate) async fn run(args: Args, daemon: &mut Daemon) -> anyhow::Result<ExitCode> {
    let container = Candidates::load(daemon).await?.container(&args.container)?;
    let request = AttachRequest {
        container_id: container.id,
        stdin: args.interactive,
        tty: args.tty,
        stdout: true,
        stderr: !args.tty,
    };
    let url = daemon.runtime.attach(request).await?.into_inner().url;
    session::run(&daemon.tls, &url, args.interactive, args.tty).await
}
