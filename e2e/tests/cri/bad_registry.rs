//! Registries that stall: a pull ends by itself with the reason, others are not held up, and a retry joins.

use std::time::{Duration, Instant};

use e2e::cri::*;
use e2e::image::catalogue::{BUSYBOX, LAYERS};
use e2e::pod::container;
use e2e::{Options, World, eventually};
use tonic::Code;

const PORT: u16 = 5998;

/// A registry in a world that says nothing, however many ask.
fn mute(world: &World) -> std::process::Child {
    let mute = world
        .command("busybox")
        .args(["nc", "-ll", "-p", &PORT.to_string(), "-e", "sleep", "1001"])
        .spawn()
        .unwrap();
    eventually("the mute registry", || world.listens(PORT).then_some(()));
    mute
}

fn pull(world: &World, patience: Duration) -> Result<PullImageResponse, tonic::Status> {
    let name = format!("127.0.0.1:{PORT}/mute:1");
    let image = Some(ImageSpec { image: name, ..Default::default() });
    world.client.pull_image_within(patience, PullImageRequest { image, ..Default::default() })
}

#[test]
fn one_that_says_nothing_holds_up_nobody_else() {
    let world = World::start(Options::default());
    let mut registry = mute(&world);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| pull(&world, Duration::from_secs(2)));
        world.pull(BUSYBOX);
        let pod = world.pod("beside");
        let id = pod.run(container("c", BUSYBOX, &[]));
        world.exec(&id, "true");
        world.pull(LAYERS);
        pod.end();
        let told = first.join().unwrap().unwrap_err();
        assert_eq!(told.code(), Code::DeadlineExceeded, "{told}");
    });
    // The retry joins or begins anew, and in either case comes to an end.
    let start = Instant::now();
    let told = pull(&world, Duration::from_secs(150)).unwrap_err();
    println!("after {:?}: {told}", start.elapsed());
    assert_eq!(told.code(), Code::Unknown, "{told}");
    assert!(told.message().starts_with("RegistryUnavailable: "), "{told}");
    let _ = registry.kill();
    world.sh(
        "kill $(busybox ps | grep -e '[s]leep 1001' -e '[n]c -ll' | cut -c1-5) 2>/dev/null; true",
    );
    let _ = registry.wait();
    world.finish();
}
