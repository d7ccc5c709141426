//! Snapshots: keys, idempotence, views, odd numbers of layers, use, crashes.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use rustix::mount::MountFlags;
use snapshotter::mount::{MAX_LAYERS, mount, umount};
use snapshotter::{Error, Kind, LayerId, Limits, Snapshotter};

use crate::store::{Store, on_both};
use crate::tar::Tar;

fn small(store: &Store, name: &str) -> LayerId {
    store.layer(&Tar::new().file(name, name).end())
}

#[test]
fn the_same_call_again_gives_the_same_and_another_is_refused() {
    on_both(|store| {
        let (a, b) = (small(store, "a"), small(store, "b"));
        let first = store.snapshotter.prepare("key", &[a.clone(), b.clone()]).unwrap();
        assert_eq!(store.snapshotter.prepare("key", &[a.clone(), b.clone()]).unwrap(), first);
        assert_eq!(store.snapshotter.mounts("key").unwrap(), Some(first));
        let other = store.snapshotter.prepare("key", &[b.clone(), a.clone()]);
        assert!(matches!(other, Err(Error::KeyInUse(_))));
        assert!(matches!(store.snapshotter.view("key", &[a, b]), Err(Error::KeyInUse(_))));
        assert_eq!(store.snapshotter.list().unwrap(), ["key"]);
        store.snapshotter.remove("key").unwrap();
        store.snapshotter.remove("key").unwrap();
        assert_eq!(store.snapshotter.mounts("key").unwrap(), None);
    });
}

#[test]
fn bad_keys_and_missing_layers_are_refused() {
    on_both(|store| {
        for key in ["", "..", "a/b", "a b", "../layers"] {
            assert!(matches!(store.snapshotter.prepare(key, &[]), Err(Error::BadKey(_))), "{key}");
            assert!(matches!(store.snapshotter.remove(key), Err(Error::BadKey(_))), "{key}");
        }
        let missing: LayerId = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
        let refused = store.snapshotter.prepare("a", std::slice::from_ref(&missing));
        assert!(matches!(refused, Err(Error::MissingLayer(_))));
        assert!(matches!(store.snapshotter.settle(&[missing]), Err(Error::MissingLayer(_))));
        assert!(store.snapshotter.list().unwrap().is_empty());
    });
}

#[test]
fn views_of_any_number_of_layers_are_read_only() {
    on_both(|store| {
        let all = [small(store, "a"), small(store, "b")];
        let target = store.place.dir("target");
        for count in 0..=all.len() {
            for mount_ in store.snapshotter.view("view", &all[..count]).unwrap() {
                mount(&mount_, &target).unwrap();
            }
            let names: HashSet<_> =
                fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names.len(), count);
            assert!(fs::write(target.join("new"), "").is_err());
            umount(&target).unwrap();
            store.snapshotter.remove("view").unwrap();
        }
    });
}

#[test]
fn images_without_layers_and_with_one_twice_work() {
    on_both(|store| {
        store.merged(&[], |root| fs::write(root.join("new"), "").unwrap());
        let a = store.layer(&Tar::new().file("x", "a").file("a", "").end());
        let b = store.layer(&Tar::new().file("x", "b").whiteout(".wh.a").end());
        store.merged(&[a.clone(), b.clone(), a.clone()], |root| {
            assert_eq!(fs::read_to_string(root.join("x")).unwrap(), "a");
            assert!(root.join("a").exists());
        });
    });
}

#[test]
fn as_many_layers_as_the_kernel_takes_and_no_more() {
    let store = Store::new(Kind::Overlay);
    let mut all: Vec<_> = (0..=MAX_LAYERS).map(|n| small(&store, &format!("f{n}"))).collect();
    let refused = store.snapshotter.prepare("many", &all).unwrap_err();
    assert!(matches!(refused, Error::TooManyLayers { count: 501, limit: 500 }), "{refused}");
    all.pop();
    store.merged(&all, |root| assert_eq!(fs::read_dir(root).unwrap().count(), MAX_LAYERS));
    store.close();
}

