//! A blob under way: bytes in order, never more than the manifest promised.
//!
//! One connection fetches the whole blob. A broken or starving one is taken up where it ended, at the next mirror
//! if there is one. Where the reader waits for the network most of the time, segments further on are fetched beside
//! it and wait in memory for their turn; how many is bounded for each blob and for all. Nothing here is spawned:
//! all of it goes on while the reader asks for more, and ends when it is dropped.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Duration, Instant};

use super::super::error::Error;
use super::super::manifest::Descriptor;
use super::answer::{Body, Broken, Pace};
use super::session::Session;

/// A connection that brought so much before it broke does not count as a failure in a row.
const GOOD_STRETCH: u64 = 1 << 20;

/// The body of a blob.
#[derive(Debug)]
pub(crate) struct Blob {
    /// What comes next.
    front: Stretch,
    /// What comes after that, in order.
    ahead: FuturesOrdered<BoxFuture<'static, Result<Segment, Error>>>,
    done: VecDeque<Segment>,
    /// Where the next segment begins.
    next: u64,
    watch: Watch,
}

/// A part that is here, with its share of the memory for such.
#[derive(Debug)]
struct Segment {
    pieces: VecDeque<Bytes>,
    _memory: OwnedSemaphorePermit,
}

/// Whether the reader waits for the network.
#[derive(Debug)]
enum Watch {
    /// Since when, and how much of it was waiting.
    Looking { since: Option<Instant>, waited: Duration },
    /// It does: so many segments are fetched beside the front.
    Wide(usize),
    /// Parts cannot be had, or are not worth it.
    Narrow,
}

impl Blob {
    pub(super) async fn open(session: Arc<Session>, descriptor: Descriptor) -> Result<Self, Error> {
        let size = descriptor.size;
        let mut front = Stretch::new(session, Arc::new(descriptor), 0, size);
        front.connect().await?;
        let large = size >= 2 * front.session.limits.segment;
        let looking = Watch::Looking { since: None, waited: Duration::ZERO };
        Ok(Self {
            front,
            ahead: FuturesOrdered::new(),
            done: VecDeque::new(),
            next: size,
            watch: if large { looking } else { Watch::Narrow },
        })
    }

    /// The next bytes; `None` once all that the manifest promised have come.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            self.collect().await;
            if self.front.at < self.front.end {
                let started = Instant::now();
                // A request without an answer yet must not be given up over and over.
                let connected = self.front.body.is_some();
                let looking = connected && matches!(self.watch, Watch::Looking { .. });
                let watched = self.front.session.limits.watched;
                let came = tokio::select! {
                    biased;
                    came = self.front.chunk() => came?,
                    Some(segment) = self.ahead.next(), if !self.ahead.is_empty() => {
                        self.keep(segment);
                        continue;
                    }
                    () = tokio::time::sleep(watched), if looking => {
                        self.look(started.elapsed());
                        continue;
                    }
                };
                self.look(started.elapsed());
                if let Some(bytes) = came {
                    return Ok(Some(bytes));
                }
                continue;
            }
            if let Some(segment) = self.done.front_mut() {
                if let Some(bytes) = segment.pieces.pop_front() {
                    self.front.passed(bytes.len() as u64);
                    return Ok(Some(bytes));
                }
                self.done.pop_front();
                self.widen();
                continue;
            }
            if let Some(segment) = self.ahead.next().await {
                self.keep(segment);
                continue;
            }
            let size = self.front.descriptor.size;
            if self.front.at >= size {
                return Ok(None);
            }
            // The segments ended early: the rest comes as it began.
            self.front.extend(size);
            if let Watch::Wide(_) = self.watch {
                self.watch = Watch::Looking { since: None, waited: Duration::ZERO };
            }
        }
    }

    /// Lets the segments go on while the reader is busy.
    async fn collect(&mut self) {
        while let std::task::Poll::Ready(Some(segment)) = futures_util::poll!(self.ahead.next()) {
            self.keep(segment);
        }
    }

    fn keep(&mut self, segment: Result<Segment, Error>) {
        match segment {
            Ok(segment) => self.done.push_back(segment),
            Err(err) => {
                let blob = &self.front.descriptor.digest;
                tracing::debug!(%blob, %err, "goes on with one connection");
                self.ahead = FuturesOrdered::new();
                self.watch = Watch::Narrow;
                if self.done.is_empty() && self.front.at < self.front.end {
                    self.front.end = self.front.descriptor.size;
                }
            }
        }
    }

    /// Decides, once the only connection has been watched long enough, whether more are worth it.
    fn look(&mut self, waited: Duration) {
        let limits = &self.front.session.limits;
        let Watch::Looking { since, waited: sum } = &mut self.watch else { return };
        let since = *since.get_or_insert_with(|| Instant::now() - waited);
        *sum += waited;
        let age = since.elapsed();
        if age < limits.watched {
            return;
        }
        let left = self.front.descriptor.size - self.front.at;
        if left < 2 * limits.segment {
            self.watch = Watch::Narrow;
        } else if *sum * 2 < age {
            // The reader is the slower one. It may be otherwise later.
            self.watch = Watch::Looking { since: None, waited: Duration::ZERO };
        } else {
            self.next = self.front.at + limits.segment;
            self.front.end = self.next;
            self.watch = Watch::Wide(1);
            self.widen();
        }
    }

    /// Begins further segments. Whenever one was waited for, there may be one more beside it.
    fn widen(&mut self) {
        let Watch::Wide(width) = &mut self.watch else { return };
        let session = &self.front.session;
        if self.done.is_empty() {
            *width = (*width + 1).min(session.limits.ahead);
        }
        let size = self.front.descriptor.size;
        while self.next < size && self.ahead.len() + self.done.len() < *width {
            let Ok(memory) = session.ahead.clone().try_acquire_owned() else { return };
            let end = (self.next + session.limits.segment).min(size);
            let descriptor = self.front.descriptor.clone();
            let stretch = Stretch::new(session.clone(), descriptor, self.next, end);
            self.ahead.push_back(stretch.whole(memory).boxed());
            self.next = end;
        }
    }
}

