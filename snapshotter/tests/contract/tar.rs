//! Archives as no well-meaning tool writes them: every field is the test's to choose.

/// A tar archive in the making.
#[derive(Clone, Default)]
pub(crate) struct Tar {
    bytes: Vec<u8>,
    pax: Vec<u8>,
}

/// The fields of a header that tests care about.
#[derive(Clone, Copy)]
pub(crate) struct Header<'a> {
    pub(crate) name: &'a str,
    pub(crate) kind: u8,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) mtime: u64,
    pub(crate) link: &'a str,
    pub(crate) device: (u32, u32),
}

impl<'a> Header<'a> {
    pub(crate) fn new(name: &'a str, kind: u8) -> Self {
        let mode = if kind == b'5' { 0o755 } else { 0o644 };
        let (uid, gid, size, mtime) = (0, 0, 0, 1_000_000_000);
        Header { name, kind, mode, uid, gid, size, mtime, link: "", device: (0, 0) }
    }

    fn block(&self) -> [u8; 512] {
        let mut block = [0; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.name.as_bytes()[..self.name.len().min(100)]);
        put(100, format!("{:07o}\0", self.mode).as_bytes());
        put(108, format!("{:07o}\0", self.uid).as_bytes());
        put(116, format!("{:07o}\0", self.gid).as_bytes());
        put(124, format!("{:011o}\0", self.size).as_bytes());
        put(136, format!("{:011o}\0", self.mtime).as_bytes());
        put(156, &[self.kind]);
        put(157, &self.link.as_bytes()[..self.link.len().min(100)]);
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}\0", self.device.0).as_bytes());
        put(337, format!("{:07o}\0", self.device.1).as_bytes());
        seal(&mut block);
        block
    }
}

/// Fills in the checksum.
pub(crate) fn seal(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

impl Tar {
    pub(crate) fn new() -> Self {
        Tar::default()
    }

    /// An extended header record for the next entry.
    pub(crate) fn pax(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        let rest = key.len() + value.len() + 3;
        let length = (1..9).map(|n| rest + n).find(|l| l.to_string().len() + rest == *l).unwrap();
        self.pax.extend_from_slice(format!("{length} {key}=").as_bytes());
        self.pax.extend_from_slice(value);
        self.pax.push(b'\n');
        self
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn entry(mut self, header: Header<'_>, content: &[u8]) -> Self {
        let pax = std::mem::take(&mut self.pax);
        if !pax.is_empty() {
            let size = pax.len() as u64;
            self = self.raw(&Header { size, ..Header::new("pax", b'x') }.block()).raw(&pax);
        }
        self.raw(&header.block()).raw(content)
    }

    pub(crate) fn file(self, name: &str, content: &str) -> Self {
        let header = Header { size: content.len() as u64, ..Header::new(name, b'0') };
        self.entry(header, content.as_bytes())
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.entry(Header::new(name, b'5'), b"")
    }

    pub(crate) fn symlink(self, name: &str, link: &str) -> Self {
        self.entry(Header { link, mode: 0o777, ..Header::new(name, b'2') }, b"")
    }

    pub(crate) fn hardlink(self, name: &str, link: &str) -> Self {
        self.entry(Header { link, ..Header::new(name, b'1') }, b"")
    }

    pub(crate) fn whiteout(self, name: &str) -> Self {
        self.file(name, "")
    }

    /// With the two blocks of zeros.
    pub(crate) fn end(self) -> Vec<u8> {
        self.raw(&[0; 1024]).bytes
    }

    /// As it is.
    pub(crate) fn cut(self) -> Vec<u8> {
        self.bytes
    }
}