#[test]
fn usage_counts_what_was_written() {
    let store = Store::new(Kind::Overlay);
    let layer = small(&store, "a");
    assert_eq!(store.snapshotter.layer_usage(&layer).unwrap().inodes, 2);
    store.snapshotter.prepare("key", &[layer]).unwrap();
    let upper = store.root().join("snapshots/key/fs");
    assert_eq!(store.snapshotter.usage("key").unwrap().inodes, 1);
    fs::write(upper.join("new"), vec![1; 10_000]).unwrap();
    fs::hard_link(upper.join("new"), upper.join("same")).unwrap();
    let usage = store.snapshotter.usage("key").unwrap();
    assert_eq!(usage.inodes, 2);
    assert!((10_000..20_000).contains(&usage.bytes), "{usage:?}");
    store.close();
}

#[test]
fn layers_in_use_or_in_flight_are_not_collected() {
    on_both(|store| {
        let (used, kept, loose) = (small(store, "a"), small(store, "b"), small(store, "c"));
        assert!(store.snapshotter.gc(&HashSet::new()).unwrap().is_empty(), "none is synced");
        store.snapshotter.sync().unwrap();
        store.snapshotter.prepare("key", std::slice::from_ref(&used)).unwrap();
        let removed = store.snapshotter.gc(&HashSet::from([kept.clone()])).unwrap();
        assert_eq!(removed, std::slice::from_ref(&loose));
        assert!(store.snapshotter.has(&used) && store.snapshotter.has(&kept));
        let refused = store.snapshotter.remove_layer(&used).unwrap_err();
        assert!(matches!(refused, Error::InUse { .. }), "{refused}");
        store.snapshotter.remove_layer(&kept).unwrap();
        store.snapshotter.remove_layer(&loose).unwrap();
    });
}

#[test]
fn what_a_crash_leaves_is_swept_and_what_was_synced_stays() {
    on_both(|store| {
        let synced = small(store, "a");
        store.snapshotter.sync().unwrap();
        let fresh = small(store, "b");
        let half = store.snapshotter.ingest(Limits::default()).unwrap();
        std::mem::forget(half);
        store.snapshotter.prepare("key", std::slice::from_ref(&synced)).unwrap();
        let again = Snapshotter::open(&store.root(), Kind::Auto).unwrap();
        assert_eq!(again.kind(), store.snapshotter.kind());
        assert!(again.has(&synced) && !again.has(&fresh));
        assert_eq!(fs::read_dir(store.root().join("ingest")).unwrap().count(), 0);
        assert!(again.mounts("key").unwrap().is_some());
        let other = if again.kind() == Kind::Native { Kind::Overlay } else { Kind::Native };
        let refused = Snapshotter::open(&store.root(), other).unwrap_err();
        assert!(matches!(refused, Error::OtherKind { .. }), "{refused}");
    });
}

/// Killed while it had the kernel try an overlay, as is done by mounting one before Linux 6.7.
#[test]
fn a_trial_that_was_cut_off_keeps_nothing_from_being_deleted() {
    on_both(|store| {
        let target = store.root().join("ingest/trial/target");
        fs::create_dir_all(&target).unwrap();
        rustix::mount::mount("none", &target, c"tmpfs", MountFlags::empty(), None).unwrap();
        let again = Snapshotter::open(&store.root(), Kind::Auto).unwrap();
        while !again.empty_trash(Duration::from_secs(1)).unwrap() {}
        assert_eq!(fs::read_dir(store.root().join("trash")).unwrap().count(), 0);
    });
}

