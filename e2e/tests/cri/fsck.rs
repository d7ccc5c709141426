//! `podwright fsck` beside a running daemon: what nobody owns is told, and given back on request.

use std::process::Output;

use e2e::image::catalogue::BUSYBOX;
use e2e::node::FsckRequest;
use e2e::pod::{container, shell};
use e2e::{Options, World, eventually, place};

use crate::planted::Planted;

fn fsck(world: &World, arguments: &[&str]) -> (Option<i32>, String) {
    let socket = world.path("state/podwright.sock");
    let Output { status, stdout, stderr } = world
        .command(place::binary("podwright"))
        .arg("--socket")
        .arg(socket)
        .arg("fsck")
        .args(arguments)
        .output()
        .expect("nsenter is installed");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (status.code(), text(&stdout) + &text(&stderr))
}

#[test]
fn leftovers_are_told_and_given_back_while_pods_run() {
    let world = World::start(Options::default());
    world.pull(BUSYBOX);
    let pod = world.pod("bystander");
    let id = pod.run(container("c", BUSYBOX, &shell("exec sleep 1000")));
    eventually("a clean node", || (fsck(&world, &[]).0 == Some(0)).then_some(()));
    let planted = Planted::plant(&world);
    let (code, text) = fsck(&world, &[]);
    assert_eq!(code, Some(1), "{text}");
    for kind in [
        "directory",
        "mount",
        "network namespace",
        "network attachment",
        "shim",
        "snapshot",
        "runtime state",
        "cgroup",
        "layer",
        "image file",
    ] {
        assert!(text.lines().any(|line| line.starts_with(kind)), "no {kind}:\n{text}");
    }
    assert!(!text.contains(&pod.id) && !text.contains(&id), "{text}");
    assert!(!text.contains("podwright-00000000"), "another daemon's:\n{text}");
    assert!(planted.left(&world).len() > 8, "nothing goes unasked");
    let (code, text) = fsck(&world, &["--fix"]);
    assert_eq!(code, Some(0), "{text}");
    planted.goes(&world);
    let (code, text) = fsck(&world, &[]);
    assert_eq!((code, text.as_str()), (Some(0), "nothing is left behind\n"));
    world.exec(&id, "true");
    pod.end();
    world.finish();
}

/// Nothing of a pod that is being made or ended is ever taken for a leftover.
#[test]
fn what_is_under_way_is_left_alone() {
    let world = World::start(Options::default());
    world.pull(BUSYBOX);
    std::thread::scope(|scope| {
        let churn = scope.spawn(|| {
            for round in 0..6 {
                let pod = world.pod(&format!("churn-{round}"));
                let id = pod.run(container("c", BUSYBOX, &shell("exec sleep 1000")));
                world.exec(&id, "true");
                pod.end();
            }
        });
        let mut looks = 0;
        while !churn.is_finished() {
            let found = world.client.fsck(FsckRequest { fix: true, verify_layers: false }).unwrap();
            assert!(found.leftovers.is_empty(), "{:?}", found.leftovers);
            looks += 1;
        }
        churn.join().unwrap();
        println!("{looks} looks");
    });
    world.finish();
}

#[test]
fn a_damaged_layer_is_told_and_fetched_again() {
    let world = World::start(Options::default());
    world.pull(BUSYBOX);
    let (code, text) = fsck(&world, &["--layers"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(" layers compared"), "{text}");
    let layers = world.path("root/snapshots/layers");
    world.sh(&format!("echo x >> $(find {}/*/fs -type f -size +0 | head -1)", layers.display()));
    let (code, text) = fsck(&world, &["--layers"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("paths differ"), "{text}");
    let pod = world.pod("on-it");
    let id = pod.create(container("c", BUSYBOX, &[]));
    let (code, text) = fsck(&world, &["--layers", "--fix"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("not repaired: ") && text.contains(&id), "{text}");
    pod.end();
    let (code, text) = fsck(&world, &["--layers", "--fix"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(", repaired"), "{text}");
    let (code, text) = fsck(&world, &["--layers"]);
    assert_eq!((code, text.contains("differ")), (Some(0), false), "{text}");
    let pod = world.pod("after");
    let id = pod.run(container("c", BUSYBOX, &[]));
    assert_eq!(world.exec(&id, "echo sound"), "sound\n");
    pod.end();
    world.finish();
}
