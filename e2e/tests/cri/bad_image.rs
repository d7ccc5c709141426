//! Images that are wrong, and registries that fail: a clear error, the right code, nothing left.

use e2e::cri::*;
use e2e::image::catalogue::{self, FOREIGN, storage};
use e2e::image::{self, Image, Layer, digest, gzip};
use e2e::registry::HOST;
use e2e::{Options, World};
use serde_json::{Value, json};
use tonic::Code;

/// A pull of `reference` fails with code Unknown, since the kubelet shows only that one's text as it is.
fn fails(world: &World, reference: &str, saying: &[&str]) {
    let status = world.try_pull(reference).expect_err("this has to fail");
    let text = status.message().to_lowercase();
    assert_eq!(status.code(), Code::Unknown, "{status}");
    assert!(saying.iter().any(|part| text.contains(part)), "{text:?} says none of {saying:?}");
    let image = Some(ImageSpec { image: reference.into(), ..Default::default() });
    let status = world.client.image_status(ImageStatusRequest { image, verbose: false });
    assert!(status.unwrap().image.is_none());
}

fn good() -> Image {
    let marker = Layer::new().file("marker", 0o644, "x".repeat(5000));
    Image::new(&[catalogue::base(), marker], &json!({"Cmd": ["sleep", "1"]}))
}

/// Puts an image whose last layer's blob is what `change` makes of it, under its true digest.
fn with_blob(name: &str, change: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let image = good();
    let reference = storage().put(name, "1", &image);
    // In a repository of its own content: the marker differs, so no other test reads this blob.
    let layer = image.layers.last().unwrap();
    storage().lie(name, &digest(layer), &change(layer));
    reference
}

fn unique(name: &str) -> Image {
    let marker = Layer::new().file(name, 0o644, name.repeat(2000));
    Image::new(&[catalogue::base(), marker], &json!({"Cmd": ["sleep", "1"]}))
}

/// The image's manifest, changed, under `name:1`.
fn with_manifest(name: &str, change: impl FnOnce(&mut Value)) -> String {
    let image = unique(name);
    storage().put(name, "good", &image);
    let mut manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    change(&mut manifest);
    storage().manifest(name, "1", manifest.to_string().as_bytes())
}

#[test]
fn a_corrupt_layer() {
    let world = World::start(Options::default());
    let name = with_blob("corrupt", |layer| {
        let mut bytes = layer.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        bytes
    });
    fails(&world, &name, &["instead"]);
    world.finish();
}

#[test]
fn a_layer_that_is_another() {
    let world = World::start(Options::default());
    let image = unique("another");
    let name = storage().put("another", "1", &image);
    let mut other = gzip(&Layer::new().file("other", 0o644, "other").tar());
    let layer = image.layers.last().unwrap();
    other.resize(layer.len(), 0);
    storage().lie("another", &digest(layer), &other);
    fails(&world, &name, &["instead"]);
    world.finish();
}

#[test]
fn a_layer_that_ends_early() {
    let world = World::start(Options::default());
    let image = unique("truncated");
    let name = storage().put("truncated", "1", &image);
    let layer = image.layers.last().unwrap();
    storage().lie("truncated", &digest(layer), &layer[..layer.len() / 2]);
    fails(&world, &name, &["size", "bytes", "truncated", "end", "short", "digest"]);
    world.finish();
}

#[test]
fn a_diff_id_that_is_another() {
    let world = World::start(Options::default());
    let image = unique("diff-id");
    let mut config: Value = serde_json::from_slice(&image.config).unwrap();
    config["rootfs"]["diff_ids"][1] = json!(format!("sha256:{}", "7".repeat(64)));
    let config = config.to_string().into_bytes();
    let manifest = image::manifest(&config, &image.layers);
    let name = storage().put("diff-id", "1", &Image { config, layers: image.layers, manifest });
    fails(&world, &name, &["the image config says"]);
    world.finish();
}

#[test]
fn a_manifest_under_a_wrong_digest() {
    let world = World::start(Options::default());
    let image = unique("manifest-digest");
    storage().put("manifest-digest", "1", &image);
    let asked = format!("sha256:{}", "a".repeat(64));
    let hex = "a".repeat(64);
    // The registry finds other bytes where it looks for that digest.
    storage().lie("manifest-digest", &asked, &image.manifest);
    storage().alias("manifest-digest", &hex);
    let status = world.try_pull(&format!("{HOST}/manifest-digest@{asked}")).unwrap_err();
    assert_eq!(status.code(), Code::Unknown, "{status}");
    world.finish();
}

