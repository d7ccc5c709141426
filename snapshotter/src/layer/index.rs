//! The index of a layer: what each entry of its archive said, and a checksum of each file.
//!
//! Written as the entries come and read from front to back, never held in memory. Numbers are
//! LEB128, byte strings have their length in front, and a path is stored as what it adds to the
//! common start with the one before it: about 30 bytes an entry.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use super::entry::{Entry, Kind, Owned};
use crate::walk::Xattr;
use crate::{Error, Result};

const MAGIC: &[u8] = b"podwright layer index 1\n";
const NAME: &str = "index";
/// No field is longer, whatever a damaged file says.
const MAX_FIELD: u64 = 16 << 20;

/// What kind of entry a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Type {
    File = 0,
    Directory = 1,
    Symlink = 2,
    HardLink = 3,
    Character = 4,
    Block = 5,
    Fifo = 6,
    Whiteout = 7,
    Opaque = 8,
}

const TYPES: [Type; 9] = [
    Type::File,
    Type::Directory,
    Type::Symlink,
    Type::HardLink,
    Type::Character,
    Type::Block,
    Type::Fifo,
    Type::Whiteout,
    Type::Opaque,
];

/// One entry. Its path is where it really went: no component is a symlink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) path: Vec<u8>,
    pub(super) kind: Type,
    /// It took the place of an earlier one.
    pub(super) replaces: bool,
    pub(super) owned: Owned,
    /// A file's length, holes included; a device's number.
    pub(super) size: u64,
    /// CRC-32 of a file's bytes: finds rot and torn writes; who means harm here is root already.
    pub(super) checksum: u32,
    /// Where a sparse file has its bytes: offsets and lengths. Only these are in the checksum.
    pub(super) regions: Vec<(u64, u64)>,
    /// What a link leads to.
    pub(super) target: Vec<u8>,
    pub(super) xattrs: Vec<Xattr>,
}

impl Record {
    pub(super) fn new(path: Vec<u8>, kind: Type) -> Self {
        Record {
            path,
            kind,
            replaces: false,
            owned: Owned::default(),
            size: 0,
            checksum: 0,
            regions: Vec::new(),
            target: Vec::new(),
            xattrs: Vec::new(),
        }
    }

    pub(super) fn of(entry: &mut Entry, path: Vec<u8>) -> Self {
        let (kind, size) = match &entry.kind {
            Kind::File => (Type::File, entry.size),
            Kind::Sparse(_, real_size) => (Type::File, *real_size),
            Kind::Directory => (Type::Directory, 0),
            Kind::Symlink(_) => (Type::Symlink, 0),
            Kind::HardLink(_) => (Type::HardLink, 0),
            Kind::Character(major, minor) => (Type::Character, rustix::fs::makedev(*major, *minor)),
            Kind::Block(major, minor) => (Type::Block, rustix::fs::makedev(*major, *minor)),
            Kind::Fifo => (Type::Fifo, 0),
        };
        let mut record = Record::new(path, kind);
        (record.size, record.owned) = (size, entry.owned);
        record.xattrs = std::mem::take(&mut entry.xattrs);
        match &entry.kind {
            Kind::Sparse(map, _) => {
                record.regions = map.iter().map(|region| (region.offset, region.length)).collect();
                // All hole: one region of nothing tells it from a file without holes.
                if map.is_empty() {
                    record.regions.push((0, 0));
                }
            }
            Kind::Symlink(target) | Kind::HardLink(target) => record.target.clone_from(target),
            _ => {}
        }
        record
    }
}

/// Writes an index.
pub(super) struct Writer {
    file: BufWriter<File>,
    last: Vec<u8>,
    buffer: Vec<u8>,
    /// Records written.
    pub(super) entries: u64,
    /// Whether any of them replaced an earlier one.
    pub(super) replaced: bool,
}

impl Writer {
    pub(super) fn create(layer: &Path) -> Result<Self> {
        let path = layer.join(NAME);
        let file = File::create(&path).map_err(Error::io("create", &path))?;
        let (last, buffer) = (Vec::new(), MAGIC.to_vec());
        let file = BufWriter::with_capacity(64 << 10, file);
        Ok(Writer { file, last, buffer, entries: 0, replaced: false })
    }

    pub(super) fn write(&mut self, record: &Record) -> Result<()> {
        let out = &mut self.buffer;
        out.push(record.kind as u8 | (u8::from(record.replaces) << 7));
        let common =
            self.last.iter().zip(&record.path).take_while(|(last, path)| last == path).count();
        number(out, common as u64);
        bytes(out, &record.path[common..]);
        number(out, u64::from(record.owned.mode));
        number(out, u64::from(record.owned.uid));
        number(out, u64::from(record.owned.gid));
        // The sign goes to the lowest bit, so that small negative numbers stay short.
        let seconds = record.owned.seconds;
        number(out, ((seconds << 1) ^ (seconds >> 63)).cast_unsigned());
        number(out, u64::from(record.owned.nanos));
        number(out, record.size);
        out.extend_from_slice(&record.checksum.to_le_bytes());
        number(out, record.regions.len() as u64);
        for (offset, length) in &record.regions {
            number(out, *offset);
            number(out, *length);
        }
        bytes(out, &record.target);
        number(out, record.xattrs.len() as u64);
        for (name, value) in &record.xattrs {
            bytes(out, name);
            bytes(out, value);
        }
        self.last.clone_from(&record.path);
        self.entries += 1;
        self.replaced |= record.replaces;
        self.file.write_all(out).map_err(Error::io("write", Path::new(NAME)))?;
        out.clear();
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<()> {
        let rest = std::mem::take(&mut self.buffer);
        self.file
            .write_all(&rest)
            .and_then(|()| self.file.flush())
            .map_err(Error::io("write", Path::new(NAME)))
    }
}

fn number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads an index, front to back.
pub(super) struct Reader {
    file: BufReader<File>,
    last: Vec<u8>,
}

impl Reader {
    pub(super) fn open(layer: &Path) -> Result<Self> {
        let path = layer.join(NAME);
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let mut file = BufReader::with_capacity(64 << 10, file);
        let mut magic = [0; MAGIC.len()];
        if file.read_exact(&mut magic).is_err() || magic != MAGIC {
            return Err(damaged());
        }
        Ok(Reader { file, last: Vec::new() })
    }

