//! From a blob on the wire to a layer on the disk, in one go.
//!
//! Two threads a layer: one hashes the blob and inflates it, the other (in the snapshotter) hashes and unpacks
//! the tar stream. Bounded channels between network, first and second thread keep memory small whatever the
//! layer's size. Nothing is named before both digests are right; all that was written otherwise is dropped.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use snapshotter::{LayerId, Limits, Snapshotter};
use tokio::sync::mpsc;

use super::content::Draft;
use super::digest::{Algorithm, Digest};
use super::error::Error;
use super::gc::Layers;
use super::inflate::{Output, Source, inflate};
use super::labour::Work;
use super::manifest::Descriptor;
use super::source::Flow;
use crate::failpoint;
use crate::metric;
use crate::operation::Part;

/// Pieces of the blob that wait for the inflating thread; each at most some hundred KiB.
const NETWORK_DEPTH: usize = 8;
/// Inflated pieces under way between the threads.
const INFLATED_DEPTH: usize = 4;
/// A layer may inflate to this much whatever its blob's size (a file of zeros is legitimate) …
pub(super) const ALWAYS_ALLOWED: u64 = 1 << 30;
/// … and to that many times its blob's size: real layers stay under 20 …
const MAX_RATIO: u64 = 100;
/// … but never beyond this.
const MAX_INFLATED: u64 = 1 << 40;

/// How many bytes a blob of `size` may inflate to; more is taken for a bomb.
pub(super) fn max_inflated(size: u64, always_allowed: u64) -> u64 {
    size.saturating_mul(MAX_RATIO).clamp(always_allowed, MAX_INFLATED)
}

/// What one of the parts says; `Stopped`: another part failed and knows better.
pub(super) enum Failure {
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
    let inflating = Work::begin(move || inflate(source, output))?;
    let of = descriptor.clone();
    let extracting = Work::begin(move || {
        let limits = Limits { max_bytes: limit, ..Limits::default() };
        let extracted =
            extract(&layers.snapshotter(), stream, limits, &of, &diff_id, (&layer, place));
        // Said here, since nobody may be waiting any more: what had been unpacked was renamed away just now.
        extracted.inspect_err(|_| layers.empty_trash_soon())
    })?;
    let downloaded = download(&mut blob, &network, &part).await;
    drop(network);
    let inflated = inflating.end().await?;
    let extracted = extracting.end().await?;
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

pub(super) fn wrong_diff(descriptor: &Descriptor, want: &Digest, got: &str) -> Error {
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
        metric::PULL_BYTES.of([]).add(count);
    }
    Ok(())
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
            metric::UNPACKED_BYTES.of([]).add(self.current.len() as u64);
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
