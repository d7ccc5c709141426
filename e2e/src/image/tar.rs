//! Layers as tar streams: ustar, with PAX records for extended attributes and long names.

use std::io::Write;

const BLOCK: usize = 512;

#[derive(Debug, Clone, Copy)]
enum Kind {
    File = b'0' as isize,
    Hardlink = b'1' as isize,
    Symlink = b'2' as isize,
    Device = b'3' as isize,
    Directory = b'5' as isize,
    Fifo = b'6' as isize,
    Pax = b'x' as isize,
}

/// A layer being written; entries in the order of the calls.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    tar: Vec<u8>,
    owner: (u32, u32),
}

impl Layer {
    pub fn new() -> Self {
        Self::default()
    }

    /// Of the entries that follow.
    #[must_use]
    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        self.owner = (uid, gid);
        self
    }

    #[must_use]
    pub fn dir(mut self, path: &str, mode: u32) -> Self {
        self.entry(Kind::Directory, &format!("{path}/"), "", mode, &[], (0, 0));
        self
    }

    #[must_use]
    pub fn file(mut self, path: &str, mode: u32, content: impl AsRef<[u8]>) -> Self {
        self.entry(Kind::File, path, "", mode, content.as_ref(), (0, 0));
        self
    }

    /// A file with an extended attribute.
    #[must_use]
    pub fn file_with(mut self, path: &str, mode: u32, content: &str, xattr: (&str, &[u8])) -> Self {
        self.pax(&format!("SCHILY.xattr.{}", xattr.0), xattr.1);
        self.entry(Kind::File, path, "", mode, content.as_bytes(), (0, 0));
        self
    }

    #[must_use]
    pub fn symlink(mut self, path: &str, to: &str) -> Self {
        self.entry(Kind::Symlink, path, to, 0o777, &[], (0, 0));
        self
    }

    #[must_use]
    pub fn hardlink(mut self, path: &str, to: &str) -> Self {
        self.entry(Kind::Hardlink, path, to, 0o644, &[], (0, 0));
        self
    }

    #[must_use]
    pub fn device(mut self, path: &str, major: u32, minor: u32) -> Self {
        self.entry(Kind::Device, path, "", 0o666, &[], (major, minor));
        self
    }

    #[must_use]
    pub fn fifo(mut self, path: &str) -> Self {
        self.entry(Kind::Fifo, path, "", 0o644, &[], (0, 0));
        self
    }

    /// Takes away `path` of the layers below.
    #[must_use]
    pub fn whiteout(self, path: &str) -> Self {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let slash = if dir.is_empty() { "" } else { "/" };
        self.file(&format!("{dir}{slash}.wh.{name}"), 0o644, "")
    }

    /// Hides everything that the layers below have in `dir`.
    #[must_use]
    pub fn opaque(self, dir: &str) -> Self {
        self.dir(dir, 0o755).file(&format!("{dir}/.wh..wh..opq"), 0o644, "")
    }

    pub fn tar(&self) -> Vec<u8> {
        let mut tar = self.tar.clone();
        tar.resize(tar.len() + 2 * BLOCK, 0);
        tar
    }

    fn pax(&mut self, key: &str, value: &[u8]) {
        let body = key.len() + value.len() + 3;
        let mut length = body + 1;
        while length != body + length.to_string().len() {
            length = body + length.to_string().len();
        }
        let mut record = format!("{length} {key}=").into_bytes();
        record.extend_from_slice(value);
        record.push(b'\n');
        self.entry(Kind::Pax, "pax", "", 0o644, &record, (0, 0));
    }

    fn entry(
        &mut self,
        kind: Kind,
        path: &str,
        link: &str,
        mode: u32,
        content: &[u8],
        device: (u32, u32),
    ) {
        if path.len() > 100 {
            self.pax("path", path.as_bytes());
        }
        let mut header = [0u8; BLOCK];
        let mut put = |at: usize, size: usize, text: &str| {
            let bytes = &text.as_bytes()[..text.len().min(size)];
            (&mut header[at..at + size]).write_all(bytes).expect("it fits");
        };
        put(0, 100, path);
        put(100, 8, &format!("{mode:07o}"));
        put(108, 8, &format!("{:07o}", self.owner.0));
        put(116, 8, &format!("{:07o}", self.owner.1));
        put(124, 12, &format!("{:011o}", content.len()));
        put(136, 12, "14000000000");
        put(148, 8, "        ");
        put(156, 1, &char::from(kind as u8).to_string());
        put(157, 100, link);
        put(257, 8, "ustar\x0000");
        put(329, 8, &format!("{:07o}", device.0));
        put(337, 8, &format!("{:07o}", device.1));
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        (&mut header[148..156]).write_all(format!("{sum:06o}\0 ").as_bytes()).expect("it fits");
        self.tar.extend_from_slice(&header);
        self.tar.extend_from_slice(content);
        self.tar.resize(self.tar.len().next_multiple_of(BLOCK), 0);
    }
}
