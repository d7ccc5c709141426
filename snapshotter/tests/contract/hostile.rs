//! Archives that mean harm, and ones that are merely odd.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use snapshotter::{Error, Limits};

use crate::store::{Store, on_both};
use crate::tar::{Header, Tar};

/// A directory outside every layer that archives try to reach.
fn bait(store: &Store) -> PathBuf {
    let bait = store.place.dir("bait");
    fs::write(bait.join("file"), "untouched").unwrap();
    fs::set_permissions(bait.join("file"), fs::Permissions::from_mode(0o600)).unwrap();
    bait
}

fn is_untouched(bait: &Path) {
    let names: Vec<_> = fs::read_dir(bait).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(names, [bait.join("file")]);
    let stat = fs::metadata(bait.join("file")).unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.uid(), stat.nlink()), (0o600, 0, 1));
    assert_eq!(fs::read_to_string(bait.join("file")).unwrap(), "untouched");
}

#[test]
fn nothing_outside_the_root_is_reached() {
    on_both(|store| {
        let bait = bait(store);
        let out = bait.to_str().unwrap();
        let up = format!("{}{out}", "../".repeat(30));
        let loud = Header { mode: 0o4777, uid: 9, gid: 9, ..Header::new("x", b'0') };
        let tars = [
            // Through a symlink: absolute, relative, in two steps, to a file.
            Tar::new().symlink("a", out).file("a/new", "x"),
            Tar::new().symlink("a", &up).file("a/new", "x"),
            Tar::new().symlink("a", "..").symlink("b", &format!("a{out}")).file("b/new", "x"),
            Tar::new().symlink("a", out).file("a/file", "x"),
            Tar::new().symlink("a", &format!("{out}/file")).file("a", "x"),
            Tar::new()
                .symlink("a", &format!("{out}/file"))
                .entry(Header { name: "a", ..loud }, b""),
            Tar::new().symlink("a", out).entry(Header { name: "a", kind: b'5', ..loud }, b""),
            Tar::new().symlink("a", out).entry(Header { name: "a/", kind: b'5', ..loud }, b""),
            Tar::new().symlink("a", out).whiteout("a/.wh.file").whiteout("a/.wh..wh..opq"),
            Tar::new().symlink("a", "/proc/self/root").file(&format!("a{out}/new"), "x"),
            Tar::new().symlink("a", "/proc/self/cwd").file("a/new", "x"),
            // By name.
            Tar::new().file(&up, "x").file(&format!("{out}/new"), "x"),
            Tar::new().dir("d/").entry(Header { name: &format!("d/{up}"), ..loud }, b""),
            // Through a hard link.
            Tar::new().hardlink("a", &format!("{out}/file")).file("a", "x"),
            Tar::new().hardlink("a", &format!("{up}/file")).file("a", "x"),
            Tar::new().symlink("l", out).hardlink("a", "l/file").file("a", "x"),
            Tar::new().symlink("l", &format!("{out}/file")).hardlink("a", "l").file("a", "x"),
            Tar::new()
                .symlink("l", &format!("{out}/file"))
                .hardlink("a", "l")
                .entry(Header { name: "a", ..loud }, b""),
            // A directory that becomes a symlink after its descriptor was kept.
            Tar::new().dir("d/").file("d/x", "x").symlink("d", out).file("d/new", "x"),
            Tar::new().dir("d/").dir("d/e/").file("d/e/x", "").symlink("d", out).file("d/e/y", ""),
            Tar::new().entry(Header { name: "d", kind: b'5', ..loud }, b"").symlink("d", out),
        ];
        for (n, tar) in tars.into_iter().enumerate() {
            eprintln!("{n}");
            if let Ok((layer, _)) = store.try_layer(&tar.end()) {
                // Merging must not reach out either. A hard link to nothing is refused here.
                if let Ok(settled) = store.snapshotter.settle(&[layer]) {
                    store.snapshotter.prepare("x", &settled).unwrap();
                    store.snapshotter.remove("x").unwrap();
                }
            }
            is_untouched(&bait);
        }
        fs::remove_dir_all(bait).unwrap();
    });
}

