//! Images whose every file can be checked from inside: three layers each, two of them shared.

use e2e::image::catalogue::base;
use e2e::image::{Image, Layer, digest};
use e2e::registry::{HOST, Storage};
use serde_json::json;

/// Files of a layer, and how large each is.
const FILES: usize = 12;
const SIZE: usize = 40_000;

pub(crate) fn first() -> String {
    format!("{HOST}/power-first:1")
}

pub(crate) fn second() -> String {
    format!("{HOST}/power-second:1")
}

/// Prints what differs from the image's own list of sums, and fails then.
pub(crate) const VERIFY: &str = "cd / && busybox sha256sum -c /sums/* | grep -v ': OK$'; \
     [ $(cat /sums/* | wc -l) = 24 ] && busybox sha256sum -s -c /sums/*";

pub(crate) fn put(storage: &Storage) {
    let shared = content("shared");
    for name in ["first", "second"] {
        let sleeps = json!({"Cmd": ["sleep", "3600"], "Env": ["PATH=/bin"]});
        let image = Image::new(&[base(), shared.clone(), content(name)], &sleeps);
        storage.put(&format!("power-{name}"), "1", &image);
    }
}

/// A layer of files that do not compress, with the list of their sums.
fn content(name: &str) -> Layer {
    let mut layer = Layer::new().dir(name, 0o755).dir("sums", 0o755);
    let mut sums = String::new();
    let mut dice = e2e::disk::Dice(name.len() as u64);
    for number in 0..FILES {
        let path = format!("{name}/{number}");
        let bytes: Vec<u8> = (0..SIZE / 8).flat_map(|_| dice.roll().to_le_bytes()).collect();
        sums += &format!("{}  {path}\n", digest(&bytes).replace("sha256:", ""));
        layer = layer.file(&path, 0o644, bytes);
    }
    layer.file(&format!("sums/{name}"), 0o644, sums)
}
