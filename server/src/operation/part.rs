//! The parts of what an operation moves: the layers of a pull, each with how much of it is here.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::lock;

/// One part. Operations that want the same one share it with whoever brings it.
#[derive(Debug)]
pub(crate) struct Part {
    name: String,
    size: u64,
    fetched: AtomicU64,
    unpacked: AtomicU64,
    state: Mutex<State>,
}

/// What is going on with a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Waiting,
    Fetching,
    /// All its bytes came and are not yet in their place.
    Unpacking,
    Done,
    /// It was here before.
    AlreadyHere,
}

/// A part at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartProgress {
    pub name: String,
    /// Bytes on the wire.
    pub size: u64,
    pub fetched: u64,
    /// Bytes that became of them so far.
    pub unpacked: u64,
    pub state: State,
}

impl Part {
    pub(crate) fn new(name: impl Into<String>, size: u64) -> Self {
        Self {
            name: name.into(),
            size,
            fetched: AtomicU64::new(0),
            unpacked: AtomicU64::new(0),
            state: Mutex::new(State::Waiting),
        }
    }

    /// Begins to fetch it, from its first byte: what came before was not good.
    pub(crate) fn begin(&self) {
        self.fetched.store(0, Ordering::Relaxed);
        self.unpacked.store(0, Ordering::Relaxed);
        *lock(&self.state) = State::Fetching;
    }

    pub(crate) fn add_fetched(&self, bytes: u64) {
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_unpacked(&self, bytes: u64) {
        self.unpacked.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn done(&self) {
        *lock(&self.state) = State::Done;
    }

    pub(crate) fn already_here(&self) {
        *lock(&self.state) = State::AlreadyHere;
    }

    pub(crate) fn progress(&self) -> PartProgress {
        let state = *lock(&self.state);
        let fetched = self.fetched.load(Ordering::Relaxed).min(self.size);
        let (fetched, state) = match state {
            State::Fetching if fetched == self.size => (fetched, State::Unpacking),
            State::Done | State::AlreadyHere => (self.size, state),
            _ => (fetched, state),
        };
        let unpacked = self.unpacked.load(Ordering::Relaxed);
        PartProgress { name: self.name.clone(), size: self.size, fetched, unpacked, state }
    }
}
