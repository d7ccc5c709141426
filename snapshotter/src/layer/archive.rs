//! A layer as an archive again: what is unpacked from it is the same layer, though its bytes are not those that the
//! layer once came as.
//!
//! The same tree always gives the same bytes: names are sorted, and nothing is written that the tree does not hold.
//! What leans on the layers below leans on them again: directories that were made up are left out, and hard links
//! that wait for a file below come last. Extended attributes are those that an image may bring.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;
use tar_core::builder::EntryBuilder;
use tar_core::{EntryType, SparseEntry};

use super::entry::is_welcome;
use super::{Marks, OPAQUE, PREFIX, lean};
use crate::walk::{join, open_dir, open_root, xattrs};
use crate::{Error, LayerId, Result, Snapshotter};

const BLOCK: u64 = 512;
const CHUNK: usize = 256 << 10;
/// What `st_blocks` counts.
const STAT_BLOCK: u64 = 512;
/// Regions of a sparse file that are told apart; one with more is written as it reads.
const MAX_REGIONS: usize = 4096;
/// A sparse file's bytes beyond this have no room in its header.
const MAX_SPARSE: u64 = 4 << 30;

impl Snapshotter {
    /// Writes the layer as a tar stream, uncompressed: owners, modes, times, attributes, devices, hard links, holes
    /// and what it hides below. It must be one that was unpacked, not one that [`Snapshotter::settle`] made.
    pub fn archive(&self, layer: &LayerId, out: impl Write) -> Result<()> {
        if !self.has(layer) {
            return Err(Error::MissingLayer(layer.to_string()));
        }
        let lean = lean::read(&self.layer(layer))?;
        let root = open_root(&self.tree(layer))?;
        let (marks, made_up) = (self.marks(), &lean.made_up);
        let mut archive = Archive { root, marks, made_up, out, links: HashMap::new() };
        archive.tree()?;
        for (path, target) in &lean.links {
            archive.link(path, target)?;
        }
        archive.bytes(&[0; 2 * BLOCK as usize])
    }
}

struct Archive<'a, W> {
    root: OwnedFd,
    marks: Marks,
    made_up: &'a BTreeSet<Vec<u8>>,
    out: W,
    /// Where a file with several names was first, by inode.
    links: HashMap<u64, Vec<u8>>,
}

/// A directory under way: its path, and the names in it that are left, the last one first.
type Level = (Vec<u8>, Vec<Vec<u8>>);

impl<W: Write> Archive<'_, W> {
    fn tree(&mut self) -> Result<()> {
        let stat = rustix::fs::fstat(&self.root).map_err(Error::at("stat", b""))?;
        let mut levels = vec![self.directory(Vec::new(), &stat)?];
        while let Some((base, names)) = levels.last_mut() {
            let Some(name) = names.pop() else {
                levels.pop();
                continue;
            };
            let path = join(base, &name);
            let parent = open_dir(&self.root, base).map_err(Error::at("open", base))?;
            let stat = rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW);
            let stat = stat.map_err(Error::at("stat", &path))?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                levels.push(self.directory(path, &stat)?);
            } else {
                self.entry(&parent, &name, &path, &stat)?;
            }
        }
        Ok(())
    }

    /// Writes the directory itself, and what it hides.
    fn directory(&mut self, path: Vec<u8>, stat: &Stat) -> Result<Level> {
        let dir = open_dir(&self.root, &path).map_err(Error::at("open", &path))?;
        if !self.made_up.contains(&path) {
            let name = if path.is_empty() { b"./".to_vec() } else { join(&path, b"") };
            let mut header = header(&name, EntryType::Directory, stat, &path)?;
            attributes(&mut header, dir.as_fd(), b".", &path)?;
            self.bytes(&header.finish_bytes())?;
        }
        let opaque = self.marks == Marks::Overlay
            && self.marks.is_opaque(dir.as_fd(), b"").map_err(Error::at("look at", &path))?;
        if opaque {
            self.mark(&join(&path, OPAQUE))?;
        }
        let mut names = Vec::new();
        for entry in Dir::read_from(&dir).map_err(Error::at("read", &path))? {
            let entry = entry.map_err(Error::at("read", &path))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok((path, names))
    }

    fn entry(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8], stat: &Stat) -> Result<()> {
        if self.marks.is_whiteout(stat) {
            let (dir, name) = super::split(path);
            return self.mark(&join(dir, &[PREFIX, name].concat()));
        }
        if self.marks == Marks::Files && name.starts_with(PREFIX) {
            return self.mark(path);
        }
        // Layers that were derived from this one share its files: several names need not all be here.
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&stat.st_ino).cloned() {
                return self.link(path, &first);
            }
            self.links.insert(stat.st_ino, path.to_vec());
        }
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => return self.file(parent, name, path, stat),
            FileType::Symlink => EntryType::Symlink,
            FileType::CharacterDevice => EntryType::Char,
            FileType::BlockDevice => EntryType::Block,
            FileType::Fifo => EntryType::Fifo,
            // No archive can hold a socket, so no layer had one.
            _ => return Ok(()),
        };
        let mut header = header(path, kind, stat, path)?;
        match kind {
            EntryType::Symlink => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new());
                header.link_name(target.map_err(Error::at("read the link", path))?.to_bytes());
            }
            EntryType::Char | EntryType::Block => {
                let (major, minor) =
                    (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
                header.device(major, minor).map_err(|err| unfit(path, &err))?;
            }
            _ => {}
        }
        attributes(&mut header, parent.as_fd(), name, path)?;
        self.bytes(&header.finish_bytes())
    }

    fn file(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8], stat: &Stat) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, name, flags, Mode::empty());
        let file = File::from(file.map_err(Error::at("open", path))?);
        let size = stat.st_size.cast_unsigned();
        let mut header = header(path, EntryType::Regular, stat, path)?;
        attributes(&mut header, parent.as_fd(), name, path)?;
        let holes = stat.st_blocks.cast_unsigned().saturating_mul(STAT_BLOCK) < size;
        let regions = if holes { regions(&file, size) } else { None };
        let (stored, regions) = match regions {
            Some(regions) => {
                header.sparse(&regions, size);
                (regions.iter().map(|region| region.length).sum(), regions)
            }
            None => (size, vec![SparseEntry { offset: 0, length: size }]),
        };
        header.size(stored).map_err(|err| unfit(path, &err))?;
        self.bytes(&header.finish_bytes())?;
        for region in &regions {
            self.region(&file, region, path)?;
        }
        let padding = stored.next_multiple_of(BLOCK) - stored;
        self.bytes(&[0; BLOCK as usize][..usize::try_from(padding).unwrap_or(0)])
    }

    fn region(&mut self, file: &File, region: &SparseEntry, path: &[u8]) -> Result<()> {
        let mut buffer = vec![0; usize::try_from(region.length).unwrap_or(CHUNK).min(CHUNK)];
        let (mut at, end) = (region.offset, region.offset + region.length);
        while at < end {
            let piece = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            file.read_exact_at(&mut buffer[..piece], at).map_err(Error::at("read", path))?;
            self.bytes(&buffer[..piece])?;
            at += piece as u64;
        }
        Ok(())
    }

    /// Says that something is not there.
    fn mark(&mut self, path: &[u8]) -> Result<()> {
        let mut header = EntryBuilder::new_ustar();
        header.path(path).entry_type(EntryType::Regular);
        self.bytes(&header.finish_bytes())
    }

    fn link(&mut self, path: &[u8], target: &[u8]) -> Result<()> {
        let mut header = EntryBuilder::new_ustar();
        header.path(path).entry_type(EntryType::Link).link_name(target);
        self.bytes(&header.finish_bytes())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(Error::io("write", Path::new("the archive")))
    }
}

