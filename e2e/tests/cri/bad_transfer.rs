//! Registries whose bytes do not come as they should: too slowly, not all of them, or not the right ones.

use e2e::image::{Image, Layer, digest};
use e2e::standin::{StandIn, Trick};
use e2e::{Options, World};
use serde_json::json;
use tonic::Code;

const PORT: u16 = 5001;
const OTHER_PORT: u16 = 5002;
/// Where tricks happen: past what any buffer holds, before the end.
const MIDDLE: usize = 1 << 20;

/// A world whose daemon gives up on a download that brings next to nothing for a second.
fn world() -> World {
    let config = "[registry]\nstall_seconds = 1\n".into();
    World::start(Options { config, ..Options::default() })
}

/// An image with a layer that compresses little, and that layer's digest.
fn image(seed: &str) -> (Image, String) {
    let noise: String = (0..48_000).map(|n| digest(format!("{seed} {n}").as_bytes())).collect();
    let layer = Layer::new().file("noise", 0o644, noise);
    let image = Image::new(&[layer], &json!({"Cmd": ["/noise"]}));
    let digest = digest(&image.layers[0]);
    assert!(image.layers[0].len() > 3 * MIDDLE / 2, "{} bytes", image.layers[0].len());
    (image, digest)
}

/// One pull of an image whose layer the registry answers for so, one trick a request.
fn pulled(tricks: &[Trick], wholes: bool) -> Vec<String> {
    let world = world();
    let registry = StandIn::start(&world, PORT);
    let (image, layer) = image("noise");
    let name = registry.put("image", &image);
    tricks.iter().for_each(|trick| registry.once(&layer, *trick));
    if wholes {
        registry.serve_wholes();
    }
    assert_eq!(world.try_pull(&name).unwrap(), image.id());
    // The config's is the first.
    let seen = registry.seen()[1..].to_vec();
    drop(registry);
    world.remove_image(&name);
    world.finish();
    seen
}

#[test]
fn one_that_is_cut_goes_on_where_it_ended() {
    let seen = pulled(&[Trick::Cut(MIDDLE), Trick::Cut(1000)], false);
    let rest = [MIDDLE, MIDDLE + 1000].map(|from| format!("bytes={from}-"));
    assert_eq!(seen, [String::new(), rest[0].clone(), rest[1].clone()]);
}

#[test]
fn one_that_is_cut_begins_again_where_parts_are_answered_with_the_whole() {
    let seen = pulled(&[Trick::Cut(MIDDLE)], true);
    assert_eq!(seen, [String::new(), format!("bytes={MIDDLE}-")]);
}

#[test]
fn one_that_stalls_and_one_that_trickles_are_taken_up_again() {
    let seen = pulled(&[Trick::Stall(MIDDLE), Trick::Trickle(10_000)], false);
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert_eq!(seen[1], format!("bytes={MIDDLE}-"));
}

#[test]
fn one_that_only_ever_trickles_is_given_up() {
    let world = world();
    let registry = StandIn::start(&world, PORT);
    let (image, layer) = image("trickle");
    let name = registry.put("image", &image);
    registry.always(&layer, Trick::Trickle(0));
    let told = world.try_pull(&name).unwrap_err();
    assert_eq!(told.code(), Code::Unknown, "{told}");
    assert!(told.message().starts_with("RegistryUnavailable: "), "{told}");
    assert!(told.message().contains("bytes came in"), "{told}");
    drop(registry);
    world.finish();
}

#[test]
fn a_part_that_is_wrong_is_told_and_another_mirror_asked() {
    let world = world();
    let (bad, good) = (StandIn::start(&world, PORT), StandIn::start(&world, OTHER_PORT));
    let (image, layer) = image("corrupt");
    let name = bad.put("image", &image);
    good.put("image", &image);
    // Only the second part is wrong.
    bad.once(&layer, Trick::Cut(MIDDLE));
    bad.once(&layer, Trick::Corrupt(MIDDLE + 5000));
    let told = world.try_pull(&name).unwrap_err();
    assert_eq!(told.code(), Code::Unknown, "{told}");
    assert!(told.message().contains("instead"), "{told}");
    let dir = world.path("certs.d/mirrored.test");
    std::fs::create_dir_all(&dir).unwrap();
    let hosts = format!(
        "server = \"http://{}\"\n[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
        good.host, bad.host
    );
    std::fs::write(dir.join("hosts.toml"), hosts).unwrap();
    bad.once(&layer, Trick::Corrupt(MIDDLE));
    assert_eq!(world.try_pull("mirrored.test/image:1").unwrap(), image.id());
    assert!(good.seen().contains(&String::new()), "{:?}", good.seen());
    drop((bad, good));
    world.remove_image("mirrored.test/image:1");
    world.finish();
}
