//! The table of contents of a tar file: which file of it lies where.
//!
//! Only headers are read. An archive that is ambiguous or cut off is refused: a name that leads out or occurs twice,
//! a file that is neither regular nor a link to one, contents beyond the end.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use tar_core::EntryType;
use tar_core::parse::{Limits, ParseEvent, ParsedEntry, Parser};

use super::super::digest::clip;
use super::super::error::Error;
use super::{MAX_LINKS, Piece};

/// Most names in one archive.
const MAX_ENTRIES: usize = 1 << 16;
/// Longest name; a sha512 blob's has 142 characters.
const MAX_NAME: usize = 1024;
/// What one entry's headers may take.
const MAX_HEADER: u32 = 64 << 10;
const BLOCK: u64 = 512;

#[derive(Debug)]
enum Entry {
    File { at: u64, length: u64 },
    Link(String),
}

/// What lies where.
#[derive(Debug)]
pub(super) struct Contents {
    file: Arc<File>,
    entries: HashMap<String, Entry>,
}

impl Contents {
    /// Reads all headers. Blocks.
    pub(super) fn read(file: File) -> Result<Self, Error> {
        let length = file.metadata().map_err(Error::io("stat", Path::new("the archive")))?.len();
        let mut parser = Parser::new(Limits {
            max_metadata_size: MAX_HEADER,
            max_path_len: Some(MAX_NAME as u32),
            ..Limits::default()
        });
        let mut contents = Self { file: Arc::new(file), entries: HashMap::new() };
        let mut at = 0;
        let mut wanted = BLOCK;
        while at < length {
            let bytes = contents.headers(at, wanted.min(length - at))?;
            let event = parser.parse(&bytes).map_err(|err| broken(&err.to_string()))?;
            match event {
                ParseEvent::End { .. } => break,
                ParseEvent::NeedData { min_bytes } => {
                    // Some tools end with one block of zeros, or with none.
                    if wanted >= length - at && bytes.iter().all(|byte| *byte == 0) {
                        break;
                    }
                    let more = (min_bytes as u64).max(wanted + BLOCK);
                    if more > u64::from(MAX_HEADER) * 2 || wanted >= length - at {
                        return Err(broken("a header has no end"));
                    }
                    wanted = more;
                }
                ParseEvent::GlobalExtensions { consumed, .. } => {
                    at += consumed as u64;
                    wanted = BLOCK;
                }
                ParseEvent::SparseEntry { .. } => {
                    return Err(broken("it has a sparse file"));
                }
                ParseEvent::Entry { consumed, entry } => {
                    let start = at + consumed as u64;
                    if entry.size > length.saturating_sub(start) {
                        return Err(broken("it ends early"));
                    }
                    contents.add(&entry, start)?;
                    at = start + entry.size.next_multiple_of(BLOCK);
                    wanted = BLOCK;
                }
            }
        }
        Ok(contents)
    }

    fn headers(&self, at: u64, count: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; usize::try_from(count).unwrap_or(usize::MAX)];
        let read = self.file.read_exact_at(&mut bytes, at);
        read.map_err(Error::io("read", Path::new("the archive")))?;
        Ok(bytes)
    }

    fn add(&mut self, entry: &ParsedEntry<'_>, at: u64) -> Result<(), Error> {
        let name = clean(&entry.path)?;
        let made = match entry.entry_type {
            EntryType::Directory => return Ok(()),
            EntryType::Regular | EntryType::Continuous if entry.path.ends_with(b"/") => {
                return Ok(());
            }
            EntryType::Regular | EntryType::Continuous => Entry::File { at, length: entry.size },
            EntryType::Symlink => {
                let target = entry.link_target.as_deref().unwrap_or_default();
                let beside = name.rsplit_once('/').map_or("", |(dir, _)| dir);
                Entry::Link(joined(beside, target)?)
            }
            EntryType::Link => {
                Entry::Link(clean(entry.link_target.as_deref().unwrap_or_default())?)
            }
            _ => return Err(broken(&format!("{name:?} is no regular file"))),
        };
        if self.entries.len() == MAX_ENTRIES {
            return Err(broken(&format!("it has more than {MAX_ENTRIES} files")));
        }
        if self.entries.insert(name.clone(), made).is_some() {
            return Err(broken(&format!("it has {:?} twice", clip(&name))));
        }
        Ok(())
    }

    pub(super) fn find(&self, name: &str) -> Result<Option<Piece>, Error> {
        let mut name = name;
        for _ in 0..MAX_LINKS {
            match self.entries.get(name) {
                None => return Ok(None),
                Some(Entry::Link(target)) => name = target,
                Some(Entry::File { at, length }) => {
                    return Ok(Some(Piece::new(self.file.clone(), *at, *length)));
                }
            }
        }
        Err(broken(&format!("{:?} is a link to a link without end", clip(name))))
    }
}

fn broken(why: &str) -> Error {
    Error::content(format!("the archive is refused: {why}"))
}

/// A name without `.` and empty parts; none that leads out.
fn clean(path: &[u8]) -> Result<String, Error> {
    let refused = || broken(&format!("the name {:?}", clip(&String::from_utf8_lossy(path))));
    let text = std::str::from_utf8(path).map_err(|_| refused())?;
    if text.starts_with('/') || text.contains('\0') || text.len() > MAX_NAME {
        return Err(refused());
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err(refused());
    }
    Ok(parts.join("/"))
}

/// Where a symbolic link in the directory `dir` leads.
fn joined(dir: &str, target: &[u8]) -> Result<String, Error> {
    let refused = || broken(&format!("the link to {:?}", clip(&String::from_utf8_lossy(target))));
    let target = std::str::from_utf8(target).map_err(|_| refused())?;
    if target.starts_with('/') || target.len() > MAX_NAME {
        return Err(refused());
    }
    let mut parts: Vec<&str> = dir.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop().ok_or_else(refused)?),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        assert_eq!(clean(b"./blobs//sha256/x").unwrap(), "blobs/sha256/x");
        for path in [&b"/etc/passwd"[..], b"../x", b"a/../../x", b"a\0b", b"\xff", b"a/.."] {
            assert!(clean(path).is_err(), "{path:?}");
        }
        assert_eq!(joined("abc", b"../def/layer.tar").unwrap(), "def/layer.tar");
        for target in [&b"/etc/shadow"[..], b"../../x", b"\xff"] {
            assert!(joined("abc", target).is_err(), "{target:?}");
        }
    }
}
