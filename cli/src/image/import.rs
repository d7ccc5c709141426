//! `podwright image import`.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use api::node::v1::ImportImagesRequest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::directory;
use crate::daemon::Daemon;

/// What is sent at once.
const PIECE: usize = 512 << 10;
/// Pieces that wait to be sent.
const DEPTH: usize = 4;

/// Import the images of an archive
///
/// The archive is what `docker save` writes or an OCI image layout: a tar file, compressed with
/// gzip or zstd or not, or a directory. Its images get the digests that a pull would give them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The archive; `-` is standard input
    #[arg(value_name = "FILE|DIR")]
    archive: PathBuf,
    /// A name for the image, instead of the archive's own; for archives of one image
    #[arg(long)]
    name: Vec<String>,
}

pub(crate) async fn run(args: Args, daemon: &mut Daemon) -> anyhow::Result<ExitCode> {
    let (sender, messages) = mpsc::channel(DEPTH);
    let first = ImportImagesRequest { names: args.name, data: Vec::new() };
    sender.send(first).await.ok();
    let archive = args.archive.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let mut pieces = Pieces { sender, filled: Vec::with_capacity(PIECE) };
        read(&archive, &mut pieces)?;
        pieces.flush()
    });
    let answer = daemon.node.import_images(ReceiverStream::new(messages)).await;
    // A file that cannot be read explains the daemon's refusal of half an archive; where the daemon
    // refused first, reading only found that nobody takes more.
    match reading.await? {
        Err(err) if err.kind() != std::io::ErrorKind::BrokenPipe => {
            return Err(err).with_context(|| format!("reading {}", args.archive.display()));
        }
        _ => {}
    }
    let mut out = std::io::stdout();
    for image in answer?.into_inner().images {
        writeln!(out, "{}  {}  {}", image.name, image.id, image.digest)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn read(archive: &Path, to: &mut Pieces) -> std::io::Result<()> {
    if archive == Path::new("-") {
        return copy(std::io::stdin().lock(), to);
    }
    if archive.is_dir() {
        return directory::tar(archive, to);
    }
    copy(File::open(archive)?, to)
}

fn copy(mut from: impl Read, to: &mut Pieces) -> std::io::Result<()> {
    std::io::copy(&mut from, to).map(drop)
}

/// Writes become messages.
struct Pieces {
    sender: mpsc::Sender<ImportImagesRequest>,
    filled: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = bytes.len().min(PIECE - self.filled.len());
        self.filled.extend_from_slice(&bytes[..count]);
        if self.filled.len() == PIECE {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.filled.is_empty() {
            return Ok(());
        }
        let data = std::mem::replace(&mut self.filled, Vec::with_capacity(PIECE));
        let message = ImportImagesRequest { names: Vec::new(), data };
        let gone = |_| std::io::ErrorKind::BrokenPipe.into();
        self.sender.blocking_send(message).map_err(gone)
    }
}
