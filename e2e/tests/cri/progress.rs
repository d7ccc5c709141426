//! How far a pull is, for whoever looks on.

use std::process::{Child, Stdio};

use e2e::cri::*;
use e2e::image::catalogue::{self, BUSYBOX};
use e2e::image::{Image, Layer};
use e2e::node::{LayerState, ListOperationsRequest, Operation, PullProgress};
use e2e::registry::HOST;
use e2e::throttle::Throttle;
use e2e::{Options, World, eventually, place};
use serde_json::json;

/// Where the registry is slow.
const NARROW: &str = "127.0.0.1:5001";
const LARGE: usize = 4 << 20;
const SMALL: usize = 10_000;

/// Bytes that gzip makes no smaller, the same ones each time.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    });
    next.take(count).collect()
}

/// An image whose lowest layer is everybody's: its name at the slow registry, and its layers uncompressed.
fn image() -> (String, Image, Vec<Layer>) {
    let layers = vec![
        catalogue::base(),
        Layer::new().file("large", 0o644, noise(LARGE)),
        Layer::new().file("small", 0o644, noise(SMALL)),
    ];
    let image = Image::new(&layers, &json!({"Cmd": ["sleep", "60"]}));
    catalogue::storage().put("progress", "1", &image);
    (format!("{NARROW}/progress:1"), image, layers)
}

/// As the kubelet pulls, with logins that the node has not.
fn kubelet(world: &World, name: &str) -> String {
    let image = Some(ImageSpec { image: name.into(), ..Default::default() });
    let auth = AuthConfig { username: "u".into(), password: "p".into(), ..Default::default() };
    let request = PullImageRequest { image, auth: Some(auth), ..Default::default() };
    world.client.pull_image(request).unwrap().image_ref
}

fn operation(world: &World, name: &str) -> Option<Operation> {
    let all = world.client.list_operations(ListOperationsRequest {}).unwrap().operations;
    all.into_iter().find(|operation| operation.what == format!("pull {name}"))
}

fn callers(world: &World, name: &str, count: u32) {
    eventually("so many callers", || {
        operation(world, name).filter(|operation| operation.waiting_callers == count)
    });
}

fn podwright(world: &World, line: &str) -> Child {
    let (program, socket) = (place::binary("podwright"), world.path("state/podwright.sock"));
    let line = format!("P='{} --socket {}'; {line}", program.display(), socket.display());
    let mut command = world.command("sh");
    command.args(["-c", &line]).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What it said on both, once it has ended.
fn ended(child: Child) -> (bool, String) {
    let output = child.wait_with_output().unwrap();
    let both = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&both).into_owned())
}

/// Everything is here: the last message says so to the byte.
#[track_caller]
fn whole(last: &PullProgress, image: &Image, layers: &[Layer]) {
    assert_eq!(last.image_id, image.id());
    let sizes: Vec<u64> = image.layers.iter().map(|layer| layer.len() as u64).collect();
    let fetched: Vec<u64> = last.layers.iter().map(|layer| layer.fetched).collect();
    assert_eq!(fetched, sizes);
    let transfer = last.transfer.unwrap();
    let sum: u64 = sizes.iter().sum();
    assert_eq!((transfer.bytes_done, transfer.bytes_total), (sum, sum));
    assert_eq!((transfer.layers_done, transfer.layers_total), (3, 3));
    assert_eq!(last.layers[0].state(), LayerState::LayerAlreadyHere);
    for (told, layer) in last.layers.iter().zip(layers).skip(1) {
        assert_eq!(told.state(), LayerState::LayerDone);
        assert_eq!(told.unpacked, layer.tar().len() as u64);
    }
}

#[test]
fn many_look_on_at_the_kubelets_pull() {
    let world = World::start(Options::default());
    world.pull(BUSYBOX);
    let (name, image, layers) = image();
    let throttle = Throttle::new(&world, NARROW, HOST);
    // Enough for the documents and a part of the large layer.
    throttle.allow(LARGE / 4);
    throttle.during(|| {
        std::thread::scope(|scope| {
            let pull = scope.spawn(|| kubelet(&world, &name));
            callers(&world, &name, 1);
            // Opened and not read: nobody waits for it.
            let mut idle = world.client.view_pull(&name).unwrap();
            let mut viewers = [0, 1].map(|_| world.client.view_pull(&name).unwrap());
            for viewer in &mut viewers {
                let part = eventually("a part of the layer", || {
                    let now = viewer.look().unwrap().expect("it goes on");
                    now.layers.get(1).is_some_and(|layer| layer.unpacked > 0).then_some(now)
                });
                let large = &part.layers[1];
                assert!(part.joined && part.image_id.is_empty());
                assert!(large.fetched > 0 && large.fetched < large.size, "{part:?}");
                assert_eq!(large.state(), LayerState::LayerFetching);
                assert_eq!(part.layers[0].state(), LayerState::LayerAlreadyHere);
            }
            let (_, told) = ended(podwright(&world, "$P ops"));
            assert!(told.contains(" of ") && told.contains(" of 3 layers"), "{told}");

            // One goes away again.
            let interrupted = podwright(&world, &format!("$P pull {name}"));
            callers(&world, &name, 5);
            world.sh("kill -INT $(busybox pidof podwright)");
            let (good, told) = ended(interrupted);
            assert!(!good && told.contains("the daemon goes on"), "{told}");
            callers(&world, &name, 4);

            let lines = podwright(&world, &format!("$P pull {name}"));
            let bars = podwright(
                &world,
                &format!("script -qec \"stty cols 120; $P pull {name}\" /dev/null"),
            );
            callers(&world, &name, 6);
            throttle.allow(usize::MAX);
            assert_eq!(pull.join().unwrap(), image.id());
            eventually("the pull to be listed no more", || {
                operation(&world, &name).is_none().then_some(())
            });
            for viewer in viewers.iter_mut().chain([&mut idle]) {
                let mut last = None;
                while let Some(now) = viewer.look().unwrap() {
                    last = Some(now);
                }
                whole(&last.unwrap(), &image, &layers);
            }
            let (good, told) = ended(lines);
            assert!(good && told.contains(&image.id()), "{told}");
            assert_eq!(told.matches(" already here").count(), 1, "{told}");
            assert_eq!(told.matches(" fetched, ").count(), 2, "{told}");
            let (good, told) = ended(bars);
            assert!(good && told.contains(&image.id()), "{told}");
            for shown in ["already here", "begun by another", "4.20 MB", "/s", "pulled "] {
                assert!(told.contains(shown), "no {shown:?} in {told:?}");
            }
        });
    });
    let mut again = world.client.view_pull(&name.replace(NARROW, HOST)).unwrap();
    let mut last = None;
    while let Some(now) = again.look().unwrap() {
        last = Some(now);
    }
    let last = last.unwrap();
    assert!(!last.joined);
    let here = |layer: &e2e::node::PulledLayer| layer.state() == LayerState::LayerAlreadyHere;
    assert!(last.layers.iter().all(here), "{last:?}");
    world.remove_image(&image.id());
    world.remove_image(BUSYBOX);
    world.finish();
}