/// The files that say so in each layer's directory are not synced, and a loss of power may take them.
#[test]
fn a_sync_holds_for_the_layer_that_was_synced_and_for_no_later_one_of_its_name() {
    on_both(|store| {
        let marks = |layer: &LayerId| store.root().join("layers").join(layer.hex()).join("synced");
        let (stays, goes, again) = (small(store, "a"), small(store, "b"), small(store, "c"));
        store.snapshotter.sync().unwrap();
        store.snapshotter.remove_layer(&goes).unwrap();
        store.snapshotter.remove_layer(&again).unwrap();
        assert_eq!(small(store, "c"), again);
        fs::remove_file(marks(&stays)).unwrap();
        let opened = Snapshotter::open(&store.root(), Kind::Auto).unwrap();
        assert!(opened.has(&stays) && !opened.has(&goes) && !opened.has(&again));
        assert!(marks(&stays).exists());
        // Cut off, the last line proves nothing.
        fs::remove_file(marks(&stays)).unwrap();
        let layer = small(store, "d");
        opened.sync().unwrap();
        store.snapshotter.sync().unwrap();
        let lines = fs::read(store.root().join("proofs")).unwrap();
        assert!(lines.ends_with(b"\n") && !lines.ends_with(b"\n\n"));
        fs::write(store.root().join("proofs"), &lines[..lines.len() - 1]).unwrap();
        fs::remove_file(marks(&layer)).unwrap();
        let opened = Snapshotter::open(&store.root(), Kind::Auto).unwrap();
        assert!(!opened.has(&layer) && !opened.has(&stays));
    });
}

/// A loss of power may leave the file that tells the kind empty, before anything was stored.
#[test]
fn a_kind_that_was_cut_short_is_none() {
    on_both(|store| {
        fs::write(store.root().join("kind"), "").unwrap();
        let again = Snapshotter::open(&store.root(), store.snapshotter.kind()).unwrap();
        assert_eq!(again.kind(), store.snapshotter.kind());
        let told = fs::read_to_string(store.root().join("kind")).unwrap();
        assert!(!told.is_empty(), "it is told again");
    });
}

#[test]
fn the_second_of_two_that_make_a_layer_loses_to_the_same_effect() {
    on_both(|store| {
        let tar = Tar::new().file("a", "a").end();
        let mut both = [1, 2].map(|_| store.snapshotter.ingest(Limits::default()).unwrap());
        let ids = both.each_mut().map(|ingest| ingest.extract(&tar[..]).unwrap().diff_id);
        for ingest in both {
            ingest.commit(&ids[0]).unwrap();
        }
        assert!(store.snapshotter.verify(&ids[1]).unwrap().is_empty());
        // Nothing is published of what was never unpacked.
        let unused: LayerId = format!("sha256:{}", "1".repeat(64)).parse().unwrap();
        assert!(store.snapshotter.ingest(Limits::default()).unwrap().commit(&unused).is_err());
        assert!(!store.snapshotter.has(&unused));
    });
}

#[test]
fn overlay_is_not_taken_where_it_does_not_work() {
    let store = Store::new(Kind::Overlay);
    // An overlay does not take another overlay as its upper directory.
    let target = store.place.dir("target");
    for mount_ in store.snapshotter.prepare("key", &[]).unwrap() {
        mount(&mount_, &target).unwrap();
    }
    let inner = target.join("inner");
    let refused = Snapshotter::open(&inner, Kind::Overlay).unwrap_err();
    assert!(matches!(refused, Error::NoOverlay { .. }), "{refused}");
    let auto = Snapshotter::open(&inner, Kind::Auto).unwrap();
    assert_eq!(auto.kind(), Kind::Native);
    drop(auto);
    umount(&target).unwrap();
    store.close();
}

#[test]
fn trees_too_deep_to_name_can_be_deleted() {
    let store = Store::new(Kind::Overlay);
    store.snapshotter.prepare("key", &[]).unwrap();
    let upper = store.root().join("snapshots/key/fs");
    let flags = rustix::fs::OFlags::PATH;
    let mut at = rustix::fs::open(&upper, flags, rustix::fs::Mode::empty()).unwrap();
    for _ in 0..3000 {
        rustix::fs::mkdirat(&at, "deeper", rustix::fs::Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, "deeper", flags, rustix::fs::Mode::empty()).unwrap();
    }
    drop(at);
    assert!(store.snapshotter.usage("key").unwrap().inodes > 100);
    store.snapshotter.remove("key").unwrap();
    store.close();
}
