//! Layers that lean on those below them: what an author saw when building over a merged tree must
//! be what a node makes of the same layers.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use snapshotter::Error;

use crate::store::{Store, on_both};
use crate::tar::{Header, Tar};

fn face(path: impl AsRef<Path>) -> (u32, u32, u32) {
    let stat = fs::symlink_metadata(path).unwrap();
    (stat.mode() & 0o7777, stat.uid(), stat.gid())
}

fn private(name: &str) -> Header<'_> {
    Header { mode: 0o2750, uid: 5, gid: 6, ..Header::new(name, b'5') }
}

#[test]
fn a_directory_without_an_entry_looks_like_the_one_below() {
    on_both(|store| {
        let below = Tar::new().entry(private("home/"), b"").entry(private("home/u/"), b"");
        let below = below.dir("usr/").file("home/u/old", "");
        let middle = Tar::new().file("home/u/new", "").file("usr/new", "").file("made/up", "");
        let above = Tar::new().file("home/u/newest", "");
        let layers = [&below, &middle, &above].map(|tar| store.layer(&tar.clone().end()));
        let settled = store.snapshotter.settle(&layers).unwrap();
        assert_eq!(settled[..3], layers, "all layers stay shared");
        assert_eq!(settled.len(), 4, "one more on top for the directories");
        assert_eq!(store.snapshotter.settle(&layers).unwrap(), settled);
        store.merged(&layers, |root| {
            assert_eq!(face(root.join("home")), (0o2750, 5, 6));
            assert_eq!(face(root.join("home/u")), (0o2750, 5, 6));
            assert_eq!(fs::metadata(root.join("home/u")).unwrap().mtime(), 1_000_000_000);
            assert_eq!(face(root.join("usr")), (0o755, 0, 0));
            assert_eq!(face(root.join("made")), (0o755, 0, 0));
            for name in ["old", "new", "newest"] {
                assert!(root.join("home/u").join(name).exists(), "{name}");
            }
        });
    });
}

#[test]
fn a_directory_without_an_entry_that_would_look_the_same_costs_nothing() {
    on_both(|store| {
        let below = store.layer(&Tar::new().dir("usr/").dir("usr/bin/").end());
        let above = store.layer(&Tar::new().file("usr/bin/x", "x").end());
        let layers = [below, above];
        assert_eq!(store.snapshotter.settle(&layers).unwrap(), layers);
    });
}

#[test]
fn the_root_looks_as_the_topmost_layer_that_describes_it_says() {
    on_both(|store| {
        let below = Tar::new().entry(private("./"), b"").file("a", "");
        let above = Tar::new().file("b", "");
        let layers = [below, above].map(|tar| store.layer(&tar.end()));
        store.merged(&layers, |root| assert_eq!(face(root), (0o2750, 5, 6)));
        store.merged(&layers[..1], |root| assert_eq!(face(root), (0o2750, 5, 6)));
        store.merged(&layers[1..], |root| assert_eq!(face(root), (0o755, 0, 0)));
    });
}

#[test]
fn what_goes_into_a_directory_that_is_a_symlink_below_goes_where_it_leads() {
    on_both(|store| {
        let below = Tar::new()
            .dir("usr/")
            .dir("usr/lib/")
            .file("usr/lib/old", "old")
            .file("usr/lib/gone", "gone")
            .symlink("lib", "usr/lib")
            .symlink("usr/lib/x", "/opt/../opt/x");
        let above = Tar::new()
            .file("lib/new", "new")
            .file("lib/x/deep", "deep")
            .whiteout("lib/.wh.gone")
            .file("usr/lib/direct", "direct");
        let layers = [below, above].map(|tar| store.layer(&tar.end()));
        let settled = store.snapshotter.settle(&layers).unwrap();
        assert_eq!(store.snapshotter.settle(&layers).unwrap(), settled);
        store.merged(&layers, |root| {
            assert_eq!(fs::read_link(root.join("lib")).unwrap(), Path::new("usr/lib"));
            for name in ["old", "new", "direct"] {
                assert_eq!(fs::read_to_string(root.join("usr/lib").join(name)).unwrap(), name);
            }
            assert!(!root.join("usr/lib/gone").exists());
            assert_eq!(fs::read_to_string(root.join("opt/x/deep")).unwrap(), "deep");
            let link = fs::read_link(root.join("usr/lib/x")).unwrap();
            assert_eq!(link, Path::new("/opt/../opt/x"));
        });
    });
}

