//! How far a pull is: the operation that it is, as the parts of a pull speak of it.

use std::sync::Arc;

use crate::operation::{Operation, Progress as Snapshot};

/// Shared between a pull and all who wait for it or watch it.
#[derive(Debug)]
pub(crate) struct Progress(Arc<Operation>);

impl Progress {
    pub(super) fn new(operation: Arc<Operation>) -> Self {
        Self(operation)
    }

    /// Pulls are not cancelled: they go on until they end, or no byte comes any more.
    pub(super) fn enter(&self, stage: &'static str) {
        self.0.enter(stage).ok();
    }

    pub(super) fn expect(&self, bytes: u64, layers: usize) {
        self.0.expect(bytes, u32::try_from(layers).unwrap_or(u32::MAX));
    }

    pub(super) fn add(&self, bytes: u64) {
        self.0.add_bytes(bytes);
    }

    /// One more layer is here.
    pub(super) fn add_layer(&self) {
        self.0.add_layer();
    }

    /// The operation that it is.
    pub(crate) fn operation(&self) -> &Operation {
        &self.0
    }

    /// Where the pull is now.
    pub(crate) fn now(&self) -> Snapshot {
        self.0.progress()
    }
}
