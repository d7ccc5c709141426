//! Mounting on a real kernel: overlays of few and of many layers, odd paths, bind mounts.

use std::fs;
use std::path::{Path, PathBuf};

use crate::private::Place;
use snapshotter::Error;
use snapshotter::mount::{Kind, MAX_LAYERS, Mount, classic, mount, umount};

type Mounting = fn(&Mount, &Path) -> snapshotter::Result<()>;

const BOTH: [(&str, Mounting); 2] = [("new", mount), ("classic", classic)];

fn layers(place: &Place, base: &str, count: usize) -> Vec<PathBuf> {
    let layer = |n: usize| {
        let layer = place.dir(&format!("{base}/{n}"));
        fs::write(layer.join(format!("only-{n}")), n.to_string()).unwrap();
        fs::write(layer.join("shared"), n.to_string()).unwrap();
        layer
    };
    // Topmost first.
    (0..count).rev().map(layer).collect()
}

fn writable(place: &Place, layers: Vec<PathBuf>) -> Mount {
    let (upper, work) = (Some(place.dir("upper")), Some(place.dir("work")));
    let options = vec!["nosuid".to_owned(), "index=off".to_owned()];
    Mount { kind: Kind::Overlay, upper, work, layers, options, ..Mount::bind("", false) }
}

#[test]
fn an_overlay_of_any_number_of_layers_is_mounted_either_way() {
    for (name, mounting) in BOTH {
        let place = Place::new();
        let target = place.dir("root");
        for count in [1, 2, 40, 200] {
            let wanted = writable(&place, layers(&place, name, count));
            mounting(&wanted, &target).unwrap_or_else(|err| panic!("{name} {count}: {err}"));
            assert_eq!(fs::read_to_string(target.join("shared")).unwrap(), (count - 1).to_string());
            for n in 0..count {
                assert!(target.join(format!("only-{n}")).exists(), "{name} {count}: {n}");
            }
            fs::write(target.join("new"), "x").unwrap();
            assert!(place.path().join("upper/new").exists());
            umount(&target).unwrap();
        }
    }
}

#[test]
fn paths_that_an_option_string_cannot_hold_are_mounted_either_way() {
    for (name, mounting) in BOTH {
        let place = Place::new();
        let base = format!("{}/a:b,c\\d", "x".repeat(200));
        let wanted = writable(&place, layers(&place, &base, 3));
        let target = place.dir("root");
        mounting(&wanted, &target).unwrap_or_else(|err| panic!("{name}: {err}"));
        assert_eq!(fs::read_to_string(target.join("shared")).unwrap(), "2");
        umount(&target).unwrap();
    }
}

#[test]
fn an_overlay_without_an_upper_layer_is_read_only() {
    for (name, mounting) in BOTH {
        let place = Place::new();
        let layers = layers(&place, name, 2);
        let wanted = Mount { kind: Kind::Overlay, layers, ..Mount::bind("", true) };
        let target = place.dir("root");
        mounting(&wanted, &target).unwrap();
        let refused = fs::write(target.join("new"), "x").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        umount(&target).unwrap();
    }
}

#[test]
fn too_many_layers_are_refused_before_the_kernel_sees_them() {
    let place = Place::new();
    let wanted = writable(&place, vec![place.dir("one"); MAX_LAYERS + 1]);
    let refused = mount(&wanted, &place.dir("root")).unwrap_err();
    assert!(matches!(refused, Error::TooManyLayers { count: 501, limit: 500 }), "{refused}");
}

#[test]
fn a_missing_layer_is_named_by_the_kernels_error() {
    let place = Place::new();
    let wanted = writable(&place, vec![place.path().join("gone")]);
    let refused = mount(&wanted, &place.dir("root")).unwrap_err();
    assert!(refused.to_string().contains("No such file"), "{refused}");
}

#[test]
fn a_bind_mount_can_be_read_only_and_take_what_is_below_along() {
    let place = Place::new();
    let (source, target) = (place.dir("source"), place.dir("target"));
    fs::write(source.join("file"), "x").unwrap();
    let below = place.dir("source/below");
    mount(&Mount::bind(place.dir("other"), false), &below).unwrap();
    let recursive = Mount { options: vec!["rbind".to_owned()], ..Mount::bind(&source, true) };
    mount(&recursive, &target).unwrap();
    assert!(fs::write(target.join("file"), "y").is_err());
    assert_eq!(place.mounts().len(), 3);
    rustix::mount::unmount(&target, rustix::mount::UnmountFlags::DETACH).unwrap();
    umount(&below).unwrap();
}

#[test]
fn unmounting_what_is_not_mounted_or_not_there_is_no_error() {
    let place = Place::new();
    umount(&place.dir("plain")).unwrap();
    umount(&place.path().join("gone")).unwrap();
}
