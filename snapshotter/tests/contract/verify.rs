//! Rot is found, and nothing else is taken for it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::Path;

use crate::store::on_both;
use crate::tar::{Header, Tar};

fn archive() -> Vec<u8> {
    Tar::new()
        .dir("./")
        .entry(Header { mode: 0o2755, gid: 5, ..Header::new("d/", b'5') }, b"")
        .file("d/a", "a file")
        .pax("SCHILY.xattr.user.x", "y")
        .file("d/b", "another")
        .symlink("d/l", "a")
        .hardlink("d/h", "d/a")
        .whiteout("d/.wh.gone")
        .whiteout("d/.wh..wh..opq")
        // Replaced, so not to be looked for.
        .dir("old/")
        .file("old/x", "x")
        .file("old", "file now")
        .file("twice", "1")
        .file("twice", "22")
        .dir("again/")
        .file("again/kept", "kept")
        .entry(Header { mode: 0o700, ..Header::new("again/", b'5') }, b"")
        .entry(Header { device: (1, 5), ..Header::new("zero", b'3') }, b"")
        .entry(Header::new("pipe", b'6'), b"")
        .end()
}

#[test]
fn what_was_unpacked_verifies_and_what_changed_is_named() {
    on_both(|store| {
        let layer = store.layer(&archive());
        let none: Vec<std::path::PathBuf> = Vec::new();
        assert_eq!(store.snapshotter.verify(&layer).unwrap(), none);
        let tree = store.root().join("layers").join(layer.hex()).join("fs");
        let time = fs::metadata(tree.join("d/b")).unwrap().modified().unwrap();
        // As after a loss of power: the right size and time, other bytes.
        fs::write(tree.join("d/b"), "\0\0\0\0\0\0\0").unwrap();
        let file = fs::File::options().write(true).open(tree.join("d/b")).unwrap();
        file.set_modified(time).unwrap();
        fs::set_permissions(tree.join("twice"), fs::Permissions::from_mode(0o600)).unwrap();
        lchown(tree.join("d/l"), Some(1), None).unwrap();
        fs::remove_file(tree.join("pipe")).unwrap();
        let different = store.snapshotter.verify(&layer).unwrap();
        // The root for its time, which the removal changed.
        let wanted = ["", "d/b", "d/l", "twice", "pipe"].map(Path::new);
        assert_eq!(different, wanted);
    });
}

#[test]
fn a_derived_layer_verifies_too() {
    on_both(|store| {
        let below =
            store.layer(&Tar::new().dir("usr/").file("usr/f", "f").symlink("lib", "usr").end());
        let above = store.layer(&Tar::new().file("lib/x", "x").hardlink("h", "usr/f").end());
        let settled = store.snapshotter.settle(&[below, above]).unwrap();
        for layer in &settled {
            assert!(store.snapshotter.verify(layer).unwrap().is_empty(), "{layer}");
        }
    });
}
