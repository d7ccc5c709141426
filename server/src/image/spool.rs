//! An archive on its way in: from a client's stream to a nameless file, inflated if it is compressed as a whole.
//!
//! An archive's list of images may come last, so all of it has to be here before anything of it is used. The file
//! has no name: whatever becomes of the daemon, nothing is left of it.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::content::Content;
use super::error::Error;
use super::unpack::max_inflated;

/// Pieces of an archive that wait to be written.
const DEPTH: usize = 8;
/// Largest archive.
const MAX_ARCHIVE: u64 = 1 << 40;
const PIECE: usize = 256 << 10;

/// The receiving end of an archive's bytes.
#[derive(Debug)]
pub(crate) struct Incoming {
    pieces: mpsc::Receiver<Bytes>,
    current: Bytes,
    ended: bool,
}

/// A stream of bytes, whose sender ends it with an empty piece: one that just breaks off is an error.
pub(crate) fn incoming() -> (mpsc::Sender<Bytes>, Incoming) {
    let (sender, pieces) = mpsc::channel(DEPTH);
    (sender, Incoming { pieces, current: Bytes::new(), ended: false })
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.current.is_empty() && !self.ended {
            let broken = || io::Error::new(io::ErrorKind::UnexpectedEof, "the client broke off");
            self.current = self.pieces.blocking_recv().ok_or_else(broken)?;
            self.ended = self.current.is_empty();
        }
        let count = self.current.as_ref().read(buffer)?;
        let _ = self.current.split_to(count);
        Ok(count)
    }
}

/// Counts what is read.
struct Counted<R>(R, Arc<AtomicU64>);

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Whether a file that begins so is compressed.
pub(super) fn is_compressed(magic: [u8; 4]) -> bool {
    matches!(magic, [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd])
}

/// Writes all of an archive to a file. Blocks.
pub(super) fn spool(
    mut source: impl Read,
    content: &Content,
    always_allowed: u64,
) -> Result<File, Error> {
    let (mut head, mut have) = ([0; 4], 0);
    while have < head.len() {
        match source.read(&mut head[have..]).map_err(received)? {
            0 => break,
            count => have += count,
        }
    }
    let came = Arc::new(AtomicU64::new(0));
    let whole = Counted(Cursor::new(head[..have].to_vec()).chain(source), came.clone());
    let whole = BufReader::with_capacity(PIECE, whole);
    let mut target = content.spool()?;
    let justified = |total| {
        let allowed = max_inflated(came.load(Ordering::Relaxed), always_allowed);
        total <= allowed.min(MAX_ARCHIVE)
    };
    match head {
        [0x1f, 0x8b, ..] => {
            copy(&mut flate2::bufread::MultiGzDecoder::new(whole), &mut target, justified)?;
        }
        magic if is_compressed(magic) => {
            let decoder = zstd::stream::read::Decoder::with_buffer(whole);
            copy(&mut decoder.map_err(received)?, &mut target, justified)?;
        }
        _ => {
            let mut whole = whole;
            copy(&mut whole, &mut target, |total| total <= MAX_ARCHIVE)?;
        }
    }
    Ok(target)
}

fn copy(
    reader: &mut impl Read,
    target: &mut File,
    fits: impl Fn(u64) -> bool,
) -> Result<(), Error> {
    let mut buffer = vec![0; PIECE];
    let mut total = 0;
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(received)?,
        };
        total += count as u64;
        if !fits(total) {
            return Err(Error::content(format!(
                "the archive is refused: it has more than {total} bytes, which its size when it came does not justify"
            )));
        }
        target
            .write_all(&buffer[..count])
            .map_err(Error::io("write", Path::new("the archive's copy")))?;
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the form that map_err takes")]
fn received(err: io::Error) -> Error {
    Error::content(format!("the archive is refused: {err}"))
}
