//! What no pull can be faster than: inflating and hashing, each alone, from memory and without a registry, by the crates
//! that podwrightd uses. Making the files is measured beside it and not part of the limit: there are ways that take
//! less than this one.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, Timespec, Timestamps};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::content::Subject;
use crate::registry::Storage;

const PIECE: usize = 256 << 10;
const BLOCK: usize = 512;
const TRIES: usize = 3;

/// One image's parts, in one thread's time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Floor {
    inflate: Duration,
    hash: Duration,
    files: Duration,
    /// Of the layer that takes longest, the one part that nothing can divide.
    longest: Duration,
}

impl Floor {
    /// Of an image in the registry's storage; its files are made in `dir` and deleted.
    pub(super) fn of(subject: &Subject, storage: &Storage, dir: &Path) -> Self {
        let mut floor = Self::default();
        for digest in storage.layers(subject.name, "1") {
            let blob = storage.read(&digest);
            let (inflate, hash, tar) = inflate(subject, &blob);
            floor.inflate += inflate;
            floor.longest = floor.longest.max(inflate);
            floor.hash += hash + timed(|| Sha256::digest(&blob)).0;
            floor.files += files(&tar, dir);
        }
        floor
    }

    pub(super) fn processor(&self) -> Duration {
        self.inflate + self.hash
    }

    /// On that many cores.
    pub(super) fn wall(&self, cores: u32) -> Duration {
        (self.processor() / cores).max(self.longest)
    }

    pub(super) fn json(&self, cores: u32) -> Value {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        json!({
            "inflate_ms": ms(self.inflate), "sha256_ms": ms(self.hash), "files_ms": ms(self.files),
            "cpu_ms": ms(self.processor()), "wall_ms": ms(self.wall(cores)),
        })
    }
}

/// The processor's time, since the machine may have other things to do.
fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = used();
    let value = work();
    (used() - start, value)
}

/// By this thread.
fn used() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("the kernel keeps statistics of its scheduler"))
}

/// How long inflating and hashing take, piece by piece in the same memory as a pull does it, and what comes out.
fn inflate(subject: &Subject, blob: &[u8]) -> (Duration, Duration, Vec<u8>) {
    let (mut reader, mut tar) = (subject.packing.reader(blob), Vec::new());
    let (mut inflating, mut hashing) = (Duration::ZERO, Duration::ZERO);
    let (mut piece, mut hash) = (vec![0; PIECE], Sha256::new());
    loop {
        let (took, read) = timed(|| reader.read(&mut piece).expect("the layer is sound"));
        inflating += took;
        if read == 0 {
            return (inflating, hashing, tar);
        }
        hashing += timed(|| hash.update(&piece[..read])).0;
        tar.extend_from_slice(&piece[..read]);
    }
}

/// How long making the files takes: the least of some tries, as the kernel may have memory to find and others' writes
/// to end meanwhile.
fn files(tar: &[u8], dir: &Path) -> Duration {
    let tries = (0..TRIES).map(|_| {
        rustix::fs::sync();
        let took = timed(|| unpack(tar, dir)).0;
        std::fs::remove_dir_all(dir).expect("scratch can be written");
        took
    });
    tries.min().unwrap_or_default()
}

/// Makes the files of a layer that this bench made: plain headers, directories before what is in them.
fn unpack(tar: &[u8], dir: &Path) {
    std::fs::create_dir_all(dir).expect("scratch can be written");
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let root = rustix::fs::openat(CWD, dir, flags, Mode::empty()).expect("scratch can be read");
    let mut parent: (Vec<u8>, OwnedFd) = (Vec::new(), root.try_clone().expect("a descriptor"));
    let mut at = 0;
    while tar.len() - at > 2 * BLOCK {
        let header = &tar[at..at + BLOCK];
        let path = header[..100].split(|&byte| byte == 0).next().unwrap_or_default();
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let size = octal(&header[124..135]);
        let content = &tar[at + BLOCK..at + BLOCK + size];
        let slash = path.iter().rposition(|&byte| byte == b'/');
        let (above, name) = slash.map_or((&path[..0], path), |at| (&path[..at], &path[at + 1..]));
        if parent.0 != above {
            let fd = if above.is_empty() {
                root.try_clone().expect("a descriptor")
            } else {
                rustix::fs::openat(&root, above, flags, Mode::empty()).expect("it was made")
            };
            parent = (above.to_vec(), fd);
        }
        let mode = Mode::from(octal(&header[100..107]) as u32);
        if header[156] == b'5' {
            rustix::fs::mkdirat(&parent.1, name, mode).expect("scratch can be written");
        } else {
            file(parent.1.as_fd(), name, mode, content);
        }
        at += BLOCK + size.next_multiple_of(BLOCK);
    }
}

fn file(parent: impl AsFd, name: &[u8], mode: Mode, content: &[u8]) {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let file = rustix::fs::openat(parent, name, flags, mode).expect("scratch can be written");
    let mut rest = content;
    while !rest.is_empty() {
        let piece = rest.len().min(PIECE);
        let written = rustix::io::write(&file, &rest[..piece]).expect("scratch can be written");
        rest = &rest[written..];
    }
    let time = Timespec { tv_sec: 0o14_000_000_000, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::futimens(&file, &times).expect("scratch can be written");
}

fn octal(text: &[u8]) -> usize {
    text.iter()
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0, |n, b| n * 8 + usize::from(b - b'0'))
}
