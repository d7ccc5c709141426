//! /proc/self/mountinfo: which mount a path is on, and how that one propagates.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

const FILE: &str = "/proc/self/mountinfo";

/// A line of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MountInfo {
    pub point: PathBuf,
    /// Member of a peer group: what is mounted there appears elsewhere, and the other way round.
    pub shared: bool,
    /// What is mounted at its master appears here.
    pub slave: bool,
    pub fs_type: String,
    /// Of the file system, not of this mount.
    pub options: String,
}

pub(super) fn read() -> Result<Vec<MountInfo>> {
    let text = std::fs::read(FILE).map_err(Error::io("read", Path::new(FILE)))?;
    Ok(parse(&text))
}

/// Lines that are not as proc(5) has them are left out.
fn parse(text: &[u8]) -> Vec<MountInfo> {
    text.split(|b| *b == b'\n').filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<MountInfo> {
    let mut fields = line.split(|b| *b == b' ');
    let point = PathBuf::from(OsString::from_vec(unescape(fields.nth(4)?)));
    let (mut shared, mut slave) = (false, false);
    // After the mount's own options: any number of tags, closed by a hyphen.
    for tag in fields.by_ref().skip(1).take_while(|field| *field != b"-") {
        shared |= tag.starts_with(b"shared:");
        slave |= tag.starts_with(b"master:");
    }
    let fs_type = String::from_utf8_lossy(fields.next()?).into_owned();
    let options = String::from_utf8_lossy(fields.nth(1)?).into_owned();
    Some(MountInfo { point, shared, slave, fs_type, options })
}

/// White space and backslashes are written as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let code = match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if *first == b'\\' => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    bytes
}

/// The mount that a path without symbolic links is on: of several at one point the last covers the others.
pub(super) fn of<'a>(mounts: &'a [MountInfo], path: &Path) -> Option<&'a MountInfo> {
    mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.components().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n\
        30 27 0:26 / /mnt/a\\040b rw shared:5 master:1 - tmpfs tmpfs rw\n\
        31 27 0:27 / /mnt rw master:9 propagate_from:1 - tmpfs tmpfs rw\n\
        32 27 0:28 / /mnt rw - cgroup2 cgroup2 rw,nsdelegate\n\
        broken line\n";

    #[test]
    fn lines_and_the_mount_of_a_path() {
        let mounts = parse(TEXT);
        assert_eq!(mounts.len(), 4);
        let on = |path: &str| of(&mounts, Path::new(path)).unwrap();
        assert_eq!(on("/etc").point, Path::new("/"));
        assert!(on("/etc").shared && !on("/etc").slave);
        assert!(on("/mnt/a b/c").shared && on("/mnt/a b/c").slave);
        assert_eq!(on("/mnt/x").fs_type, "cgroup2");
        assert_eq!(on("/mnt/x").options, "rw,nsdelegate");
        assert_eq!(on("/mntx").point, Path::new("/"));
    }

    #[test]
    fn our_own_can_be_read() {
        let mounts = read().unwrap();
        assert!(of(&mounts, Path::new("/proc/self")).is_some());
    }
}
