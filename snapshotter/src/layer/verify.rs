//! Whether a layer is still what was unpacked.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use super::index::{Reader, Record, Type};
use super::{About, lean, split};
use crate::walk::{open_dir, open_root, xattrs};
use crate::{Error, LayerId, Result, Snapshotter};

const CHUNK: usize = 256 << 10;

/// The paths at which later records took the place of earlier ones, each with the number of the
/// last that did, and whether it ended what was below as well.
type Replaced = HashMap<Vec<u8>, (u64, bool)>;

impl Snapshotter {
    /// Compares the layer with its index and returns the paths that differ, in type, owner, mode,
    /// time, attributes, size or contents; reads every file once. A layer with differences is to be
    /// removed and unpacked again.
    pub fn verify(&self, layer: &LayerId) -> Result<Vec<PathBuf>> {
        if !self.has(layer) {
            return Err(Error::MissingLayer(layer.to_string()));
        }
        let dir = self.layer(layer);
        let replaced = if About::read(&dir)?.replaced {
            replaced(&mut Reader::open(&dir)?)?
        } else {
            Replaced::new()
        };
        // Hard links that wait for the layers below.
        let waiting = lean::read(&dir)?.links;
        let root = open_root(&self.tree(layer))?;
        let mut reader = Reader::open(&dir)?;
        let mut different = Vec::new();
        let mut buffer = vec![0; CHUNK];
        let mut number = 0;
        while let Some(record) = reader.next()? {
            number += 1;
            let stands = replaced.is_empty() || stands(&replaced, &record.path, number);
            let stands = stands && !waiting.iter().any(|(path, _)| *path == record.path);
            if stands && !self.is_as_recorded(&root, &record, &mut buffer).unwrap_or(false) {
                different.push(PathBuf::from(OsString::from_vec(record.path)));
            }
        }
        Ok(different)
    }

    fn is_as_recorded(
        &self,
        root: impl AsFd,
        record: &Record,
        buffer: &mut [u8],
    ) -> std::io::Result<bool> {
        let (dir, name) = split(&record.path);
        let name = if name.is_empty() { b"." } else { name };
        let parent = open_dir(root, dir)?;
        match record.kind {
            Type::Whiteout => {
                return Ok(!matches!(self.marks().look(&parent, name)?, super::Look::Nothing));
            }
            Type::Opaque => return Ok(self.marks().is_opaque(parent.as_fd(), name)?),
            _ => {}
        }
        let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        // The file that it links to has a record, unless that has made way for another since.
        if record.kind == Type::HardLink {
            return Ok(FileType::from_raw_mode(stat.st_mode) != FileType::Directory);
        }
        if !looks_the_same(record, &stat) {
            return Ok(false);
        }
        let have = xattrs(parent.as_fd(), name)?;
        if !record.xattrs.iter().all(|xattr| have.contains(xattr)) {
            return Ok(false);
        }
        match record.kind {
            Type::Symlink => {
                let target = rustix::fs::readlinkat(&parent, name, Vec::new())?;
                Ok(target.to_bytes() == record.target)
            }
            Type::File => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
                Ok(checksum(&file.into(), record, buffer)? == record.checksum)
            }
            _ => Ok(true),
        }
    }
}

fn replaced(reader: &mut Reader) -> Result<Replaced> {
    let mut replaced = Replaced::new();
    let mut number = 0;
    while let Some(record) = reader.next()? {
        number += 1;
        if record.replaces {
            // A directory over a directory keeps what is in it.
            let below = record.kind != Type::Directory;
            let ended = replaced.get(&record.path).is_some_and(|(_, ended)| *ended);
            replaced.insert(record.path, (number, below || ended));
        }
    }
    Ok(replaced)
}

/// Whether the record `number` of `path` is the last word on it.
fn stands(replaced: &Replaced, path: &[u8], number: u64) -> bool {
    let mut at = path;
    loop {
        if let Some((last, below)) = replaced.get(at)
            && number < *last
            && (at == path || *below)
        {
            return false;
        }
        if at.is_empty() {
            return true;
        }
        at = split(at).0;
    }
}

fn looks_the_same(record: &Record, stat: &Stat) -> bool {
    let kind = match record.kind {
        Type::File => FileType::RegularFile,
        Type::Directory => FileType::Directory,
        Type::Symlink => FileType::Symlink,
        Type::Character => FileType::CharacterDevice,
        Type::Block => FileType::BlockDevice,
        Type::Fifo => FileType::Fifo,
        Type::HardLink | Type::Whiteout | Type::Opaque => return true,
    };
    let owned = &record.owned;
    FileType::from_raw_mode(stat.st_mode) == kind
        && (stat.st_uid, stat.st_gid) == (owned.uid, owned.gid)
        && (record.kind == Type::Symlink || stat.st_mode & 0o7777 == owned.mode)
        && (stat.st_mtime, stat.st_mtime_nsec) == (owned.seconds, owned.nanos.into())
        && (record.kind != Type::File || stat.st_size.cast_unsigned() == record.size)
        && (!matches!(record.kind, Type::Character | Type::Block) || stat.st_rdev == record.size)
}

fn checksum(file: &File, record: &Record, buffer: &mut [u8]) -> std::io::Result<u32> {
    let mut checksum = crc32fast::Hasher::new();
    let whole = [(0, record.size)];
    let regions: &[(u64, u64)] = if record.regions.is_empty() { &whole } else { &record.regions };
    for &(offset, length) in regions {
        let mut at = offset;
        while at < offset + length {
            let left = usize::try_from(offset + length - at).unwrap_or(usize::MAX);
            let piece = left.min(buffer.len());
            file.read_exact_at(&mut buffer[..piece], at)?;
            checksum.update(&buffer[..piece]);
            at += piece as u64;
        }
    }
    Ok(checksum.finalize())
}
