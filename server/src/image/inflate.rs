//! The first half of a layer's way: the blob as it comes, hashed and inflated piece by piece.
//!
//! What inflating takes in memory is bounded whatever the blob says of itself: a zstd frame may ask for a window of
//! at most [`MAX_WINDOW_LOG`], and of those that ask for a large one only [`MAX_LARGE`] are inflated at a time.
//!
//! gzip is inflated by zlib-rs. For 524 MB of `./dev bench pull` it needs 1.18 s, ISA-L's igzip 0.90 s, and libdeflate,
//! which wants the whole file at once, 1.11 s: a tenth of a pull is not worth C and assembler that read what strangers
//! send.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::content::Draft;
use super::digest::{Algorithm, Digest, Hasher};
use super::error::Error;
use super::manifest::Descriptor;
use super::unpack::{Failure, wrong_diff};
use super::zstd_frame;

/// Size of an inflated piece.
const PIECE: usize = 256 << 10;
/// What is read on of a blob that turned out broken, to tell a wrong digest from a wrong archive.
const MAX_DRAIN: u64 = 16 << 20;
/// The largest window of a zstd frame, 128 MiB: what `zstd --ultra -22` and `--long` write, and zstd's own bound.
const MAX_WINDOW_LOG: u32 = 27;
/// What every decoder must take, and more than the usual levels write: no need to wait for such a window.
const SMALL_WINDOW: u64 = 8 << 20;
/// Layers with larger windows that are inflated at a time.
const MAX_LARGE: usize = 2;
/// How long a layer waits for its turn among those.
const LARGE_PATIENCE: Duration = Duration::from_secs(600);

/// The blob as it comes, hashed.
pub(super) struct Source {
    pieces: mpsc::Receiver<Bytes>,
    current: Bytes,
    hasher: Hasher,
    received: u64,
    descriptor: Descriptor,
    keep: Option<Draft>,
    failed: Option<Error>,
}

impl Source {
    pub(super) fn new(
        pieces: mpsc::Receiver<Bytes>,
        descriptor: Descriptor,
        keep: Option<Draft>,
    ) -> Self {
        let hasher = Hasher::new(descriptor.digest.algorithm());
        Self { pieces, current: Bytes::new(), hasher, received: 0, descriptor, keep, failed: None }
    }

    fn next(&mut self) -> Option<Bytes> {
        let bytes = self.pieces.blocking_recv()?;
        self.hasher.update(&bytes);
        self.received += bytes.len() as u64;
        if let Some(draft) = &mut self.keep
            && let Err(err) = draft.write(&bytes)
        {
            self.failed = Some(err);
            return None;
        }
        Some(bytes)
    }

    /// The next bytes, up to `count`; fewer at the end.
    fn peek(&mut self, count: usize) -> &[u8] {
        while self.current.len() < count {
            let Some(more) = self.next() else { break };
            self.current = match self.current.is_empty() {
                true => more,
                false => [self.current.as_ref(), &more].concat().into(),
            };
        }
        &self.current[..self.current.len().min(count)]
    }

    /// Whether the whole blob came and is the right one. When more than `bound` bytes are left to read for that,
    /// the answer stays open.
    fn verify(&mut self, bound: u64) -> Result<(), Failure> {
        if let Some(err) = self.failed.take() {
            return Err(Failure::Error(err));
        }
        if self.descriptor.size.saturating_sub(self.received) > bound {
            return Ok(());
        }
        while self.next().is_some() {}
        if self.received < self.descriptor.size {
            return Err(Failure::Stopped);
        }
        let got = self.hasher.clone().finish();
        if got == self.descriptor.digest {
            return Ok(());
        }
        let want = &self.descriptor.digest;
        Err(Error::content(format!("blob {want}: the registry sent {got} instead")).into())
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Source {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.current.is_empty() {
            self.current = self.next().unwrap_or_default();
        }
        Ok(&self.current)
    }

    fn consume(&mut self, count: usize) {
        let _ = self.current.split_to(count);
    }
}

/// Inflated pieces on their way to the snapshotter.
pub(super) struct Output {
    pieces: SyncSender<Vec<u8>>,
    fresh: Receiver<Vec<u8>>,
    total: u64,
    limit: u64,
    /// Where the snapshotter's own hash is of another kind than the config's.
    check: Option<(Hasher, Digest)>,
}

impl Output {
    pub(super) fn new(
        pieces: SyncSender<Vec<u8>>,
        fresh: Receiver<Vec<u8>>,
        diff_id: &Digest,
        limit: u64,
    ) -> Self {
        let other = diff_id.algorithm() != Algorithm::Sha256;
        let check = other.then(|| (Hasher::new(diff_id.algorithm()), diff_id.clone()));
        Self { pieces, fresh, total: 0, limit, check }
    }