#[test]
fn a_gzip_bomb() {
    let world = World::start(Options::default());
    // 2 GiB of zeros in 2 MB: beyond any ratio that an honest layer of this size has.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let chunk = vec![0u8; 1 << 20];
    for _ in 0..2048 {
        std::io::Write::write_all(&mut encoder, &chunk).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    let name = with_manifest("bomb", |manifest| {
        manifest["layers"][1] = json!({
            "mediaType": image::LAYER, "digest": digest(&bomb), "size": bomb.len(),
        });
    });
    storage().blob("bomb", &bomb);
    fails(&world, &name, &["inflates to more"]);
    let size = format!("du -sk {} 2>/dev/null; true", world.path("root").display());
    // Out of the way at once, and deleted in the background.
    e2e::eventually("what was unpacked of it to go", || {
        let used: u64 = world.sh(&size).split_whitespace().next()?.parse().ok()?;
        (used < 300_000).then_some(())
    });
    world.finish();
}

#[test]
fn a_layer_larger_than_its_manifest_says() {
    let world = World::start(Options::default());
    let name = with_manifest("oversized", |manifest| {
        manifest["layers"][1]["size"] = json!(10);
    });
    fails(&world, &name, &["size", "bytes", "larger", "length"]);
    world.finish();
}

#[test]
fn an_index_without_this_platform() {
    let world = World::start(Options::default());
    fails(&world, FOREIGN, &["no image for linux/"]);
    world.finish();
}

#[test]
fn layers_that_climb_out() {
    let world = World::start(Options::default());
    let outside = world.path("outside");
    for (name, layer) in [
        ("dotdot", Layer::new().file("../../../../../../tmp/climbed", 0o644, "x")),
        (
            "symlink",
            Layer::new().symlink("esc", outside.to_str().unwrap()).file("esc/climbed", 0o644, "x"),
        ),
        ("hardlink", Layer::new().hardlink("passwd", "../../../../../../../etc/passwd")),
    ] {
        let name = format!("climb-{name}");
        let image = Image::new(&[catalogue::base(), layer], &json!({"Cmd": ["sleep", "1"]}));
        let reference = storage().put(&name, "1", &image);
        // Refused, or kept inside: either is right.
        let _ = world.try_pull(&reference);
        assert!(!outside.join("climbed").exists());
        assert!(!world.seen("/tmp/climbed").exists());
    }
    world.finish();
}

#[test]
fn what_is_not_there() {
    let world = World::start(Options::default());
    fails(&world, &format!("{HOST}/no-such-image:1"), &["not found", "unknown"]);
    let nobody = world.try_pull("127.0.0.1:9/nobody:1").unwrap_err();
    assert_eq!(nobody.code(), Code::Unknown, "{nobody}");
    assert!(nobody.message().starts_with("RegistryUnavailable: "), "{nobody}");
    for reference in ["", "127.0.0.1:5000/UPPER:1", "a b", "127.0.0.1:5000/busybox@sha256:short"] {
        let status = world.try_pull(reference).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{reference:?}: {status}");
    }
    world.finish();
}

#[test]
fn manifests_that_are_none() {
    let world = World::start(Options::default());
    let mut nested = Vec::from(*br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{}}"#);
    nested.push(b'\n');
    let broken = storage().manifest("broken", "1", &nested);
    fails(&world, &broken, &["manifest", "missing", "config"]);
    world.finish();
}

/// The caller's deadline ends its wait, not by hanging; a pull that nobody waits for leaves nothing half-done.
#[test]
fn a_registry_that_says_nothing() {
    let world = World::start(Options::default());
    let mut mute = world
        .command("busybox")
        .args(["nc", "-ll", "-p", "5999", "-e", "sleep", "60"])
        .spawn()
        .unwrap();
    e2e::eventually("the mute registry", || world.listens(5999).then_some(()));
    let image = Some(ImageSpec { image: "127.0.0.1:5999/mute:1".into(), ..Default::default() });
    let request = PullImageRequest { image, ..Default::default() };
    let status =
        world.client.pull_image_within(std::time::Duration::from_secs(2), request).unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains("pull "), "the daemon says what it does: {status}");
    world.sh("kill $(busybox pidof sleep nc) 2>/dev/null; true");
    let _ = mute.kill();
    let _ = mute.wait();
}
