//! One snapshotter of each kind in a place of its own, and what tests do with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use snapshotter::{Error, Extracted, Kind, LayerId, Limits, Result, Snapshotter};

use crate::private::Place;

/// Runs a test on both kinds.
pub(crate) fn on_both(test: impl Fn(&Store)) {
    for kind in [Kind::Overlay, Kind::Native] {
        eprintln!("{kind:?}");
        let store = Store::new(kind);
        test(&store);
        store.close();
    }
}

pub(crate) struct Store {
    pub(crate) place: Place,
    pub(crate) snapshotter: Snapshotter,
}

impl Store {
    pub(crate) fn new(kind: Kind) -> Self {
        let place = Place::new();
        let snapshotter = Snapshotter::open(&place.path().join("store"), kind).unwrap();
        assert_eq!(snapshotter.kind(), kind);
        Store { place, snapshotter }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.place.path().join("store")
    }

    /// Unpacks and commits a layer.
    pub(crate) fn try_layer(&self, tar: &[u8]) -> Result<(LayerId, Extracted)> {
        let limits = Limits { max_bytes: 64 << 20, max_inodes: 10_000, ..Limits::default() };
        let mut ingest = self.snapshotter.ingest(limits)?;
        let extracted = ingest.extract(tar)?;
        ingest.commit(&extracted.diff_id)?;
        Ok((extracted.diff_id.clone(), extracted))
    }

    pub(crate) fn layer(&self, tar: &[u8]) -> LayerId {
        self.try_layer(tar).unwrap().0
    }

    /// What a layer that must not be accepted is refused for.
    pub(crate) fn refusal(&self, tar: &[u8]) -> Error {
        self.try_layer(tar).map(|(id, _)| id).expect_err("a bad layer")
    }

    /// Calls `look` with the merged view of `layers`, mounted writable.
    pub(crate) fn merged<T>(&self, layers: &[LayerId], look: impl FnOnce(&Path) -> T) -> T {
        let layers = self.snapshotter.settle(layers).unwrap();
        let mounts = self.snapshotter.prepare("merged", &layers).unwrap();
        let target = self.place.dir("merged");
        for mount in &mounts {
            snapshotter::mount::mount(mount, &target).unwrap();
        }
        let seen = look(&target);
        snapshotter::mount::umount(&target).unwrap();
        self.snapshotter.remove("merged").unwrap();
        seen
    }

    /// Removes everything and checks that nothing is left.
    pub(crate) fn close(&self) {
        for key in self.snapshotter.list().unwrap() {
            self.snapshotter.remove(&key).unwrap();
        }
        self.snapshotter.sync().unwrap();
        self.snapshotter.gc(&Default::default()).unwrap();
        assert!(self.snapshotter.empty_trash(Duration::from_secs(60)).unwrap());
        for dir in ["layers", "snapshots", "ingest", "trash", "empty"] {
            let left: Vec<_> = fs::read_dir(self.root().join(dir)).unwrap().collect();
            assert!(left.is_empty(), "{dir}: {left:?}");
        }
    }
}