#[test]
fn a_layers_own_symlinks_are_followed_inside_it() {
    on_both(|store| {
        let tar = Tar::new()
            .dir("usr/")
            .dir("usr/lib/")
            .symlink("lib", "/usr/lib")
            .symlink("usr/lib64", "../../../usr/lib")
            .file("lib/a", "a")
            .file("usr/lib64/b", "b")
            .symlink("dangling", "srv/data")
            .file("dangling/c", "c");
        let layer = store.layer(&tar.end());
        store.merged(&[layer], |root| {
            for (path, text) in [("usr/lib/a", "a"), ("usr/lib/b", "b"), ("srv/data/c", "c")] {
                assert_eq!(fs::read_to_string(root.join(path)).unwrap(), text);
            }
        });
    });
}

#[test]
fn a_later_entry_takes_the_place_of_an_earlier_one() {
    on_both(|store| {
        let tar = Tar::new()
            .dir("dir/")
            .file("dir/in", "in")
            .file("dir", "file now")
            .file("file", "file")
            .entry(Header { mode: 0o700, ..Header::new("file", b'5') }, b"")
            .file("file/in", "in")
            .symlink("link", "/etc")
            .dir("link/")
            .file("link/in", "in")
            .file("twice", "one")
            .file("twice", "two")
            .file("kept", "kept")
            .hardlink("kept", "kept")
            .entry(Header { mode: 0o700, uid: 3, ..Header::new("again", b'5') }, b"")
            .file("again/in", "in")
            .dir("again/");
        let layer = store.layer(&tar.end());
        store.merged(&[layer], |root| {
            let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
            assert_eq!(read("dir"), "file now");
            assert_eq!(read("file/in"), "in");
            assert_eq!(fs::metadata(root.join("file")).unwrap().mode() & 0o7777, 0o700);
            assert!(fs::symlink_metadata(root.join("link")).unwrap().is_dir());
            assert_eq!(
                (read("twice"), read("kept"), read("again/in")),
                ("two".into(), "kept".into(), "in".into())
            );
            let again = fs::metadata(root.join("again")).unwrap();
            assert_eq!((again.mode() & 0o7777, again.uid()), (0o755, 0));
        });
    });
}

#[test]
fn whiteouts_hide_what_is_below_and_never_what_is_beside_them() {
    on_both(|store| {
        let below = Tar::new().dir("a/").file("a/x", "").file("a/y", "").dir("b/").file("b/x", "");
        let below = below.dir("c/").file("c/x", "").file("d", "").dir("e/").file("e/x", "");
        let below = store.layer(&below.end());
        let above = Tar::new()
            .whiteout("a/.wh.x")
            .dir("b/")
            .file("b/new", "")
            .whiteout("b/.wh..wh..opq")
            // Removed and made anew, in either order.
            .whiteout(".wh.c")
            .dir("c/")
            .file("c/new", "")
            .dir("e/")
            .file("e/new", "")
            .whiteout(".wh.e")
            .whiteout(".wh.d")
            .file("d", "new")
            // No whiteouts but what aufs kept for itself.
            .file(".wh..wh.aufs", "")
            .dir(".wh..wh.plnk/")
            .file(".wh..wh.plnk/1.2", "");
        let above = store.layer(&above.end());
        store.merged(&[below, above], |root| {
            let there = |path: &str| fs::symlink_metadata(root.join(path)).is_ok();
            for path in ["a/y", "b/new", "c/new", "e/new", "d"] {
                assert!(there(path), "{path}");
            }
            for path in ["a/x", "b/x", "c/x", "e/x", ".wh..wh.aufs", ".wh..wh.plnk", "a/.wh.x"] {
                assert!(!there(path), "{path}");
            }
        });
    });
}

