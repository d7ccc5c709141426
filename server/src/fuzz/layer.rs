//! A layer's archive against a jail: nothing outside of the layer is touched.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use snapshotter::{Kind, LayerId, Limits, Snapshotter};
use tar_core::EntryType;
use tar_core::builder::EntryBuilder;

/// What a layer may become here.
const LIMITS: Limits =
    Limits { max_bytes: 1 << 20, max_inodes: 64, max_path: 1024, max_header: 8 << 10 };
const BLOCK: usize = 512;
/// Jails of this process.
static COUNT: AtomicU32 = AtomicU32::new(0);
/// Longest name and content of one entry.
const MAX_PART: usize = 64;

/// A first byte, 0 for an archive as it is, else for entries that become one: a byte for the kind, and name, link and
/// content, each with its length before it. Some bytes of names stand for more.
pub(super) fn extraction(data: &[u8]) {
    let Some((form, data)) = data.split_first() else { return };
    let jail = Jail::new();
    let tar = if *form == 0 { data.to_vec() } else { archive(data, &jail.bait) };
    let layer = extract(&jail, &tar);
    jail.is_untouched();
    if let Some(layer) = layer {
        // Merged with itself and copied, as a container's root would be.
        if let Ok(stack) = jail.snapshotter.settle(&[layer]) {
            jail.snapshotter.prepare("c", &stack).ok();
        }
        jail.is_untouched();
    }
}

fn extract(jail: &Jail, tar: &[u8]) -> Option<LayerId> {
    let mut ingest = jail.snapshotter.ingest(LIMITS).expect("the jail can be written");
    let extracted = ingest.extract(tar).ok()?;
    ingest.commit(&extracted.diff_id).ok()?;
    assert!(extracted.usage.inodes <= LIMITS.max_inodes + 1, "{:?}", extracted.usage);
    Some(extracted.diff_id)
}

/// A snapshotter, and beside it what archives try to reach.
struct Jail {
    dir: PathBuf,
    bait: PathBuf,
    snapshotter: Snapshotter,
    before: String,
}

impl Jail {
    fn new() -> Self {
        let base = if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" };
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("podwright-fuzz-{}-{number}", std::process::id());
        let dir = Path::new(base).join(name);
        fs::remove_dir_all(&dir).ok();
        let bait = dir.join("bait");
        fs::create_dir_all(&bait).expect("the jail can be written");
        fs::write(bait.join("file"), "untouched").expect("the jail can be written");
        let snapshotter = Snapshotter::open(&dir.join("root"), Kind::Native);
        let snapshotter = snapshotter.expect("the jail can be written");
        let before = seen(&bait);
        Self { dir, bait, snapshotter, before }
    }

    fn is_untouched(&self) {
        assert_eq!(seen(&self.bait), self.before, "the bait was touched");
        let beside = fs::read_dir(&self.dir).expect("the jail is there");
        let mut names: Vec<_> = beside.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        assert_eq!(names, ["bait", "root"], "something is beside the root");
    }
}

impl Drop for Jail {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.dir).ok();
    }
}

/// All that can be told of the bait.
fn seen(bait: &Path) -> String {
    let mut told = String::new();
    let entries = fs::read_dir(bait).expect("the bait is there").flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths.insert(0, bait.to_owned());
    for path in paths {
        let about = fs::symlink_metadata(&path).expect("the bait is there");
        let (mode, owner, links) = (about.mode(), (about.uid(), about.gid()), about.nlink());
        let text = fs::read_to_string(&path).unwrap_or_default();
        let times = (about.mtime(), about.mtime_nsec(), about.ctime(), about.ctime_nsec());
        writeln!(told, "{path:?} {mode:o} {owner:?} {links} {times:?} {text}").ok();
    }
    told
}

fn archive(mut data: &[u8], bait: &Path) -> Vec<u8> {
    let mut tar = Vec::new();
    while let Some((kind, rest)) = data.split_first() {
        data = rest;
        let (name, link, content) = (part(&mut data), part(&mut data), part(&mut data));
        entry(*kind, &text(name, bait), &text(link, bait), content, &mut tar);
    }
    tar.resize(tar.len() + 2 * BLOCK, 0);
    tar
}

fn part<'a>(data: &mut &'a [u8]) -> &'a [u8] {
    let Some((length, rest)) = data.split_first() else { return &[] };
    let (part, rest) = rest.split_at((usize::from(*length) % MAX_PART).min(rest.len()));
    *data = rest;
    part
}

/// The words that lead out, and those that mean something in a layer.
fn text(bytes: &[u8], bait: &Path) -> Vec<u8> {
    let bait = bait.as_os_str().as_encoded_bytes();
    let mut text = Vec::new();
    for byte in bytes {
        match byte {
            0 => text.extend_from_slice(bait),
            1 => text.extend_from_slice(b"../"),
            2 => text.extend_from_slice(b"../../../../../../../.."),
            3 => text.extend_from_slice(b".wh."),
            4 => text.extend_from_slice(b".wh..wh..opq"),
            5 => text.extend_from_slice(b"/proc/self/root"),
            6 => text.extend_from_slice(b"/file"),
            7 => text.extend_from_slice(b"/proc/self/cwd"),
            other => text.push(*other),
        }
    }
    text
}

fn entry(kind: u8, name: &[u8], link: &[u8], content: &[u8], tar: &mut Vec<u8>) {
    const KINDS: [EntryType; 8] = [
        EntryType::Regular,
        EntryType::Directory,
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::Continuous,
    ];
    let is = KINDS[usize::from(kind) % KINDS.len()];
    let content =
        if matches!(is, EntryType::Regular | EntryType::Continuous) { content } else { &[] };
    let mut entry = EntryBuilder::new_gnu();
    entry.path(name).entry_type(is).link_name(link);
    let mode = if kind & 0x80 == 0 { 0o755 } else { 0o4777 };
    let sized = entry.mode(mode).is_ok()
        && entry.size(content.len() as u64).is_ok()
        && entry.mtime(0).is_ok()
        && entry.uid(u64::from(kind >> 3 & 3)).is_ok()
        && entry.gid(0).is_ok();
    if !sized {
        return;
    }
    tar.extend_from_slice(&entry.finish_bytes());
    tar.extend_from_slice(content);
    tar.resize(tar.len().next_multiple_of(BLOCK), 0);
}
