//! Attach: the streams of a container's own process, served by its shim.
//!
//! The shim copies output into FIFOs of ours while it writes the log, and never waits for us: what does not fit a FIFO
//! ends the view. There is no history.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::unix::pipe;

use super::Container;
use super::exec::{Streams, fifo, must_run, sender};
use super::shim::Shim;
use crate::error::{Error, Result};
use crate::failpoint;
use crate::telemetry::blocking;

/// Where a bundle keeps the FIFOs of its viewers, one directory for each.
const DIR: &str = "attach";
/// What a FIFO holds: how far a viewer may fall behind.
const FIFO_SIZE: usize = 1 << 20;
/// How long after the loss of a shim an exit may come to be known.
const SETTLES: Duration = Duration::from_secs(5);

/// Someone who looks on. Whoever has it calls `forget` in the end.
#[derive(Debug)]
pub(crate) struct View {
    container: Arc<Container>,
    shim: Arc<Shim>,
    dir: PathBuf,
    fifos: Fifos,
    /// By its closing the shim learns that we have gone.
    _leash: pipe::Receiver,
    /// Keeps what was typed before the shim has opened its end.
    _typed: Option<pipe::Receiver>,
}

#[derive(Debug)]
struct Fifos {
    leash: PathBuf,
    stdin: Option<PathBuf>,
    stdout: Option<PathBuf>,
    stderr: Option<PathBuf>,
}

/// Prepares our ends: of standard input, where it is wanted and the container has one, of standard output, and of
/// standard error where it is wanted and not the terminal's.
///
/// # Errors
/// `WrongState` unless the container runs.
pub(crate) async fn begin(
    container: &Arc<Container>,
    shim: &Arc<Shim>,
    [stdin, stdout, stderr]: [bool; 3],
) -> Result<(View, Streams)> {
    must_run(container)?;
    let config = &container.fixed.config;
    let wanted = [stdin && config.stdin, stdout, stderr && !config.tty];
    let dir = container.fixed.bundle.join(DIR).join(crate::id::ContainerId::random().short());
    let made = {
        let dir = dir.clone();
        blocking(move || make(&dir, wanted))
    };
    let fifos = made.await?;
    // Open before the shim opens its ends.
    let streams = Streams {
        stdin: None,
        stdout: fifos.stdout.as_deref().map(both_ends).transpose()?,
        stderr: fifos.stderr.as_deref().map(both_ends).transpose()?,
    };
    let leash = reading(&fifos.leash)?;
    let typed = fifos.stdin.as_deref().map(reading).transpose()?;
    let streams = Streams { stdin: fifos.stdin.as_deref().and_then(sender), ..streams };
    let (container, shim) = (container.clone(), shim.clone());
    Ok((View { container, shim, dir, fifos, _leash: leash, _typed: typed }, streams))
}

fn make(dir: &Path, [stdin, stdout, stderr]: [bool; 3]) -> Result<Fifos> {
    failpoint::step("attach/directory", || {
        std::fs::create_dir_all(dir).map_err(Error::io("create", dir))
    })?;
    let wanted = |wanted: bool, name| wanted.then(|| fifo(dir.join(name))).transpose();
    Ok(Fifos {
        leash: fifo(dir.join("leash"))?,
        stdin: wanted(stdin, "stdin")?,
        stdout: wanted(stdout, "stdout")?,
        stderr: wanted(stderr, "stderr")?,
    })
}

fn reading(path: &Path) -> Result<pipe::Receiver> {
    pipe::OpenOptions::new().open_receiver(path).map_err(Error::io("open", path))
}

/// For reading, without an end while nobody writes yet.
fn both_ends(path: &Path) -> Result<pipe::Receiver> {
    let opened = pipe::OpenOptions::new().read_write(true).open_receiver(path);
    let opened = opened.map_err(Error::io("open", path))?;
    // A refusal (quota) costs patience with viewers.
    rustix::pipe::fcntl_setpipe_size(&opened, FIFO_SIZE).ok();
    Ok(opened)
}

impl View {
    /// Lets the shim begin, and returns when the container has exited.
    ///
    /// # Errors
    /// When it ends before that: the viewer was too slow, or the shim is gone. When it had exited before the shim
    /// began: who has seen nothing shall look into the log.
    pub(crate) async fn ended(&self) -> Result<()> {
        let Fifos { leash, stdin, stdout, stderr } = &self.fifos;
        let fifos = [Some(&**leash), stdin.as_deref(), stdout.as_deref(), stderr.as_deref()];
        match self.shim.view(&self.container, fifos).await {
            Ok(true) => Err(Error::Exhausted("output was printed faster than it was read".into())),
            Ok(false) => Ok(()),
            // The exit may have let go of the shim before the shim could say so here.
            Err(err @ Error::Unavailable(_)) => {
                let exited = tokio::time::timeout(SETTLES, self.container.not_running());
                exited.await.map_err(|_| err)
            }
            Err(err) => Err(err),
        }
    }

    /// Tells the container's terminal its size.
    pub(crate) async fn resize(&self, size: (u32, u32)) {
        self.shim.resize(&self.container, "", size).await;
    }

    /// Lets go of what was its own.
    pub(crate) async fn forget(self) {
        let Self { dir, .. } = self;
        let remove = move || failpoint::sure("attach/remove", || std::fs::remove_dir_all(dir));
        tokio::task::spawn_blocking(remove).await.ok();
    }
}