fn header(name: &[u8], kind: EntryType, stat: &Stat, path: &[u8]) -> Result<EntryBuilder> {
    let mut header = EntryBuilder::new_ustar();
    header.path(name).entry_type(kind);
    own(&mut header, stat).map_err(|err| unfit(path, &err))?;
    Ok(header)
}

fn own(header: &mut EntryBuilder, stat: &Stat) -> tar_core::Result<()> {
    header.mode(stat.st_mode & 0o7777)?.uid(stat.st_uid.into())?.gid(stat.st_gid.into())?;
    let (seconds, nanos) = (stat.st_mtime, stat.st_mtime_nsec);
    header.mtime(u64::try_from(seconds).unwrap_or(0))?;
    if seconds < 0 || nanos != 0 {
        header.add_pax("mtime", time(seconds, nanos));
    }
    Ok(())
}

/// Seconds with their fraction, as extended headers have it: what is before 1970 counts down.
fn time(seconds: i64, nanos: u64) -> String {
    const SECOND: u64 = 1_000_000_000;
    if seconds >= 0 || nanos == 0 {
        return format!("{seconds}.{nanos:09}");
    }
    format!("-{}.{:09}", (seconds + 1).unsigned_abs(), SECOND - nanos)
}

fn attributes(
    header: &mut EntryBuilder,
    parent: std::os::fd::BorrowedFd<'_>,
    name: &[u8],
    path: &[u8],
) -> Result<()> {
    let mut all = xattrs(parent, name).map_err(Error::at("read the attributes of", path))?;
    all.retain(|(key, _)| is_welcome(key));
    all.sort();
    for (key, value) in all {
        let Ok(key) = std::str::from_utf8(&key) else { continue };
        header.add_pax(&format!("SCHILY.xattr.{key}"), value);
    }
    Ok(())
}

/// Where a file has its bytes; `None` where that is not worth telling.
fn regions(file: &File, size: u64) -> Option<Vec<SparseEntry>> {
    let (mut regions, mut at, mut stored) = (Vec::new(), 0, 0);
    while at < size {
        let offset = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            found => found.ok()?,
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(offset)).ok()?.min(size);
        let length = end.checked_sub(offset).filter(|length| *length > 0)?;
        stored += length;
        regions.push(SparseEntry { offset, length });
        at = end;
        if regions.len() > MAX_REGIONS || stored > MAX_SPARSE {
            return None;
        }
    }
    (stored < size).then_some(regions)
}

fn unfit(path: &[u8], err: &dyn std::fmt::Display) -> Error {
    Error::archive(path, err.to_string())
}
