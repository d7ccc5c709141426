//! One entry of a layer, checked: after this, wrong values cannot be written.

use tar_core::parse::ParsedEntry;
use tar_core::{EntryType, PaxExtensions, SparseEntry};

use crate::walk::Xattr;
use crate::{Error, Result};

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    /// Regions of data, and the size of the whole.
    Sparse(Vec<SparseEntry>, u64),
    Directory,
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    Character(u32, u32),
    Block(u32, u32),
    Fifo,
}

/// Owner, mode and time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Owned {
    /// Permissions with set-id and sticky bits.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) seconds: i64,
    pub(super) nanos: u32,
}

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Components joined by slashes, none of them empty, `.` or `..`; empty is the root.
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) owned: Owned,
    /// Bytes that follow in the stream.
    pub(super) size: u64,
    pub(super) xattrs: Vec<Xattr>,
    /// Attributes that are not taken from an image.
    pub(super) refused_xattrs: u64,
}

/// The deepest directory. Deeper ones can be made, but no one can name a file in them.
pub(super) const MAX_DEPTH: usize = 1024;

impl Entry {
    pub(super) fn new(
        parsed: &ParsedEntry<'_>,
        sparse: Option<(Vec<SparseEntry>, u64)>,
    ) -> Result<Entry> {
        let bad = |reason: &str| Error::archive(&parsed.path, reason);
        let path = clean(&parsed.path).map_err(bad)?;
        let link = || parsed.link_target.as_deref().ok_or_else(|| bad("a link without a target"));
        let device = || Some((parsed.dev_major?, parsed.dev_minor?));
        let device = || device().ok_or_else(|| bad("a device without a number"));
        let named_as_directory = parsed.path.ends_with(b"/");
        let sparse = sparse.map(|(map, real_size)| Kind::Sparse(map, real_size));
        let kind = match parsed.entry_type {
            EntryType::Regular if named_as_directory && sparse.is_none() => Kind::Directory,
            EntryType::Regular | EntryType::Continuous | EntryType::GnuSparse => {
                sparse.unwrap_or(Kind::File)
            }
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink(target(link()?).map_err(bad)?),
            EntryType::Link => Kind::HardLink(clean(link()?).map_err(bad)?),
            EntryType::Char => device().map(|(major, minor)| Kind::Character(major, minor))?,
            EntryType::Block => device().map(|(major, minor)| Kind::Block(major, minor))?,
            EntryType::Fifo => Kind::Fifo,
            other => return Err(bad(&format!("unknown type {:?}", char::from(other.as_byte())))),
        };
        let mut entry = Entry {
            path,
            size: parsed.size,
            owned: Owned {
                mode: parsed.mode & 0o7777,
                uid: id(parsed.uid).ok_or_else(|| bad("an owner that cannot be"))?,
                gid: id(parsed.gid).ok_or_else(|| bad("a group that cannot be"))?,
                // A negative one arrives as its two's complement.
                seconds: parsed.mtime.cast_signed(),
                nanos: 0,
            },
            kind,
            xattrs: Vec::new(),
            refused_xattrs: 0,
        };
        entry.take_xattrs(parsed);
        if let Some(pax) = parsed.pax {
            entry.take_pax(pax).map_err(|reason| bad(&reason))?;
        }
        entry.check_size().map_err(bad)?;
        Ok(entry)
    }

    /// What the parser leaves to its caller: that every record is well formed, and times.
    fn take_pax(&mut self, pax: &[u8]) -> std::result::Result<(), String> {
        let mut length = 0;
        for record in PaxExtensions::new(pax) {
            let record = record.map_err(|err| err.to_string())?;
            let (key, value) = (record.key_bytes(), record.value_bytes());
            length = value.as_ptr().addr() - pax.as_ptr().addr() + value.len() + 1;
            let text = std::str::from_utf8(value);
            match key {
                b"mtime" => {
                    let time = text.ok().and_then(time);
                    (self.owned.seconds, self.owned.nanos) = time.ok_or("a time that is none")?;
                }
                b"size"
                | b"uid"
                | b"gid"
                | b"GNU.sparse.realsize"
                | b"GNU.sparse.size"
                | b"GNU.sparse.major"
                | b"GNU.sparse.minor"
                | b"GNU.sparse.offset"
                | b"GNU.sparse.numbytes" => {
                    let number = text.ok().and_then(|text| text.parse::<u64>().ok());
                    number
                        .ok_or_else(|| format!("{} is no number", String::from_utf8_lossy(key)))?;
                }
                _ => {}
            }
        }
        // The parser's iterator ends silently at a record whose length it cannot read.
        if length < pax.len() && pax[length..].iter().any(|&byte| byte != 0) {
            return Err("a malformed extended header".to_owned());
        }
        Ok(())
    }

    fn take_xattrs(&mut self, parsed: &ParsedEntry<'_>) {
        for (name, value) in &parsed.xattrs {
            if is_welcome(name) {
                self.xattrs.push((name.to_vec(), value.to_vec()));
            } else {
                self.refused_xattrs += 1;
            }
        }
    }

