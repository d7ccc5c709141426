//! Mount options as people write them, told apart into flags and what is the file system's own.

use std::ffi::CString;

use rustix::mount::{MountAttrFlags, MountFlags};

use crate::{Error, Result};

/// What mount(2) passes on of its data, terminator included: one page, and no page is smaller.
pub(super) const PAGE: usize = 4096;

/// The options of one mount.
#[derive(Debug)]
pub(super) struct Parsed<'a> {
    /// Generic flags for mount(2).
    pub(super) flags: MountFlags,
    /// Whether a bind mount takes what is mounted below along.
    pub(super) recursive: bool,
    /// What only the file system understands.
    pub(super) data: Vec<&'a str>,
}

impl<'a> Parsed<'a> {
    pub(super) fn new(options: &'a [String], read_only: bool) -> Self {
        let mut parsed = Parsed { flags: MountFlags::empty(), recursive: false, data: Vec::new() };
        for option in options.iter().flat_map(|list| split(list)) {
            match option {
                "" | "bind" | "defaults" => {}
                "rbind" => parsed.recursive = true,
                "rw" => parsed.flags.remove(MountFlags::RDONLY),
                "suid" => parsed.flags.remove(MountFlags::NOSUID),
                "dev" => parsed.flags.remove(MountFlags::NODEV),
                "exec" => parsed.flags.remove(MountFlags::NOEXEC),
                "ro" => parsed.flags |= MountFlags::RDONLY,
                "nosuid" => parsed.flags |= MountFlags::NOSUID,
                "nodev" => parsed.flags |= MountFlags::NODEV,
                "noexec" => parsed.flags |= MountFlags::NOEXEC,
                "noatime" => parsed.flags |= MountFlags::NOATIME,
                "nodiratime" => parsed.flags |= MountFlags::NODIRATIME,
                "relatime" => parsed.flags |= MountFlags::RELATIME,
                "strictatime" => parsed.flags |= MountFlags::STRICTATIME,
                own => parsed.data.push(own),
            }
        }
        if read_only {
            parsed.flags |= MountFlags::RDONLY;
        }
        parsed
    }

    /// The generic flags for fsmount(2).
    pub(super) fn attributes(&self) -> MountAttrFlags {
        let pairs = [
            (MountFlags::RDONLY, MountAttrFlags::MOUNT_ATTR_RDONLY),
            (MountFlags::NOSUID, MountAttrFlags::MOUNT_ATTR_NOSUID),
            (MountFlags::NODEV, MountAttrFlags::MOUNT_ATTR_NODEV),
            (MountFlags::NOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC),
            (MountFlags::NOATIME, MountAttrFlags::MOUNT_ATTR_NOATIME),
            (MountFlags::NODIRATIME, MountAttrFlags::MOUNT_ATTR_NODIRATIME),
            (MountFlags::STRICTATIME, MountAttrFlags::MOUNT_ATTR_STRICTATIME),
        ];
        pairs
            .into_iter()
            .filter(|(flag, _)| self.flags.contains(*flag))
            .fold(MountAttrFlags::empty(), |all, (_, attribute)| all | attribute)
    }
}

/// At commas that are not between quotation marks: labels of SELinux hold some.
fn split(list: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    list.split(move |c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    })
}

/// The data of mount(2): one page, its terminator included.
pub(super) fn c_string(options: impl Into<Vec<u8>>) -> Result<CString> {
    let options = options.into();
    let length = options.len();
    if length >= PAGE {
        return Err(Error::OptionsTooLong(length));
    }
    CString::new(options).map_err(|_| Error::OptionsTooLong(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_the_file_systems_own_options_are_told_apart() {
        let options = ["nosuid,index=off".to_owned(), "rbind".to_owned(), "userxattr".to_owned()];
        let parsed = Parsed::new(&options, true);
        assert_eq!(parsed.flags, MountFlags::NOSUID | MountFlags::RDONLY);
        assert!(parsed.recursive);
        assert_eq!(parsed.data, ["index=off", "userxattr"]);
        let both = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_RDONLY;
        assert_eq!(parsed.attributes(), both);
    }

    #[test]
    fn quoted_commas_are_part_of_an_option() {
        let options = ["context=\"u:r:t:s0:c1,c2\",nodev".to_owned(), "index=off".to_owned()];
        let parsed = Parsed::new(&options, false);
        assert_eq!(parsed.data, ["context=\"u:r:t:s0:c1,c2\"", "index=off"]);
        assert_eq!(parsed.flags, MountFlags::NODEV);
    }

    #[test]
    fn a_later_option_wins() {
        let options = ["ro".to_owned(), "rw".to_owned()];
        assert!(Parsed::new(&options, false).flags.is_empty());
    }

    #[test]
    fn data_beyond_a_page_is_refused() {
        assert!(c_string("a".repeat(PAGE - 1)).is_ok());
        assert!(matches!(c_string("a".repeat(PAGE)), Err(Error::OptionsTooLong(n)) if n == PAGE));
    }
}
