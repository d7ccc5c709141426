//! Layers as archives again: what is unpacked from them is what was there, and the same archive once more.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use proptest::prelude::*;
use snapshotter::{Kind, LayerId};

use crate::property::{self, entry, tree};
use crate::store::{Store, on_both};
use crate::tar::{Header, Tar};

fn archive(store: &Store, layer: &LayerId) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.snapshotter.archive(layer, &mut bytes).unwrap();
    bytes
}

/// The same layers by way of their archives, in another store.
fn again(store: &Store, layers: &[LayerId]) -> (Store, Vec<LayerId>) {
    let other = Store::new(store.snapshotter.kind());
    let mut copies = Vec::new();
    for layer in layers {
        let bytes = archive(store, layer);
        let copy = other.layer(&bytes);
        assert!(archive(&other, &copy) == bytes, "its archive is another one");
        copies.push(copy);
    }
    (other, copies)
}

/// All of a file that a container sees.
fn looks(root: &Path, name: &str) -> String {
    let path = root.join(name);
    let stat = fs::symlink_metadata(&path).unwrap();
    let text = if stat.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
    let target = fs::read_link(&path).unwrap_or_default();
    let mut kind = [0; 8];
    let length = rustix::fs::lgetxattr(&path, "user.kind", &mut kind[..]).unwrap_or(0);
    format!(
        "{:o} {}:{} {} {}.{} {} {target:?} {} {:?}",
        stat.mode(),
        stat.uid(),
        stat.gid(),
        stat.rdev(),
        stat.mtime(),
        stat.mtime_nsec(),
        stat.nlink(),
        text.len() as u64 + text.iter().map(|byte| u64::from(*byte)).sum::<u64>(),
        &kind[..length],
    )
}

#[test]
fn nothing_of_a_layer_is_lost_on_the_way() {
    let long = format!("{}/{}", "d".repeat(150), "f".repeat(90));
    let owned =
        Header { uid: 2_000_000, gid: 9, mode: 0o4711, size: 1, ..Header::new("owned", b'0') };
    let lower = Tar::new().dir("d/").file("d/gone", "x").dir("o/").file("o/hidden", "x").end();
    let upper = Tar::new()
        .dir("d/")
        .whiteout("d/.wh.gone")
        .dir("o/")
        .whiteout("o/.wh..wh..opq")
        .file("o/new", "new")
        .entry(owned, b"1")
        .file("first", "linked")
        .hardlink("second", "first")
        .symlink("link", "/else/where")
        .file("made/up/file", "x")
        .pax("path", &long)
        .file("short", "long")
        .entry(Header::new("fifo", b'6'), b"")
        .pax("SCHILY.xattr.user.kind", "tested")
        .pax("mtime", "-3.25")
        .pax("uid", "3000000")
        .file("attributed", "x")
        .end();
    let names =
        ["owned", "first", "second", "link", "made/up/file", &long, "fifo", "attributed", "o/new"];
    on_both(|store| {
        let layers = [store.layer(&lower), store.layer(&upper)];
        let (other, copies) = again(store, &layers);
        let seen = |store: &Store, layers: &[LayerId]| {
            store.merged(layers, |root| {
                assert!(!root.join("d/gone").exists() && !root.join("o/hidden").exists());
                (tree(root), names.map(|name| looks(root, name)))
            })
        };
        assert_eq!(seen(store, &layers), seen(&other, &copies));
        other.close();
    });
}

#[test]
fn holes_stay_holes() {
    on_both(|store| {
        // One that no archive could hold whole.
        let sparse = Tar::new()
            .pax("GNU.sparse.major", "1")
            .pax("GNU.sparse.minor", "0")
            .pax("GNU.sparse.name", "sparse")
            .pax("GNU.sparse.realsize", "1099511627776")
            .file("placeholder", &format!("{:\0<512}{}", "1\n8192\n4096\n", "y".repeat(4096)))
            .end();
        let layers = [store.layer(&sparse)];
        assert!(archive(store, &layers[0]).len() < 64 << 10);
        let (other, copies) = again(store, &layers);
        other.merged(&copies, |root| {
            let file = fs::File::open(root.join("sparse")).unwrap();
            assert_eq!(file.metadata().unwrap().len(), 1 << 40);
            let mut bytes = [0; 2];
            file.read_exact_at(&mut bytes, 8191).unwrap();
            assert_eq!(bytes, [0, b'y']);
        });
        other.close();
    });
}

proptest! {
    #![proptest_config(property::config(40))]

    #[test]
    fn random_layers_survive_it(
        layers in prop::collection::vec(prop::collection::vec(entry(), 0..8), 1..4),
    ) {
        for kind in [Kind::Overlay, Kind::Native] {
            let store = Store::new(kind);
            let made: snapshotter::Result<Vec<LayerId>> = layers
                .iter()
                .map(|entries| store.try_layer(&property::archive(entries)).map(|(id, _)| id))
                .collect();
            if let Ok(ids) = made && store.snapshotter.settle(&ids).is_ok() {
                let (other, copies) = again(&store, &ids);
                prop_assert_eq!(store.merged(&ids, tree), other.merged(&copies, tree));
                other.close();
            }
            store.close();
        }
    }
}