    pub(super) fn next(&mut self) -> Result<Option<Record>> {
        let mut first = [0];
        match self.file.read(&mut first) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(err) => return Err(Error::io("read", Path::new(NAME))(err)),
        }
        let kind = TYPES.get(usize::from(first[0] & 0x7f)).ok_or_else(damaged)?;
        let common = usize::try_from(self.number()?).map_err(|_| damaged())?;
        let mut path = self.last.get(..common).ok_or_else(damaged)?.to_vec();
        path.extend(self.bytes()?);
        self.last.clone_from(&path);
        let mut record = Record::new(path, *kind);
        record.replaces = first[0] & 0x80 != 0;
        let small = |number: u64| u32::try_from(number).map_err(|_| damaged());
        record.owned.mode = small(self.number()?)?;
        record.owned.uid = small(self.number()?)?;
        record.owned.gid = small(self.number()?)?;
        let seconds = self.number()?;
        record.owned.seconds = (seconds >> 1).cast_signed() ^ -((seconds & 1).cast_signed());
        record.owned.nanos = small(self.number()?)?;
        record.size = self.number()?;
        let mut checksum = [0; 4];
        self.file.read_exact(&mut checksum).map_err(|_| damaged())?;
        record.checksum = u32::from_le_bytes(checksum);
        for _ in 0..self.number()? {
            record.regions.push((self.number()?, self.number()?));
        }
        record.target = self.bytes()?;
        for _ in 0..self.number()? {
            record.xattrs.push((self.bytes()?, self.bytes()?));
        }
        Ok(Some(record))
    }

    fn number(&mut self) -> Result<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.file.read_exact(&mut byte).map_err(|_| damaged())?;
            number |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(damaged())
    }

    fn bytes(&mut self) -> Result<Vec<u8>> {
        let length = self.number()?;
        if length > MAX_FIELD {
            return Err(damaged());
        }
        let mut bytes = Vec::new();
        let read = (&mut self.file).take(length).read_to_end(&mut bytes);
        if read.is_ok_and(|read| read as u64 == length) { Ok(bytes) } else { Err(damaged()) }
    }
}

/// Writes the index of a layer whose files are those of another, in other places. What has moved
/// comes last and takes the place of what is there, as it does in the tree.
pub(super) fn rewrite(from: &Path, to: &Path, place: impl Fn(&[u8]) -> Vec<u8>) -> Result<()> {
    let mut writer = Writer::create(to)?;
    for moved in [false, true] {
        let mut reader = Reader::open(from)?;
        while let Some(mut record) = reader.next()? {
            let path = place(&record.path);
            if (path != record.path) == moved {
                record.path = path;
                record.replaces |= moved;
                writer.write(&record)?;
            }
        }
    }
    writer.finish()
}

fn damaged() -> Error {
    Error::archive(b"", "the layer's index is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(path: &str) -> Record {
        let mut record = Record::new(path.into(), Type::File);
        record.owned = Owned { mode: 0o4755, uid: 1, gid: 65534, seconds: -3, nanos: 7 };
        (record.size, record.checksum) = (1 << 40, 0xdead_beef);
        record.regions = vec![(0, 1), (1 << 39, 5)];
        record.xattrs = vec![(b"user.a".to_vec(), vec![0, 255])];
        record
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut link = Record::new(b"usr/bin/b".to_vec(), Type::Symlink);
        (link.target, link.replaces) = (vec![0xff, b'/'], true);
        let all = [record("usr/bin/a"), link, record("var"), record("")];
        let mut writer = Writer::create(dir.path()).unwrap();
        all.iter().for_each(|record| writer.write(record).unwrap());
        writer.finish().unwrap();
        let mut reader = Reader::open(dir.path()).unwrap();
        for wanted in &all {
            assert_eq!(reader.next().unwrap().as_ref(), Some(wanted));
        }
        assert_eq!(reader.next().unwrap(), None);
    }

    #[test]
    fn a_damaged_index_is_an_error_wherever_it_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(dir.path()).unwrap();
        writer.write(&record("usr/bin/a")).unwrap();
        writer.finish().unwrap();
        let whole = std::fs::read(dir.path().join(NAME)).unwrap();
        for length in 0..whole.len() {
            std::fs::write(dir.path().join(NAME), &whole[..length]).unwrap();
            let read = Reader::open(dir.path()).and_then(|mut reader| reader.next());
            assert!(matches!(read, Err(_) | Ok(None)), "{length}");
            assert!(length == MAGIC.len() || read.is_err(), "{length}");
        }
    }
}
