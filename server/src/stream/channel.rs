//! What a session reads and writes, whichever protocol carries it.
//!
//! A transport reads its connection into [`Input`]s and writes what [`Output`]s are given. Both ends are bounded:
//! a session that does not read stops the client, a client that does not read stops the session.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Of the bytes that one connection's inputs hold together.
const MAX_BUFFERED: usize = 2 << 20;
/// Chunks that one input holds.
const CHUNKS: usize = 16;
/// Messages that wait to be written, over all outputs of a connection.
const MESSAGES: usize = 16;
/// How much is read at a time, from a connection or for it.
pub(super) const CHUNK: usize = 32 << 10;
/// A smaller chunk is copied, so that it does not keep a whole read's memory.
const COPIED: usize = CHUNK / 8;

/// Bytes of an input; they count as buffered until this is dropped.
#[derive(Debug)]
pub(super) struct Chunk {
    pub bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

/// One stream from the client.
#[derive(Debug)]
pub(super) struct Input(mpsc::Receiver<Chunk>);

impl Input {
    /// The next bytes; `None` once the client has ended the stream, or is gone.
    pub(super) async fn next(&mut self) -> Option<Chunk> {
        self.0.recv().await
    }
}

/// The transport's end of an [`Input`]. The stream ends when this is dropped.
#[derive(Debug)]
pub(super) struct Feeder(mpsc::Sender<Chunk>);

/// A new input.
pub(super) fn input() -> (Feeder, Input) {
    let (to, from) = mpsc::channel(CHUNKS);
    (Feeder(to), Input(from))
}

/// The room that one connection's inputs share.
#[derive(Debug, Clone)]
pub(super) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_BUFFERED)))
    }
}

impl Feeder {
    /// Whether nobody reads any more.
    pub(super) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Hands bytes on, waiting for room. Those that nobody reads any more are dropped.
    pub(super) async fn push(&self, room: &Room, mut bytes: Bytes) {
        while !bytes.is_empty() && !self.0.is_closed() {
            let mut part = bytes.split_to(bytes.len().min(CHUNK));
            if part.len() < COPIED {
                part = Bytes::copy_from_slice(&part);
            }
            let wanted = u32::try_from(part.len()).unwrap_or(u32::MAX);
            let taken = tokio::select! {
                taken = room.0.clone().acquire_many_owned(wanted) => taken,
                () = self.0.closed() => return,
            };
            let Ok(_room) = taken else { return };
            if self.0.send(Chunk { bytes: part, _room }).await.is_err() {
                return;
            }
        }
    }
}

/// What a session tells its transport; streams are named by the transport's own numbers.
#[derive(Debug)]
pub(super) enum Message {
    /// The stream that a client opened is taken.
    Accept(u32),
    Data(u32, Bytes),
    /// Nothing more comes on the stream.
    End(u32),
    /// The stream is over in both directions; with `refused` it was never taken.
    Reset {
        id: u32,
        refused: bool,
    },
    /// The answer to a ping of the transport's own protocol.
    Pong(u32),
}

/// The messages of a connection, for the transport that writes them.
pub(super) fn messages() -> (mpsc::Sender<Message>, mpsc::Receiver<Message>) {
    mpsc::channel(MESSAGES)
}

/// The client does not take the stream any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

/// One stream to the client.
#[derive(Debug, Clone)]
pub(super) struct Output {
    id: u32,
    to: mpsc::Sender<Message>,
    reset: Arc<CancellationToken>,
}

/// The transport's view of an [`Output`].
#[derive(Debug)]
pub(super) struct Watched(Weak<CancellationToken>);

impl Watched {
    /// The client has ended the stream in both directions.
    pub(super) fn reset(&self) {
        if let Some(reset) = self.0.upgrade() {
            reset.cancel();
        }
    }