/// Bytes of a blob in a row, resumed after a broken connection.
#[derive(Debug)]
struct Stretch {
    session: Arc<Session>,
    descriptor: Arc<Descriptor>,
    at: u64,
    end: u64,
    body: Option<Body>,
    pace: Pace,
    /// Broken connections in a row, since `at` was `good`.
    setbacks: u32,
    good: u64,
}

impl Stretch {
    fn new(session: Arc<Session>, descriptor: Arc<Descriptor>, at: u64, end: u64) -> Self {
        let pace = Pace::default();
        Self { session, descriptor, at, end, body: None, pace, setbacks: 0, good: at }
    }

    /// The next bytes; `None` at the end. Nothing is lost when the caller stops waiting.
    async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if self.at == self.end {
                self.body = None;
                return Ok(None);
            }
            self.connect().await?;
            let Some(body) = &mut self.body else { continue };
            let broken = match self.pace.next(body, &self.session.limits).await {
                Ok(Some(bytes)) => match self.take(bytes)? {
                    Some(bytes) => return Ok(Some(bytes)),
                    None => continue,
                },
                Ok(None) => Broken::off("the connection ended early".to_owned()),
                Err(broken) => broken,
            };
            self.broken(&broken)?;
        }
    }

    async fn connect(&mut self) -> Result<(), Error> {
        if self.body.is_some() || self.at == self.end {
            return Ok(());
        }
        if self.setbacks > 1 {
            tokio::time::sleep(self.session.limits.pause(self.setbacks - 2)).await;
        }
        let body = self.session.stretch(&self.descriptor, self.at, self.end).await?;
        if self.setbacks > 0 {
            tracing::debug!(blob = %self.descriptor.digest, at = self.at, "download resumed");
        }
        self.pace = Pace::default();
        self.body = Some(body);
        Ok(())
    }

    fn take(&mut self, mut bytes: Bytes) -> Result<Option<Bytes>, Error> {
        let Some(body) = &mut self.body else { return Ok(None) };
        let again = body.skip.min(bytes.len() as u64);
        body.skip -= again;
        let mut bytes = bytes.split_off(usize::try_from(again).unwrap_or(bytes.len()));
        let left = self.end - self.at;
        if bytes.len() as u64 > left {
            if self.end == self.descriptor.size {
                return Err(Error::content(format!(
                    "blob {}: the registry sends more than the {} bytes that the manifest says",
                    self.descriptor.digest, self.descriptor.size
                )));
            }
            // The rest comes from others.
            bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        }
        self.at += bytes.len() as u64;
        Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    fn broken(&mut self, Broken { why, weight }: &Broken) -> Result<(), Error> {
        let Descriptor { digest, size, .. } = &*self.descriptor;
        if let Some(body) = self.body.take() {
            self.session.blame(body.endpoint);
        }
        if self.at - self.good >= GOOD_STRETCH {
            self.setbacks = 0;
        }
        self.good = self.at;
        self.setbacks += weight;
        if self.setbacks > self.session.limits.setbacks {
            return Err(Error::Unavailable(format!(
                "blob {digest}: broken off again and again, last after {} of {size} bytes: {why}",
                self.at
            )));
        }
        tracing::debug!(blob = %digest, at = self.at, why, "download broke off");
        Ok(())
    }

    /// What came another way.
    fn passed(&mut self, count: u64) {
        self.at += count;
        self.end = self.at;
        self.good = self.at;
    }

    fn extend(&mut self, end: u64) {
        self.end = end;
        self.body = None;
    }

    /// All of it at once.
    async fn whole(mut self, memory: OwnedSemaphorePermit) -> Result<Segment, Error> {
        let mut pieces = VecDeque::new();
        loop {
            self.connect().await?;
            // An endpoint without ranges would send all that comes before, for every segment.
            if self.body.as_ref().is_some_and(|body| body.skip > 0) {
                return Err(Error::content("it does not serve parts"));
            }
            match self.chunk().await? {
                Some(bytes) => pieces.push_back(bytes),
                None => return Ok(Segment { pieces, _memory: memory }),
            }
        }
    }
}
