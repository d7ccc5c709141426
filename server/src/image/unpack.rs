//! From a blob on the wire to a layer on the disk, in one go.
//!
//! Two threads a layer: one hashes the blob and inflates it, the other (in the snapshotter) hashes and unpacks
//! the tar stream. Bounded channels between network, first and second thread keep memory small whatever the
//! layer's size. Nothing is named before both digests are right; all that was written otherwise is dropped.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use snapshotter::{LayerId, Limits, Snapshotter};
use tokio::sync::mpsc;

use super::content::Draft;
use super::digest::{Algorithm, Digest, Hasher};
use super::error::Error;
use super::gc::Layers;
use super::manifest::Descriptor;
use super::source::Flow;
use crate::failpoint;
use crate::operation::Part;

/// Pieces of the blob that wait for the inflating thread; each at most some hundred KiB.
const NETWORK_DEPTH: usize = 8;
/// Inflated pieces under way between the threads.
const INFLATED_DEPTH: usize = 4;
/// Size of an inflated piece.
const PIECE: usize = 256 << 10;
/// A layer may inflate to this much whatever its blob's size (a file of zeros is legitimate) …
pub(super) const ALWAYS_ALLOWED: u64 = 1 << 30;
/// … and to that many times its blob's size: real layers stay under 20 …
const MAX_RATIO: u64 = 100;
/// … but never beyond this.
const MAX_INFLATED: u64 = 1 << 40;
/// What is read on of a blob that turned out broken, to tell a wrong digest from a wrong archive.
const MAX_DRAIN: u64 = 16 << 20;

/// How many bytes a blob of `size` may inflate to; more is taken for a bomb.
pub(super) fn max_inflated(size: u64, always_allowed: u64) -> u64 {
    size.saturating_mul(MAX_RATIO).clamp(always_allowed, MAX_INFLATED)
}

/// What one of the parts says; `Stopped`: another part failed and knows better.
enum Failure {
    Stopped,
    Error(Error),
}

impl From<Error> for Failure {
    fn from(err: Error) -> Self {
        Self::Error(err)
    }
}

/// What is done about a layer that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It is as good as the new one.
    Free,
    /// It makes way.
    Replacing,
}

/// What is to become of a blob.
#[derive(Debug)]
pub(super) struct Goal {
    pub(super) descriptor: Descriptor,
    /// Digest that the uncompressed stream must have.
    pub(super) diff_id: Digest,
    /// The layer that it becomes.
    pub(super) layer: LayerId,
    /// Where the blob itself is kept, too.
    pub(super) keep: Option<Draft>,
    pub(super) place: Place,
    /// [`ALWAYS_ALLOWED`], or less in a test.
    pub(super) always_allowed: u64,
}

/// Downloads, verifies, unpacks and commits one layer; what is left is the kept blob, to be named.
pub(super) async fn unpack(
    mut blob: Flow,
    goal: Goal,
    layers: Arc<Layers>,
    part: Arc<Part>,
) -> Result<Option<Draft>, Error> {
    let Goal { descriptor, diff_id, layer, keep, place, always_allowed } = goal;
    part.begin();
    let limit = max_inflated(descriptor.size, always_allowed);
    let (network, pieces) = mpsc::channel(NETWORK_DEPTH);
    let (inflated, stream) = sync_channel(INFLATED_DEPTH);
    let (spent, fresh) = sync_channel(INFLATED_DEPTH + 2);
    let source = Source::new(pieces, descriptor.clone(), keep);
    let output = Output::new(inflated, fresh, &diff_id, limit);
    let unpacking = part.clone();
    let stream =
        Stream { pieces: stream, spent, part: unpacking, current: Vec::new(), at: 0, ended: false };
    let inflating = tokio::task::spawn_blocking(move || inflate(source, output));
    let of = descriptor.clone();
    let extracting = tokio::task::spawn_blocking(move || {
        let limits = Limits { max_bytes: limit, ..Limits::default() };
        let extracted =
            extract(&layers.snapshotter(), stream, limits, &of, &diff_id, (&layer, place));
        // Said here, since nobody may be waiting any more: what had been unpacked was renamed away just now.
        extracted.inspect_err(|_| layers.empty_trash_soon())
    });
    let downloaded = download(&mut blob, &network, &part).await;
    drop(network);
    let lost = |err: tokio::task::JoinError| Error::Internal(format!("unpack: {err}"));
    let inflated = inflating.await.map_err(lost)?;
    let extracted = extracting.await.map_err(lost)?;
    // The earliest part that failed by itself knows why.
    match (downloaded, inflated, extracted) {
        (Err(Failure::Error(err)), _, _) | (_, Err(Failure::Error(err)), _) | (_, _, Err(err)) => {
            Err(err)
        }
        (Ok(()), Ok(kept), Ok(())) => Ok(kept),
        _ => Err(Error::Internal(format!("layer {}: it ended early", descriptor.digest))),
    }
}