    /// A buffer that the other thread is done with, or a new one; the channels bound how many there are.
    fn buffer(&mut self) -> Vec<u8> {
        let mut buffer = self.fresh.try_recv().unwrap_or_default();
        buffer.resize(PIECE, 0);
        buffer
    }
}

/// Inflates the blob to its end and verifies it; what is left is the kept blob, to be named.
pub(super) fn inflate(mut source: Source, mut output: Output) -> Result<Option<Draft>, Failure> {
    // The first bytes say how the layer is compressed.
    let pumped = match source.peek(4) {
        [0x1f, 0x8b, ..] => {
            let mut decoder = flate2::bufread::MultiGzDecoder::new(&mut source);
            pump(&mut decoder, &mut output)
        }
        head if zstd_frame::is_one(head) => pump_frames(&mut source, &mut output),
        _ => pump(&mut source, &mut output),
    };
    // A wrong digest explains whatever else went wrong.
    let verified = source.verify(if pumped.is_ok() { u64::MAX } else { MAX_DRAIN });
    match (pumped, verified) {
        (_, Err(Failure::Error(err))) => Err(err.into()),
        (Err(Pump::TooLarge), _) => Err(Error::content(format!(
            "layer {}: it inflates to more than {} bytes, which its {} compressed bytes do not justify",
            source.descriptor.digest, output.limit, source.descriptor.size
        ))
        .into()),
        (Err(Pump::Corrupt(err)), Ok(())) => Err(Error::content(format!(
            "layer {}: corrupt: {err}",
            source.descriptor.digest
        ))
        .into()),
        (Err(Pump::Crowded), _) => Err(Error::Unavailable(format!(
            "layer {}: others keep the memory that zstd's large windows may take",
            source.descriptor.digest
        ))
        .into()),
        (Err(Pump::Stopped), _) | (_, Err(Failure::Stopped)) => Err(Failure::Stopped),
        (Ok(()), Ok(())) => {
            if let Some((hasher, want)) = output.check.take() {
                let got = hasher.finish();
                if got != want {
                    return Err(wrong_diff(&source.descriptor, &want, got.as_str()).into());
                }
            }
            // An empty piece is the end; without it the stream counts as broken off.
            output.pieces.send(Vec::new()).map_err(|_| Failure::Stopped)?;
            Ok(source.keep.take())
        }
    }
}

enum Pump {
    Stopped,
    Crowded,
    TooLarge,
    Corrupt(io::Error),
}

/// Frame by frame, since each has a window of its own.
fn pump_frames(source: &mut Source, output: &mut Output) -> Result<(), Pump> {
    let mut turn = None;
    loop {
        let head = source.peek(zstd_frame::MAX_HEADER);
        if head.is_empty() {
            return Ok(());
        }
        let large = zstd_frame::window(head).is_some_and(|window| window > SMALL_WINDOW);
        if large && turn.is_none() {
            turn = Some(Turn::wait().ok_or(Pump::Crowded)?);
        }
        // Should zstd read the header otherwise, it is still held to what was granted.
        let most = if turn.is_some() { MAX_WINDOW_LOG } else { SMALL_WINDOW.ilog2() };
        let mut decoder = zstd::stream::read::Decoder::with_buffer(&mut *source)
            .map_err(Pump::Corrupt)?
            .single_frame();
        decoder.window_log_max(most).map_err(Pump::Corrupt)?;
        pump(&mut decoder, output)?;
    }
}

/// A turn among those with a large window.
struct Turn;

static LARGE: Mutex<usize> = Mutex::new(0);
static LARGE_ENDED: Condvar = Condvar::new();

impl Turn {
    /// `None` if the others take too long.
    fn wait() -> Option<Self> {
        let taken = LARGE.lock().unwrap_or_else(PoisonError::into_inner);
        let waited =
            LARGE_ENDED.wait_timeout_while(taken, LARGE_PATIENCE, |taken| *taken >= MAX_LARGE);
        let (mut taken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            return None;
        }
        *taken += 1;
        Some(Self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *LARGE.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        LARGE_ENDED.notify_one();
    }
}

fn pump(decoder: &mut impl Read, output: &mut Output) -> Result<(), Pump> {
    loop {
        let mut buffer = output.buffer();
        let mut filled = 0;
        while filled < PIECE {
            match decoder.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(Pump::Corrupt(err)),
            }
        }
        if filled == 0 {
            return Ok(());
        }
        buffer.truncate(filled);
        output.total += filled as u64;
        if output.total > output.limit {
            return Err(Pump::TooLarge);
        }
        if let Some((hasher, _)) = &mut output.check {
            hasher.update(&buffer);
        }
        output.pieces.send(buffer).map_err(|_| Pump::Stopped)?;
        if filled < PIECE {
            return Ok(());
        }
    }
}
