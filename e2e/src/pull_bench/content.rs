//! What is pulled: images that are the same in every run, of files such as images have, which compress about 2.5:1.

use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use super::random::Random;
use crate::image::{CONFIG, Image, LAYER, Layer, MANIFEST, architecture, catalogue, digest};
use crate::registry::{HOST, Storage};

const MB: usize = 1 << 20;
/// Whoever changes what is made below counts this up.
const EDITION: u32 = 2;
/// What build tools choose if nobody says otherwise.
const GZIP_LEVEL: u32 = 6;
const ZSTD_LEVEL: i32 = 3;
/// What packages bring: of a hundred files so many are small, so many of middle size; the rest are large.
const SMALL: (u64, usize, usize) = (90, 128, 32 << 10);
const MIDDLE: (u64, usize, usize) = (99, 32 << 10, MB);
const LARGE: (usize, usize) = (MB, 8 * MB);
/// Files of one directory.
const FILES: usize = 24;

/// How the layers of an image are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Zstd,
}

/// One image in the registry.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) packing: Packing,
    layers: usize,
    /// Of each layer, not compressed.
    bytes: usize,
}

const fn subject(
    name: &'static str,
    what: &'static str,
    packing: Packing,
    (layers, bytes): (usize, usize),
) -> Subject {
    Subject { name, what, packing, layers, bytes }
}

const ONE: (usize, usize) = (1, 500 * MB);
const EIGHT: (usize, usize) = (8, 75 * MB);
const FORTY: (usize, usize) = (40, 2 * MB);

/// All of them.
pub(super) const SUBJECTS: [Subject; 6] = [
    subject("one-gzip", "one layer, 200 MB as gzip", Packing::Gzip, ONE),
    subject("eight-gzip", "8 layers, 600 MB, gzip", Packing::Gzip, EIGHT),
    subject("forty-gzip", "40 small layers, gzip", Packing::Gzip, FORTY),
    subject("one-zstd", "one layer, as zstd", Packing::Zstd, ONE),
    subject("eight-zstd", "8 layers, 600 MB, zstd", Packing::Zstd, EIGHT),
    subject("forty-zstd", "40 small layers, zstd", Packing::Zstd, FORTY),
];

impl Subject {
    pub(super) fn reference(&self) -> String {
        format!("{HOST}/{}:1", self.name)
    }

    /// Puts the image into a registry, unless an earlier run has.
    pub(super) fn store(&self, storage: &Storage, dir: &Path) {
        let done = dir.join(format!("{}.{EDITION}", self.name));
        if done.exists() {
            return;
        }
        println!("making {}", self.name);
        storage.put(self.name, "1", &self.image());
        std::fs::write(done, "").expect("the storage can be written");
    }

    fn image(&self) -> Image {
        let seed = self.layers as u64;
        let tars = (0..self.layers).map(|n| tar(seed << 32 | n as u64, self.bytes));
        let (diff_ids, layers): (Vec<_>, Vec<_>) =
            tars.map(|tar| (digest(&tar), self.packing.pack(&tar))).unzip();
        let config = json!({
            "architecture": architecture(), "os": "linux", "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string().into_bytes();
        let describe = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()});
        let layer_type = self.packing.media_type();
        let of_layers: Vec<_> = layers.iter().map(|layer| describe(&layer_type, layer)).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": describe(CONFIG, &config), "layers": of_layers,
        });
        Image { config, layers, manifest: manifest.to_string().into_bytes() }
    }
}

impl Packing {
    fn media_type(self) -> String {
        match self {
            Self::Gzip => LAYER.into(),
            Self::Zstd => LAYER.replace("gzip", "zstd"),
        }
    }

    fn pack(self, tar: &[u8]) -> Vec<u8> {
        use std::io::Write as _;
        match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL));
                encoder.write_all(tar).expect("memory takes every write");
                encoder.finish().expect("memory takes every write")
            }
            Self::Zstd => zstd::encode_all(tar, ZSTD_LEVEL).expect("memory can be read"),
        }
    }

    pub(super) fn reader<'a>(self, blob: &'a [u8]) -> Box<dyn std::io::Read + 'a> {
        match self {
            Self::Gzip => Box::new(flate2::bufread::GzDecoder::new(blob)),
            Self::Zstd => {
                Box::new(zstd::stream::read::Decoder::with_buffer(blob).expect("zstd has memory"))
            }
        }
    }
}

/// Puts the image of the pods that start beside a pull into a registry.
pub(super) fn store_busybox(storage: &Storage) {
    let config = json!({"Cmd": ["sleep", "3600"], "Env": ["PATH=/bin"]});
    storage.put("busybox", "1", &Image::new(&[catalogue::base()], &config));
}

/// A layer of files in directories.
fn tar(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut layer = Layer::new().dir("usr", 0o755).dir("usr/lib", 0o755);
    let (mut made, mut files) = (0, 0);
    while made < bytes {
        let dir = format!("usr/lib/package-{seed:x}-{}", files / FILES);
        if files % FILES == 0 {
            layer = layer.dir(&dir, 0o755);
        }
        let size = random.size().min(bytes - made).max(1);
        let mode = if random.below(8) == 0 { 0o755 } else { 0o644 };
        layer = layer.file(&format!("{dir}/file-{files}"), mode, random.text(size));
        made += size;
        files += 1;
    }
    layer.tar()
}

impl Random {
    fn size(&mut self) -> usize {
        let (from, to) = match self.below(100) {
            class if class < SMALL.0 => (SMALL.1, SMALL.2),
            class if class < MIDDLE.0 => (MIDDLE.1, MIDDLE.2),
            _ => LARGE,
        };
        // As many between one power of two and the next as between any others.
        let doublings = (to / from).ilog2();
        let low = from << self.below(u64::from(doublings));
        low + self.below(low as u64) as usize
    }
}
