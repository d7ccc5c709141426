//! The file system of one file, in its own process.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite,
    Request, WriteFlags,
};

use super::NAME;
use super::log::Entry;

/// The kernel may believe what it was told for as long as the world lives.
const FOREVER: Duration = Duration::from_secs(1 << 30);
/// Larger writes come in pieces, as a disk may tear them.
const MAX_WRITE: u32 = 128 << 10;
const FILE: INodeNo = INodeNo(2);

struct Recorder {
    contents: File,
    size: u64,
    log: Mutex<File>,
}

/// Serves a copy of `base` below `mountpoint` until it is unmounted, and writes down in `log` what is done to it.
///
/// # Errors
/// When a file cannot be opened, or FUSE does not work here.
pub fn serve(mountpoint: &Path, base: &Path, log: &Path) -> std::io::Result<()> {
    let path = base.with_extension("now");
    std::fs::copy(base, &path)?;
    let contents = File::options().read(true).write(true).open(&path)?;
    let size = contents.metadata()?.len();
    let log = Mutex::new(File::create(log)?);
    let mut config = fuser::Config::default();
    config.mount_options = vec![MountOption::FSName("podwright-e2e".into())];
    fuser::mount(Recorder { contents, size, log }, mountpoint, &config)
}

impl Recorder {
    fn attributes(&self, node: INodeNo) -> FileAttr {
        let directory = node != FILE;
        let epoch = SystemTime::UNIX_EPOCH;
        FileAttr {
            ino: node,
            size: if directory { 0 } else { self.size },
            blocks: self.size / 512,
            atime: epoch,
            mtime: epoch,
            ctime: epoch,
            crtime: epoch,
            kind: if directory { FileType::Directory } else { FileType::RegularFile },
            perm: if directory { 0o700 } else { 0o600 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    /// Before the kernel is answered: whoever hears that something is durable finds it in the log.
    fn record(&self, entry: &Entry) -> Result<(), Errno> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.write_all(&entry.encode()).map_err(Errno::from)
    }
}

impl Filesystem for Recorder {
    fn init(&mut self, _: &Request, config: &mut fuser::KernelConfig) -> std::io::Result<()> {
        config
            .set_max_write(MAX_WRITE)
            .map_err(|_| std::io::ErrorKind::Unsupported.into())
            .map(drop)
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == NAME {
            reply.entry(&FOREVER, &self.attributes(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &self.attributes(node));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let left = self.size.saturating_sub(offset).min(size.into());
        let mut bytes = vec![0; usize::try_from(left).unwrap_or(0)];
        match self.contents.read_exact_at(&mut bytes, offset) {
            Ok(()) => reply.data(&bytes),
            Err(err) => reply.error(err.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self
            .contents
            .write_all_at(bytes, offset)
            .map_err(Errno::from)
            .and_then(|()| self.record(&Entry::Write { offset, bytes: bytes.into() }));
        match written {
            Ok(()) => reply.written(u32::try_from(bytes.len()).unwrap_or(MAX_WRITE)),
            Err(err) => reply.error(err),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.record(&Entry::Flush) {
            Ok(()) => reply.ok(),
            Err(err) => reply.error(err),
        }
    }
}
