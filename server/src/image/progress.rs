//! How far a pull is: the operation that it is, as the parts of a pull speak of it.

use std::sync::Arc;

use super::manifest::Descriptor;
use crate::operation::{Operation, Part, PartProgress, Progress as Snapshot};

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

    /// Layers to come: a part for each.
    pub(super) fn expect<'a>(
        &self,
        layers: impl Iterator<Item = &'a Descriptor>,
    ) -> Vec<Arc<Part>> {
        let part = |layer: &Descriptor| Arc::new(Part::new(layer.digest.as_str(), layer.size));
        let parts: Vec<_> = layers.map(part).collect();
        self.0.expect(parts.clone());
        parts
    }

    /// The layer of that number is brought by whoever this part is of.
    pub(super) fn share(&self, number: usize, part: &Arc<Part>) {
        self.0.share(number, part.clone());
    }

    /// The operation that it is.
    pub(crate) fn operation(&self) -> &Arc<Operation> {
        &self.0
    }

    /// Where the pull is now.
    pub(crate) fn now(&self) -> Snapshot {
        self.0.progress()
    }

    /// Its layers, in their order, once they are known.
    pub(crate) fn layers(&self) -> Vec<PartProgress> {
        self.0.parts()
    }
}