#[test]
fn an_entry_for_a_directory_takes_the_place_of_a_symlink_below() {
    on_both(|store| {
        let below = Tar::new().dir("usr/").dir("usr/lib/").symlink("lib", "usr/lib");
        let above = Tar::new().dir("lib/").file("lib/new", "new");
        let layers = [below, above].map(|tar| store.layer(&tar.end()));
        store.merged(&layers, |root| {
            assert!(fs::symlink_metadata(root.join("lib")).unwrap().is_dir());
            assert!(!root.join("usr/lib/new").exists());
        });
    });
}

#[test]
fn a_hard_link_may_lead_to_a_file_below() {
    on_both(|store| {
        let below = Tar::new().dir("usr/").file("usr/a", "below").symlink("lib", "usr");
        let above = Tar::new().hardlink("b", "lib/a").hardlink("c", "b").dir("usr/");
        let layers = [below, above].map(|tar| store.layer(&tar.end()));
        store.merged(&layers, |root| {
            assert_eq!(fs::read_to_string(root.join("b")).unwrap(), "below");
            assert_eq!(fs::read_to_string(root.join("c")).unwrap(), "below");
        });
        let nowhere = store.layer(&Tar::new().hardlink("b", "gone").end());
        let refused = store.snapshotter.settle(&[layers[0].clone(), nowhere]).unwrap_err();
        assert!(matches!(refused, Error::BadArchive { .. }), "{refused}");
    });
}

#[test]
fn a_hard_link_reads_nothing_of_the_hosts() {
    on_both(|store| {
        let secret = store.place.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        let below = Tar::new().symlink("out", secret.to_str().unwrap()).symlink("up", "../../..");
        let below = store.layer(&below.end());
        for target in [secret.to_str().unwrap(), "up/secret", "../../../../secret"] {
            let above = store.layer(&Tar::new().hardlink("b", target).end());
            assert!(store.snapshotter.settle(&[below.clone(), above]).is_err(), "{target}");
        }
        let above = store.layer(&Tar::new().hardlink("b", "out").end());
        store.merged(&[below, above], |root| {
            assert!(fs::symlink_metadata(root.join("b")).unwrap().is_symlink());
        });
    });
}

#[test]
fn an_opaque_root_hides_all_that_is_below() {
    on_both(|store| {
        let below = store.layer(&Tar::new().file("a", "").end());
        let above = store.layer(&Tar::new().whiteout(".wh..wh..opq").file("b", "").end());
        store.merged(&[below, above], |root| {
            assert!(!root.join("a").exists());
            assert!(root.join("b").exists());
        });
    });
}

#[test]
fn derived_layers_live_and_die_as_others_do() {
    on_both(|store: &Store| {
        let below = store.layer(&Tar::new().dir("usr/").symlink("lib", "usr").end());
        let above = store.layer(&Tar::new().file("lib/x", "x").end());
        let layers = [below, above];
        let settled = store.snapshotter.settle(&layers).unwrap();
        store.snapshotter.sync().unwrap();
        store.snapshotter.prepare("one", &settled).unwrap();
        let removed = store.snapshotter.gc(&Default::default()).unwrap();
        assert_eq!(removed, layers[1..], "the original is not needed any more");
        assert!(matches!(store.snapshotter.remove_layer(&settled[1]), Err(Error::InUse { .. })));
    });
}
