//! How far a pull is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Shared between a pull and all who wait for it or watch it.
#[derive(Debug)]
pub(crate) struct Progress {
    reference: String,
    started: Instant,
    stage: Mutex<(&'static str, Instant)>,
    done: AtomicU64,
    total: AtomicU64,
}

/// A pull at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub reference: String,
    /// As it reads after "while".
    pub stage: &'static str,
    pub in_stage: Duration,
    pub age: Duration,
    /// Bytes of blobs that are here.
    pub done: u64,
    /// Of so many; 0 until the manifest is here.
    pub total: u64,
}

impl Progress {
    pub(super) fn new(reference: String) -> Self {
        let now = Instant::now();
        Self {
            reference,
            started: now,
            stage: Mutex::new(("reading the registry's configuration", now)),
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
        }
    }

    pub(super) fn enter(&self, stage: &'static str) {
        tracing::debug!(image = self.reference, stage, "enters stage");
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = (stage, Instant::now());
    }

    pub(super) fn expect(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Where the pull is now.
    pub(crate) fn now(&self) -> Snapshot {
        let (stage, since) = *self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        Snapshot {
            reference: self.reference.clone(),
            stage,
            in_stage: since.elapsed(),
            age: self.started.elapsed(),
            done: self.done.load(Ordering::Relaxed),
            total: self.total.load(Ordering::Relaxed),
        }
    }
}

impl std::fmt::Display for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "pull {}: {} for {:.1} s, {} of {} bytes, {:.1} s in all",
            self.reference,
            self.stage,
            self.in_stage.as_secs_f64(),
            self.done,
            self.total,
            self.age.as_secs_f64()
        )
    }
}
