//! `podwright logs`: what a container wrote.
//!
//! The daemon is asked where the log file is and whether the container still runs; the file is
//! read directly, as the kubelet does.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use api::cri::v1::ContainerState;
use tonic::Code;

use crate::daemon::Daemon;
use crate::failure::has_code;
use crate::find::Candidates;
use crate::log_file::{Printer, Reader};

/// How often a followed file is looked at.
const POLL: Duration = Duration::from_millis(100);

/// Show what a container wrote
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Its id or name, or its pod's if the pod has only one
    container: String,
    #[command(flatten)]
    how: How,
}

/// How much of a log, and in what form.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct How {
    /// Go on until the container ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only the last lines
    #[arg(short = 'n', long, value_name = "LINES")]
    pub(crate) tail: Option<usize>,
    /// Put the time before each line
    #[arg(short, long)]
    pub(crate) timestamps: bool,
}

pub(crate) async fn run(args: Args, daemon: &mut Daemon) -> anyhow::Result<ExitCode> {
    let container = Candidates::load(daemon).await?.container(&args.container)?;
    show(&container.id, &args.how, daemon).await?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a container's log.
pub(crate) async fn show(id: &str, how: &How, daemon: &mut Daemon) -> anyhow::Result<()> {
    let path = daemon.container_status(id).await?.log_path;
    if path.is_empty() {
        bail!("the container keeps no log");
    }
    let path = Path::new(&path);
    let Some(mut reader) = open(path, id, how.follow, daemon).await? else { return Ok(()) };
    if let Some(count) = how.tail {
        reader.seek_tail(count)?;
    }
    let stdout = io::BufWriter::new(io::stdout().lock());
    let stderr = io::BufWriter::new(io::stderr().lock());
    let mut printer = Printer::new(stdout, stderr, how.timestamps);
    print(&mut reader, &mut printer, id, how.follow, daemon).await?;
    Ok(reader.finish(&mut printer)?)
}

/// Opens the log, which is made when the container starts.
async fn open(
    path: &Path,
    id: &str,
    wait: bool,
    daemon: &mut Daemon,
) -> anyhow::Result<Option<Reader>> {
    loop {
        match Reader::open(path) {
            Ok(reader) => return Ok(Some(reader)),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("opening {}", path.display()));
            }
            Err(_) if !wait || !goes_on(id, daemon).await? => return Ok(None),
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

async fn print<O: Write, E: Write>(
    reader: &mut Reader,
    printer: &mut Printer<O, E>,
    id: &str,
    follow: bool,
    daemon: &mut Daemon,
) -> anyhow::Result<()> {
    let mut ended = !follow;
    loop {
        if reader.follow(printer)? {
            continue;
        }
        if ended {
            return Ok(());
        }
        // Asked before the last look at the file, so that nothing written in between is missed.
        ended = !goes_on(id, daemon).await?;
        tokio::time::sleep(POLL).await;
    }
}

/// Whether the container may still write.
async fn goes_on(id: &str, daemon: &mut Daemon) -> anyhow::Result<bool> {
    match daemon.container_status(id).await {
        Ok(status) => Ok(matches!(
            status.state(),
            ContainerState::ContainerCreated | ContainerState::ContainerRunning
        )),
        Err(error) if has_code(&error, Code::NotFound) => Ok(false),
        // A daemon that restarts does not stop its containers.
        Err(error) if has_code(&error, Code::Unavailable) => Ok(true),
        Err(error) => Err(error),
    }
}