#[test]
fn archives_that_make_no_sense_are_refused() {
    on_both(|store| {
        let bad = [
            Tar::new().whiteout(".wh."),
            Tar::new().whiteout("a/.wh.."),
            Tar::new().whiteout("a/.wh..."),
            Tar::new().dir(".wh.a/").file(".wh.a/b", ""),
            Tar::new().file("a", "").file("a/b", ""),
            Tar::new().file(".", ""),
            Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", ""),
            Tar::new().dir("d/").hardlink("a", "d"),
            Tar::new().hardlink("a", ""),
            Tar::new().whiteout(".wh.gone").hardlink("a", ".wh.gone"),
            Tar::new().entry(Header::new("a", b'Z'), b""),
            Tar::new().pax("path", "a\0b").file("x", ""),
            Tar::new().pax("path", "x".repeat(300)).file("x", ""),
            Tar::new().pax("uid", "4294967295").file("x", ""),
            Tar::new().pax("size", "-1").file("x", ""),
            Tar::new().raw(&[b'x'; 512]),
        ];
        for (n, tar) in bad.into_iter().enumerate() {
            eprintln!("{n}");
            let refused = store.refusal(&tar.end());
            assert!(matches!(refused, Error::BadArchive { .. }), "{n}: {refused}");
        }
        let whole = Tar::new().file("a", &"x".repeat(2000)).cut();
        for length in [100, 513, 1500, 2000] {
            let refused = store.refusal(&whole[..length]);
            assert!(matches!(refused, Error::BadArchive { .. }), "{length}: {refused}");
        }
        // Some writers leave the end mark out, or half of it.
        store.layer(&whole);
        store.layer(&Tar::new().file("a", "").raw(&[0; 512]).cut());
        store.layer(&[]);
    });
}

#[test]
fn limits_hold() {
    let store = Store::new(snapshotter::Kind::Overlay);
    let try_with = |limits: Limits, tar: &mut dyn std::io::Read| {
        let refused = store.snapshotter.ingest(limits).unwrap().extract(tar).unwrap_err();
        assert!(matches!(refused, Error::Limit { .. }), "{refused}");
    };
    let small = Limits { max_bytes: 1 << 20, max_inodes: 10, ..Limits::default() };
    // A bomb is read no further than the limit, in contents and after the end.
    let header = Header { size: 1 << 40, ..Header::new("a", b'0') };
    let start = Tar::new().entry(header, b"").cut();
    try_with(small, &mut std::io::Read::chain(&start[..], std::io::repeat(0)));
    try_with(small, &mut std::io::repeat(0));
    let many = (0..11).fold(Tar::new(), |tar, n| tar.file(&format!("{n}"), ""));
    try_with(small, &mut &many.end()[..]);
    try_with(
        small,
        &mut &Tar::new().file("1/2/3/4/5/6/7/8/9/10/11/12", "").file("x", "").end()[..],
    );
    store.close();
}

#[test]
fn what_has_to_be_remembered_is_bounded() {
    let store = Store::new(snapshotter::Kind::Overlay);
    let refused = |tar: Tar| {
        let refused = store.refusal(&tar.end());
        assert!(matches!(refused, Error::Limit { .. }), "{refused}");
    };
    let long = "elsewhere/".repeat(400);
    let link = |tar: Tar, n: u32| {
        let path = format!("{n}-{}", "l".repeat(200));
        tar.pax("path", &path).pax("linkpath", &long).entry(Header::new("link", b'1'), b"")
    };
    refused((0..4500).fold(Tar::new(), link));
    // Each is a directory that hid what is below it, and a file in its place.
    let dir = "d".repeat(200);
    let dir = [dir.as_str(); 18].join("/");
    let hidden = |tar: Tar, n: u32| {
        let path = format!("{dir}/{n}");
        let tar = tar.pax("path", format!("{dir}/.wh.{n}")).entry(Header::new("w", b'0'), b"");
        tar.pax("path", path).entry(Header::new("f", b'0'), b"")
    };
    refused((0..4700).fold(Tar::new(), hidden));
    store.close();
}

#[test]
fn symlinks_do_not_lead_deeper_than_paths_may() {
    on_both(|store| {
        let deep = |depth: usize| vec!["d"; depth].join("/");
        let step = |at: &str| format!("{at}/{}/file", deep(600));
        let tar = Tar::new()
            .pax("path", step("d"))
            .entry(Header::new("f", b'0'), b"")
            .pax("linkpath", deep(600))
            .entry(Header::new("s", b'2'), b"")
            .pax("path", step("s"))
            .entry(Header::new("f", b'0'), b"");
        let refused = store.refusal(&tar.end());
        assert!(matches!(refused, Error::BadArchive { .. }), "{refused}");
    });
}

