//! Archives of random entries: whatever they say, nothing outside is touched, the layer verifies,
//! and the kernel's merge of several is the same tree as the copy.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use snapshotter::Kind;

use crate::store::Store;
use crate::tar::{Header, Tar};

/// Few names, so that entries meet.
const NAMES: [&str; 14] = [
    "a",
    "a/b",
    "a/b/c",
    "a/d",
    "e",
    "e/b",
    "e/../a/x",
    "/a/b",
    "a/.wh.b",
    ".wh.a",
    "a/.wh..wh..opq",
    "e/.wh..wh..opq",
    ".wh.e",
    "e/b/c",
];
const TARGETS: [&str; 8] = ["a", "e", "/e", "a/b", "../../bait", "/bait", "e/b", "gone"];
/// The same cases each time; another number finds others.
const SEED: RngSeed = RngSeed::Fixed(2);
const KINDS: &[u8] = b"0005551226";

pub(crate) fn entry() -> impl Strategy<Value = (usize, usize, usize, u8)> {
    (0..NAMES.len(), 0..KINDS.len(), 0..TARGETS.len(), any::<u8>())
}

pub(crate) fn archive(entries: &[(usize, usize, usize, u8)]) -> Vec<u8> {
    let add = |tar: Tar, &(name, kind, target, salt): &(usize, usize, usize, u8)| {
        let content = [b'x'; 3];
        let (uid, mode) = (u32::from(salt % 3), 0o700 | u32::from(salt % 64));
        let header = Header { uid, mode, ..Header::new(NAMES[name], KINDS[kind]) };
        match KINDS[kind] {
            b'0' => tar.entry(Header { size: 3, ..header }, &content),
            b'1' | b'2' => tar.entry(Header { link: TARGETS[target], ..header }, b""),
            _ => tar.entry(header, b""),
        }
    };
    entries.iter().fold(Tar::new(), add).end()
}

/// What a tree holds, as far as it does not depend on when it was made.
pub(crate) fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        // In a directory of one layer only, the kernel lists whiteouts that hide nothing.
        let Ok(stat) = fs::symlink_metadata(&path) else { continue };
        let link = fs::read_link(&path).unwrap_or_default();
        let mode = if stat.is_symlink() { 0 } else { stat.mode() };
        let size = if stat.is_dir() { 0 } else { stat.len() };
        let name = path.strip_prefix(root).unwrap().display().to_string();
        all.insert(name, format!("{mode:o} {} {size} {}", stat.uid(), link.display()));
        if stat.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    all
}

pub(crate) fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, rng_seed: SEED, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(150))]

    #[test]
    fn both_kinds_make_the_same_of_random_layers_and_touch_nothing_else(
        layers in prop::collection::vec(prop::collection::vec(entry(), 0..8), 1..4),
    ) {
        let made = [Kind::Overlay, Kind::Native].map(|kind| {
            let store = Store::new(kind);
            let bait = store.place.dir("bait");
            fs::write(bait.join("file"), "untouched").unwrap();
            let made = layers
                .iter()
                .map(|entries| store.try_layer(&archive(entries)).map(|(id, _)| id))
                .collect::<snapshotter::Result<Vec<_>>>()
                .and_then(|ids| store.snapshotter.settle(&ids).map(|settled| (ids, settled)));
            let made = made.ok().map(|(ids, settled)| {
                for layer in &settled {
                    assert_eq!(store.snapshotter.verify(layer).unwrap(), Vec::<std::path::PathBuf>::new());
                }
                store.merged(&ids, tree)
            });
            assert_eq!(tree(&bait).len(), 2);
            fs::remove_dir_all(bait).unwrap();
            store.close();
            made
        });
        prop_assert_eq!(&made[0], &made[1]);
    }
}
