//! Archives that mean harm to a daemon's memory and disk: each ends in bounded memory with a clear word, and leaves
//! nothing.

use e2e::image::catalogue::storage;
use e2e::image::{self, CONFIG, Image, LAYER, MANIFEST, Streamed, digest};
use e2e::{Options, World};
use serde_json::{Value, json};
use tonic::Code;

const MIB: u64 = 1 << 20;
/// What any pull of a few layers may take beside what the daemon has.
const MEMORY: u64 = 96 * MIB;
/// What zstd's largest windows may take, of which there are two at a time.
const WINDOWS: u64 = 2 * 136 * MIB;

/// Pulls, and holds the daemon to `most` bytes more than it had.
fn pull_within(world: &World, most: u64, name: &str) -> Result<String, tonic::Status> {
    let process = format!("/proc/{}", world.daemon_pid().unwrap());
    // The peak is counted anew.
    std::fs::write(format!("{process}/clear_refs"), "5").unwrap();
    let memory = |line: &str| {
        let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
        let text = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
        text.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    };
    let before = memory("VmRSS:");
    let pulled = world.try_pull(name);
    let grown = memory("VmHWM:").saturating_sub(before);
    println!("{name}: {} MiB more at the most, of {}", grown / MIB, before / MIB);
    assert!(grown <= most, "{name}: {} MiB", grown / MIB);
    pulled
}

fn refused(world: &World, name: &str, saying: &str) {
    let told = pull_within(world, MEMORY, name).expect_err("this has to fail");
    assert_eq!(told.code(), Code::Unknown, "{told}");
    assert!(told.message().contains(saying), "{told} does not say {saying:?}");
}

/// An image of one layer in the registry.
fn put(name: &str, layer: Streamed) -> String {
    let image = layer.into_image();
    storage().put(name, "1", &image)
}

/// An empty file, or a hard link.
fn entry(name: &str, link: Option<&str>) -> [u8; 512] {
    let Some(target) = link else { return header(b'0', name, 0) };
    let mut header = header(b'1', name, 0);
    header[157..157 + target.len()].copy_from_slice(target.as_bytes());
    seal(&mut header);
    header
}

/// A header of `size` bytes of contents; `kind` as in tar.
fn header(kind: u8, name: &str, size: u64) -> [u8; 512] {
    let mut header = [0; 512];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, b"0000755\x000000000\x000000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"14000000000\0");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    seal(&mut header);
    header
}

/// Fills in the checksum.
fn seal(header: &mut [u8; 512]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// The records of an extended header, as an entry of their own.
fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut text = String::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (1..9).map(|n| rest + n).find(|l| l.to_string().len() + rest == *l).unwrap();
        text.push_str(&format!("{length} {key}={value}\n"));
    }
    let mut entry = header(b'x', "pax", text.len() as u64).to_vec();
    entry.extend_from_slice(text.as_bytes());
    entry.resize(entry.len().next_multiple_of(512), 0);
    entry
}

#[test]
fn a_million_entries() {
    let world = World::start(Options::default());
    let mut layer = Streamed::gzip();
    for dir in 0..1000 {
        layer.write(&header(b'5', &format!("d{dir}/"), 0));
        let target = format!("d{dir}/f1");
        for file in 1..1000 {
            // Most are links, for the sake of whoever waits for this test.
            let link = if file % 20 == 1 { None } else { Some(target.as_str()) };
            layer.write(&entry(&format!("d{dir}/f{file}"), link));
        }
    }
    layer.write(&[0; 1024]);
    let name = put("million", layer);
    pull_within(&world, MEMORY, &name).unwrap();
    let inodes = world.client.image_fs_info(Default::default()).unwrap().image_filesystems[0]
        .inodes_used
        .unwrap()
        .value;
    assert!(inodes > 50_000, "{inodes}");
    world.remove_image(&name);
    let left =
        |below: &str| std::fs::read_dir(world.path("root/snapshots").join(below)).unwrap().count();
    // Out of the way at once, and deleted in the background.
    e2e::within(std::time::Duration::from_secs(900), "the layer to be deleted", || {
        (left("layers") == 0 && left("trash") == 0).then_some(())
    });
    world.finish();
}

#[test]
fn sizes_that_are_claimed() {
    let world = World::start(Options::default());
    let claim = (100u64 << 30).to_string();
    let mut sparse = Streamed::gzip();
    sparse.write(&pax(&[
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", "holes"),
        ("GNU.sparse.realsize", &claim),
    ]));
    sparse.write(&header(b'0', "holes", 512));
    let mut map = b"1\n0\n0\n".to_vec();
    map.resize(512 + 1024, 0);
    sparse.write(&map);
    let name = put("holes", sparse);
    pull_within(&world, MEMORY, &name).unwrap();
    let used = world.client.image_fs_info(Default::default()).unwrap().image_filesystems[0]
        .used_bytes
        .unwrap()
        .value;
    assert!(used < MIB, "{used}");
    world.remove_image(&name);

    let mut short = Streamed::gzip();
    short.write(&pax(&[("size", &claim)]));
    short.write(&header(b'0', "short", 0));
    short.write(&[7; 4096]);
    refused(&world, &put("short", short), "the stream ends within an entry's contents");
    world.finish();
}

