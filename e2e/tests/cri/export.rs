//! Images whose registry is gone go out all the same, and come back as the same files.

use std::process::Output;

use e2e::image::catalogue::LAYERS;
use e2e::pod::container;
use e2e::registry::HOST;
use e2e::throttle::Throttle;
use e2e::{Options, World, place};

/// Where the registry is for a while.
const PASSING: &str = "127.0.0.1:5001";

fn podwright(world: &World, arguments: &[&str]) -> Output {
    let mut command = world.command(place::binary("podwright"));
    command.arg("--socket").arg(world.path("state/podwright.sock")).args(arguments);
    command.output().unwrap()
}

/// Exports and returns what was said beside.
fn export(world: &World, image: &str, file: &str) -> String {
    let output = podwright(world, &["image", "export", image, file]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    told
}

/// All that a container sees of what its image brought.
fn files(world: &World, container: &str) -> String {
    const TOLD: &str = "cd /; B=/bin/busybox; \
        $B find data bin www tmp -print0 | $B sort -z | $B xargs -0 stat -c '%n %f %u %g %t %T %Y %s %N'; \
        $B find data bin www -type f -print0 | $B sort -z | $B xargs -0 $B sha256sum; \
        $B stat -c %h data/* | $B sort";
    world.exec(container, TOLD)
}

#[test]
fn layers_without_blobs_are_made_of_their_files() {
    let world = World::start(Options::default());
    let name = LAYERS.replace(HOST, PASSING);
    let registry = Throttle::new(&world, PASSING, HOST);
    registry.allow(usize::MAX);
    let id = registry.during(|| world.pull(&name));
    let path = |name: &str| world.path(name).display().to_string();
    let (first, second, third) = (path("first.tar"), path("second.tar"), path("third.tar"));
    drop(registry);
    for file in [&first, &second] {
        let told = export(&world, &name, file);
        assert!(told.starts_with("the digests change: ") && told.contains("refused"), "{told}");
    }
    world.sh(&format!("cmp {first} {second}"));

    let output =
        podwright(&world, &["image", "import", "--name", "127.0.0.1:5001/again:1", &first]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let [again, new_id, _] = told.split_whitespace().collect::<Vec<_>>()[..] else {
        panic!("{told} {}", String::from_utf8_lossy(&output.stderr))
    };
    assert_ne!(new_id, id);
    let pod = world.pod("export");
    let made = [("was", name.as_str()), ("is", again)].map(|(container_name, image)| {
        let id = pod.run(container(container_name, image, &[]));
        files(&world, &id)
    });
    assert!(made[0].contains("data/null") && made[0].contains("data/link"), "{}", made[0]);
    assert_eq!(made[0], made[1]);
    pod.end();

    // What came of it is what goes out once more.
    let told = export(&world, again, &third);
    assert!(told.starts_with("the digests change: "), "{told}");
    world.sh(&format!(
        "for n in first third; do mkdir {0}/$n && tar -C {0}/$n -xf {0}/$n.tar; done; \
         diff -r {0}/first/blobs {0}/third/blobs",
        world.path("").display()
    ));
    world.remove_image(&id);
    world.remove_image(new_id);
    world.finish();
}