#[test]
fn sizes_that_are_only_claimed_allocate_nothing() {
    on_both(|store| {
        let sparse = Tar::new()
            .pax("GNU.sparse.major", "1")
            .pax("GNU.sparse.minor", "0")
            .pax("GNU.sparse.name", "holes")
            .pax("GNU.sparse.realsize", "1099511627776");
        let map = "2\n4096\n5\n1099511627000\n3\n";
        let mut content = map.as_bytes().to_vec();
        content.resize(512, 0);
        content.extend_from_slice(b"firstend");
        let header = Header { size: content.len() as u64, ..Header::new("GNUSparse.0/x", b'0') };
        let layer = store.layer(&sparse.entry(header, &content).end());
        store.merged(&[layer], |root| {
            use std::os::unix::fs::FileExt;
            let file = fs::File::open(root.join("holes")).unwrap();
            let stat = file.metadata().unwrap();
            assert_eq!(stat.len(), 1 << 40);
            assert!(stat.blocks() < 100);
            let mut text = [0; 5];
            file.read_exact_at(&mut text, 4096).unwrap();
            assert_eq!(&text, b"first");
            file.read_exact_at(&mut text[..3], 1_099_511_627_000).unwrap();
            assert_eq!(&text[..3], b"end");
        });
        let bad = ["1\n0\n9\n", "2\n5\n1\n0\n4\n", "1\n18446744073709551615\n8\n", "99999999\n"];
        for map in bad {
            let sparse = Tar::new()
                .pax("GNU.sparse.major", "1")
                .pax("GNU.sparse.minor", "0")
                .pax("GNU.sparse.name", "holes")
                .pax("GNU.sparse.realsize", "8");
            let mut content = map.as_bytes().to_vec();
            content.resize(520, 0);
            let header = Header { size: 520, ..Header::new("x", b'0') };
            let refused = store.refusal(&sparse.entry(header, &content).end());
            assert!(matches!(refused, Error::BadArchive { .. }), "{map}: {refused}");
        }
    });
}

#[test]
fn long_names_attributes_devices_and_fractions_are_kept() {
    on_both(|store| {
        let long = format!("{}/{}", "d".repeat(200), "f".repeat(250));
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let gnu = format!("{long}2");
        let name = Header { size: gnu.len() as u64, ..Header::new("././@LongLink", b'L') };
        let tar = Tar::new()
            .pax("path", &long)
            .pax("mtime", "1000.5")
            .pax("SCHILY.xattr.security.capability", capability)
            .pax("SCHILY.xattr.trusted.overlay.redirect", "/etc")
            .entry(Header { uid: 4, ..Header::new("short", b'0') }, b"")
            .entry(name, gnu.as_bytes())
            .file("short", "gnu")
            .pax("mtime", "-1.5")
            .entry(Header { device: (1, 3), mode: 0o666, ..Header::new("null", b'3') }, b"")
            .entry(Header { uid: 4, ..Header::new("pipe", b'6') }, b"");
        let (layer, extracted) = store.try_layer(&tar.end()).unwrap();
        assert_eq!(extracted.skipped_xattrs, 1);
        store.merged(&[layer], |root| {
            let stat = fs::metadata(root.join(&long)).unwrap();
            assert_eq!((stat.mtime(), stat.mtime_nsec(), stat.uid()), (1000, 500_000_000, 4));
            let mut value = [0u8; 64];
            let length =
                rustix::fs::getxattr(root.join(&long), "security.capability", &mut value[..]);
            assert_eq!(&value[..length.unwrap()], &capability);
            assert_eq!(fs::read_to_string(root.join(&gnu)).unwrap(), "gnu");
            let null = fs::metadata(root.join("null")).unwrap();
            assert!(null.file_type().is_char_device());
            assert_eq!((null.rdev(), null.mode() & 0o7777), (rustix::fs::makedev(1, 3), 0o666));
            assert_eq!((null.mtime(), null.mtime_nsec()), (-2, 500_000_000));
            assert!(fs::metadata(root.join("pipe")).unwrap().file_type().is_fifo());
        });
    });
}

#[test]
fn the_digest_is_that_of_all_bytes() {
    let store = Store::new(snapshotter::Kind::Overlay);
    // Padding after the end mark belongs to it.
    let tar = Tar::new().file("a", "a").raw(&[0; 1024]).raw(&[0; 8192]).cut();
    let mut ingest = store.snapshotter.ingest(Limits::default()).unwrap();
    let extracted = ingest.extract(&tar[..]).unwrap();
    use sha2::Digest;
    let hex: String = sha2::Sha256::digest(&tar).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(extracted.diff_id.hex(), hex);
    drop(ingest);
    store.close();
}
