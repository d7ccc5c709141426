//! Layers that are too large to hold: compressed and summed up as they are written.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Image, architecture, manifest};

/// A layer's tar stream on its way into a blob.
pub struct Streamed {
    blob: Blob,
    diff_id: Sha256,
}

enum Blob {
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl std::fmt::Debug for Streamed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Streamed")
    }
}

impl Streamed {
    pub fn gzip() -> Self {
        let encoder = GzEncoder::new(Vec::new(), Compression::fast());
        Self { blob: Blob::Gzip(encoder), diff_id: Sha256::new() }
    }

    /// A frame whose decoder needs a window of two to the power of `window_log`.
    pub fn zstd(window_log: u32) -> Self {
        let mut encoder =
            zstd::stream::write::Encoder::new(Vec::new(), 1).expect("zstd has memory");
        encoder.window_log(window_log).expect("zstd knows such windows");
        Self { blob: Blob::Zstd(encoder), diff_id: Sha256::new() }
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.diff_id.update(bytes);
        let written = match &mut self.blob {
            Blob::Gzip(encoder) => encoder.write_all(bytes),
            Blob::Zstd(encoder) => encoder.write_all(bytes),
        };
        written.expect("memory takes every write");
    }

    fn finish(self) -> (Vec<u8>, String) {
        let blob = match self.blob {
            Blob::Gzip(encoder) => encoder.finish(),
            Blob::Zstd(encoder) => encoder.finish(),
        };
        let hex: String = self.diff_id.finalize().iter().map(|b| format!("{b:02x}")).collect();
        (blob.expect("memory takes every write"), format!("sha256:{hex}"))
    }

    /// An image of these layers, which runs nothing.
    pub fn image(layers: Vec<Self>) -> Image {
        let (layers, diff_ids): (Vec<_>, Vec<_>) = layers.into_iter().map(Self::finish).unzip();
        let config = json!({
            "architecture": architecture(), "os": "linux", "config": {"Cmd": ["/none"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string().into_bytes();
        let manifest = manifest(&config, &layers);
        Image { config, layers, manifest }
    }

    /// An image of this layer alone.
    pub fn into_image(self) -> Image {
        Self::image(vec![self])
    }
}