/// Unpacks the stream and gives the layer its name. The stream ends only once the blob has been verified; one
/// that breaks off is an error.
fn extract(
    snapshotter: &Snapshotter,
    stream: Stream,
    limits: Limits,
    descriptor: &Descriptor,
    diff_id: &Digest,
    (layer, place): (&LayerId, Place),
) -> Result<(), Error> {
    let failed =
        |err: snapshotter::Error| Error::Snapshot(format!("layer {}: {err}", descriptor.digest));
    let mut ingest = failpoint::step("pull/ingest", || snapshotter.ingest(limits).map_err(failed))?;
    let extracted = failpoint::step("pull/extract", || ingest.extract(stream).map_err(failed))?;
    // Another kind of digest has been compared while inflating.
    if diff_id.algorithm() == Algorithm::Sha256 && extracted.diff_id.as_str() != diff_id.as_str() {
        return Err(wrong_diff(descriptor, diff_id, extracted.diff_id.as_str()));
    }
    failpoint::step("pull/commit", || {
        let committed = match place {
            Place::Free => ingest.commit(layer),
            Place::Replacing => ingest.replace(layer),
        };
        committed.map_err(failed)
    })
}

fn wrong_diff(descriptor: &Descriptor, want: &Digest, got: &str) -> Error {
    Error::content(format!(
        "layer {}: its content has the digest {got}, the image config says {want}",
        descriptor.digest
    ))
}

async fn download(
    blob: &mut Flow,
    network: &mpsc::Sender<Bytes>,
    part: &Part,
) -> Result<(), Failure> {
    while let Some(bytes) = blob.chunk().await? {
        let count = bytes.len() as u64;
        network.send(bytes).await.map_err(|_| Failure::Stopped)?;
        part.add_fetched(count);
    }
    Ok(())
}

/// The blob as it comes, hashed.
struct Source {
    pieces: mpsc::Receiver<Bytes>,
    current: Bytes,
    hasher: Hasher,
    received: u64,
    descriptor: Descriptor,
    keep: Option<Draft>,
    failed: Option<Error>,
}

impl Source {
    fn new(pieces: mpsc::Receiver<Bytes>, descriptor: Descriptor, keep: Option<Draft>) -> Self {
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

    /// The first bytes, which say how the layer is compressed.
    fn magic(&mut self) -> [u8; 4] {
        while self.current.len() < 4 {
            let Some(more) = self.next() else { break };
            self.current = [self.current.as_ref(), &more].concat().into();
        }
        let mut magic = [0; 4];
        let count = self.current.len().min(4);
        magic[..count].copy_from_slice(&self.current[..count]);
        magic
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
struct Output {
    pieces: SyncSender<Vec<u8>>,
    fresh: Receiver<Vec<u8>>,
    total: u64,
    limit: u64,
    /// Where the snapshotter's own hash is of another kind than the config's.
    check: Option<(Hasher, Digest)>,
}

impl Output {
    fn new(
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

fn inflate(mut source: Source, mut output: Output) -> Result<Option<Draft>, Failure> {
    let magic = source.magic();
    let pumped = match magic {
        [0x1f, 0x8b, ..] => {
            let mut decoder = flate2::bufread::MultiGzDecoder::new(&mut source);
            pump(&mut decoder, &mut output)
        }
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => {
            match zstd::stream::read::Decoder::with_buffer(&mut source) {
                Ok(mut decoder) => pump(&mut decoder, &mut output),
                Err(err) => Err(Pump::Corrupt(err)),
            }
        }
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
    TooLarge,
    Corrupt(io::Error),
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

/// The inflated stream as the snapshotter reads it.
struct Stream {
    pieces: Receiver<Vec<u8>>,
    spent: SyncSender<Vec<u8>>,
    part: Arc<Part>,
    current: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.current.len() {
            if self.ended {
                return Ok(0);
            }
            let stopped = |_| io::Error::new(io::ErrorKind::UnexpectedEof, "the layer ended early");
            let next = self.pieces.recv().map_err(stopped)?;
            let spent = std::mem::replace(&mut self.current, next);
            self.at = 0;
            self.part.add_unpacked(self.current.len() as u64);
            // Full: there are buffers enough.
            self.spent.try_send(spent).ok();
            if self.current.is_empty() {
                self.ended = true;
                return Ok(0);
            }
        }
        let count = (&self.current[self.at..]).read(buffer)?;
        self.at += count;
        Ok(count)
    }
}