    /// Whether the session may still send on it.
    pub(super) fn is_held(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl Output {
    pub(super) fn new(id: u32, to: mpsc::Sender<Message>) -> (Self, Watched) {
        let reset = Arc::default();
        let watched = Watched(Arc::downgrade(&reset));
        (Self { id, to, reset }, watched)
    }

    /// Sends bytes, waiting for those before them to be written.
    pub(super) async fn send(&self, bytes: Bytes) -> Result<(), Gone> {
        self.tell(Message::Data(self.id, bytes)).await
    }

    /// Takes the stream.
    pub(super) async fn accept(&self) {
        self.tell(Message::Accept(self.id)).await.ok();
    }

    /// Ends the stream after what was sent.
    pub(super) async fn end(self) {
        self.tell(Message::End(self.id)).await.ok();
    }

    /// Ends the stream at once.
    pub(super) async fn reset(self) {
        self.tell(Message::Reset { id: self.id, refused: false }).await.ok();
    }

    /// Does not take the stream.
    pub(super) async fn refuse(self) {
        self.tell(Message::Reset { id: self.id, refused: true }).await.ok();
    }

    /// Resolves when the client has reset the stream.
    pub(super) async fn was_reset(&self) {
        self.reset.cancelled().await;
    }

    async fn tell(&self, message: Message) -> Result<(), Gone> {
        if self.reset.is_cancelled() {
            return Err(Gone);
        }
        tokio::select! {
            told = self.to.send(message) => told.map_err(|_| Gone),
            () = self.reset.cancelled() => Err(Gone),
        }
    }
}

/// When a connection last carried anything.
#[derive(Debug, Clone)]
pub(super) struct Activity {
    begin: Instant,
    last: Arc<AtomicU64>,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self { begin: Instant::now(), last: Arc::default() }
    }

    /// Something was read or written.
    pub(super) fn seen(&self) {
        let age = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(age, Ordering::Relaxed);
    }

    /// Resolves after `limit` without anything.
    pub(super) async fn idle(&self, limit: Duration) {
        loop {
            let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
            let end = self.begin + last + limit;
            if Instant::now() >= end {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_that_stops_stops_its_writer_and_no_byte_is_lost() {
        let ((feeder, mut input), room) = (input(), Room::default());
        let all = Bytes::from(vec![7; 8 << 20]);
        let pushed = feeder.push(&room, all.clone());
        tokio::pin!(pushed);
        let early = tokio::time::timeout(Duration::from_millis(20), &mut pushed).await;
        assert!(early.is_err(), "all of it was buffered");
        let read = async {
            let mut read = 0;
            while read < all.len() {
                let chunk = input.next().await.unwrap();
                assert!(chunk.bytes.len() <= CHUNK && chunk.bytes.iter().all(|byte| *byte == 7));
                read += chunk.bytes.len();
            }
        };
        tokio::join!(pushed, read);
    }

    #[tokio::test]
    async fn bytes_for_nobody_are_dropped() {
        let ((feeder, input), room) = (input(), Room::default());
        drop(input);
        feeder.push(&room, Bytes::from(vec![7; 8 << 20])).await;
        assert_eq!(room.0.available_permits(), MAX_BUFFERED);
    }

    #[tokio::test]
    async fn a_reset_frees_whoever_waits_to_send() {
        let (to, _from) = messages();
        let (output, watched) = Output::new(1, to);
        let sending = async { while output.send(Bytes::from_static(b"x")).await.is_ok() {} };
        let resetting = async {
            tokio::task::yield_now().await;
            watched.reset();
        };
        tokio::join!(sending, resetting);
    }

    #[tokio::test]
    async fn idle_counts_from_the_last_thing_seen() {
        let (activity, limit) = (Activity::new(), Duration::from_millis(60));
        let idle = activity.idle(limit);
        tokio::pin!(idle);
        assert!(tokio::time::timeout(limit / 2, &mut idle).await.is_err());
        activity.seen();
        let seen = Instant::now();
        idle.await;
        // Activity is kept in whole milliseconds.
        assert!(seen.elapsed() + Duration::from_millis(2) >= limit);
    }
}
