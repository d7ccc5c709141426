//! Layers that lean on those below them, put into place.

use crate::{Error, LayerId, Result, Snapshotter};

impl Snapshotter {
    /// What to mount for the layers `diff_ids` of an image, the bottom one first, all of which must
    /// be stored.
    pub fn settle(&self, diff_ids: &[LayerId]) -> Result<Vec<LayerId>> {
        match diff_ids.iter().find(|layer| !self.has(layer)) {
            Some(missing) => Err(Error::MissingLayer(missing.to_string())),
            None => Ok(diff_ids.to_vec()),
        }
    }
}