    fn check_size(&mut self) -> std::result::Result<(), &'static str> {
        match &self.kind {
            Kind::File => Ok(()),
            Kind::Sparse(map, real_size) => {
                let (mut stored, mut end) = (0u64, 0u64);
                for region in map {
                    if region.offset < end {
                        return Err("a sparse map out of order");
                    }
                    end =
                        region.offset.checked_add(region.length).ok_or("a sparse map too large")?;
                    stored += region.length;
                }
                if end > *real_size {
                    return Err("a sparse map beyond the file's end");
                }
                // With PAX 1.0 the map precedes the data, and a size given as an extended header
                // counts it in; the parser does not take it off again.
                let map_size = map_1_0_size(map);
                if self.size == stored + map_size && self.size != stored {
                    self.size = stored;
                }
                if self.size == stored { Ok(()) } else { Err("a sparse map of another size") }
            }
            // Some writers put a size there; as with Go's reader, no bytes follow.
            _ => {
                self.size = 0;
                Ok(())
            }
        }
    }
}

/// The size of the map as PAX 1.0 stores it.
fn map_1_0_size(map: &[SparseEntry]) -> u64 {
    let line = |number: u64| decimal(number as usize) as u64 + 1;
    let lines: u64 = map.iter().map(|region| line(region.offset) + line(region.length)).sum();
    (line(map.len() as u64) + lines).next_multiple_of(512)
}

/// How many digits `number` has.
fn decimal(number: usize) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// An owner; the highest is how chown(2) says "leave it as it is".
fn id(number: u64) -> Option<u32> {
    u32::try_from(number).ok().filter(|&id| id != u32::MAX)
}

/// Seconds with a fraction, negative ones too.
fn time(text: &str) -> Option<(i64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let padded: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = padded.parse().ok()?;
    match whole.starts_with('-') && nanos > 0 {
        true => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos)),
        false => Some((seconds, nanos)),
    }
}

/// Attributes that an image may bring. Those of overlayfs would give its author a say in how layers
/// are merged, and an SELinux label is the host's to give.
pub(super) fn is_welcome(name: &[u8]) -> bool {
    let starts = |prefix: &[u8]| name.starts_with(prefix);
    !name.contains(&0)
        && match () {
            () if starts(b"user.") => !starts(b"user.overlay."),
            () if starts(b"security.") => name != b"security.selinux",
            () => starts(b"system.posix_acl_"),
        }
}

/// A path without what makes paths ambiguous. As `..` cannot leave the root, it is taken lexically,
/// as other runtimes do.
fn clean(path: &[u8]) -> std::result::Result<Vec<u8>, &'static str> {
    if path.contains(&0) {
        return Err("a path with a zero byte");
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part if part.len() > 255 => return Err("a name of more than 255 bytes"),
            part => parts.push(part),
        }
    }
    if parts.len() > MAX_DEPTH {
        return Err("a path too deep");
    }
    Ok(parts.join(&b'/'))
}

fn target(target: &[u8]) -> std::result::Result<Vec<u8>, &'static str> {
    if target.contains(&0) { Err("a target with a zero byte") } else { Ok(target.to_vec()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_unambiguous() {
        let cases: [(&[u8], &[u8]); 8] = [
            (b"./", b""),
            (b"/", b""),
            (b"./a//b/", b"a/b"),
            (b"/etc/passwd", b"etc/passwd"),
            (b"../../etc", b"etc"),
            (b"a/../../b", b"b"),
            (b"a/./b/..", b"a"),
            (b"..", b""),
        ];
        for (path, wanted) in cases {
            assert_eq!(clean(path).unwrap(), wanted, "{}", String::from_utf8_lossy(path));
        }
        assert!(clean(b"a\0b").is_err());
        assert!(clean(&[b'x'; 256]).is_err());
        assert!(clean(&b"d/".repeat(MAX_DEPTH + 1)).is_err());
    }

    #[test]
    fn times_have_signs_and_fractions() {
        assert_eq!(time("12"), Some((12, 0)));
        assert_eq!(time("12.5"), Some((12, 500_000_000)));
        assert_eq!(time("12.1234567891"), Some((12, 123_456_789)));
        assert_eq!(time("-1"), Some((-1, 0)));
        assert_eq!(time("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time("x"), None);
        assert_eq!(time("1.-5"), None);
    }

    #[test]
    fn only_harmless_attributes_are_taken() {
        for name in ["user.x", "security.capability", "system.posix_acl_access"] {
            assert!(is_welcome(name.as_bytes()), "{name}");
        }
        for name in ["trusted.overlay.redirect", "user.overlay.opaque", "security.selinux", "x"] {
            assert!(!is_welcome(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn owners_that_chown_would_misread_are_refused() {
        assert_eq!(id(u64::from(u32::MAX)), None);
        assert_eq!(id(1 << 32), None);
        assert_eq!(id(65534), Some(65534));
    }
}