#[test]
fn bombs() {
    let world = World::start(Options::default());
    let zeros = vec![0; 16 << 20];
    // One in a file, and one after the end of the archive, where no entry is.
    for (tag, layer) in [("gzip-file", Streamed::gzip()), ("zstd-rest", Streamed::zstd(20))] {
        let mut layer = layer;
        match tag {
            "gzip-file" => layer.write(&header(b'0', "zeros", (8 << 30) - 1)),
            _ => layer.write(&[0; 1024]),
        }
        for _ in 0..66 {
            layer.write(&zeros);
        }
        refused(&world, &put(tag, layer), "inflates to more than 1073741824 bytes");
    }
    world.finish();
}

#[test]
fn windows_of_zstd() {
    let world = World::start(Options::default());
    let window = [0x28, 0xb5, 0x2f, 0xfd, 0, (31 - 10) << 3];
    let frame = [&window[..], &[1, 0, 0]].concat();
    let endless = Image { layers: vec![frame], ..layerless() };
    let name = storage().put("window", "1", &with_manifest(endless));
    refused(&world, &name, "too much memory");
    // All at once, each with as much as any may ask for.
    let layers = (0..6u8).map(|number| {
        let mut layer = Streamed::zstd(27);
        layer.write(&[0; 1024]);
        let noise = vec![number; 15 << 20];
        (0..10).for_each(|_| layer.write(&noise));
        layer
    });
    let name = storage().put("windows", "1", &Streamed::image(layers.collect()));
    pull_within(&world, WINDOWS + MEMORY, &name).unwrap();
    world.remove_image(&name);
    world.finish();
}

/// Headers are read whole, so their size is what has to be bounded.
#[test]
fn names_of_100_megabytes() {
    let world = World::start(Options::default());
    for (tag, kind) in [("pax", b'x'), ("global", b'g'), ("name", b'L'), ("link", b'K')] {
        let mut layer = Streamed::gzip();
        layer.write(&header(kind, "long", 100 << 20));
        layer.write(b"104857600 path=");
        (0..100).for_each(|_| layer.write(&[b'a'; 1 << 20]));
        layer.write(&header(b'0', "file", 0));
        let name = put(&format!("long-{tag}"), layer);
        let told = pull_within(&world, MEMORY, &name).expect_err("this has to fail");
        assert_eq!(told.code(), Code::Unknown, "{told}");
        println!("{told}");
    }
    world.finish();
}

#[test]
fn directories_in_directories() {
    let world = World::start(Options::default());
    let mut layer = Streamed::gzip();
    let path = "d/".repeat(1000);
    layer.write(&pax(&[("path", &format!("{path}file"))]));
    layer.write(&header(b'0', "file", 0));
    layer.write(&[0; 1024]);
    let name = put("deep", layer);
    pull_within(&world, MEMORY, &name).unwrap();
    world.remove_image(&name);
    // Each symlink leads a thousand directories further down.
    let mut layer = Streamed::gzip();
    for step in 0..100 {
        let from = if step == 0 { String::new() } else { format!("s{}/", step - 1) };
        layer.write(&pax(&[("path", &format!("{from}{path}file"))]));
        layer.write(&header(b'0', "file", 0));
        layer.write(&pax(&[("linkpath", &format!("{from}{path}"))]));
        layer.write(&header(b'2', &format!("s{step}"), 0));
    }
    layer.write(&[0; 1024]);
    refused(&world, &put("deeper", layer), "a path too deep");
    world.finish();
}

#[test]
fn manifests_and_configs_without_measure() {
    let world = World::start(Options::default());
    let (d, size) = (format!("sha256:{}", "5".repeat(64)), 7);
    let layer = json!({"mediaType": LAYER, "digest": d, "size": size});
    let of = |config: Value, layers: usize| {
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": vec![&layer; layers]})
            .to_string()
    };
    let config = json!({"mediaType": CONFIG, "digest": d, "size": size});
    let name = storage().manifest("many-layers", "1", of(config, 10_000).as_bytes());
    refused(&world, &name, "more than 400 layers");
    let config = vec![b' '; 100 << 20];
    let described = json!({"mediaType": CONFIG, "digest": digest(&config), "size": config.len()});
    storage().blob("large-config", &config);
    let name = storage().manifest("large-config", "1", of(described, 1).as_bytes());
    refused(&world, &name, "the config is larger than");
    // The manifest says that it is small.
    let described = json!({"mediaType": CONFIG, "digest": digest(&config), "size": 1000});
    let name = storage().manifest("large-config", "2", of(described, 1).as_bytes());
    refused(&world, &name, "bytes");
    world.finish();
}

/// Layers of nothing: no bytes at all, and no entries.
#[test]
fn layers_of_nothing() {
    let world = World::start(Options::default());
    let empty = Image { layers: vec![Vec::new()], ..layerless() };
    let name = storage().put("nothing", "1", &with_manifest(empty));
    pull_within(&world, MEMORY, &name).unwrap();
    let name = put("no-entries", Streamed::gzip());
    pull_within(&world, MEMORY, &name).unwrap();
    world.remove_image(&name);
    world.finish();
}

/// An image that says that its one layer is empty.
fn layerless() -> Image {
    let config = json!({
        "architecture": image::architecture(), "os": "linux", "config": {"Cmd": ["/x"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(b"")]},
    });
    Image { config: config.to_string().into_bytes(), layers: Vec::new(), manifest: Vec::new() }
}

fn with_manifest(image: Image) -> Image {
    Image { manifest: image::manifest(&image.config, &image.layers), ..image }
}
