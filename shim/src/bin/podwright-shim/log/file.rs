//! One CRI log file: appended to in whole lines, survives a full disk, can be replaced.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use shim::record::Logged;

use super::count::Written;
use super::line::{Batch, Stream};
use super::stamp::Stamp;

/// Readable by the group, as containerd's.
const MODE: u32 = 0o640;

/// Without a path nothing is kept: the output is only shown to those who look on.
pub(crate) struct LogFile {
    path: PathBuf,
    file: Option<File>,
    lost: Lost,
    written: Arc<Written>,
}

/// What could not be written since the last time it could.
#[derive(Default)]
struct Lost {
    lines: u64,
    bytes: u64,
    reason: String,
}

impl LogFile {
    pub(crate) fn open(path: PathBuf, written: Arc<Written>) -> io::Result<Self> {
        Ok(Self { file: open(&path)?, path, lost: Lost::default(), written })
    }

    /// Goes on in a new file at the same path. The old one stays in use if that is not possible.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the container has no log"));
        }
        self.file = open(&self.path)?;
        Ok(())
    }

    /// Appends a batch in one write. What the disk does not take is counted and dropped: the
    /// container must go on.
    pub(crate) fn append(&mut self, batch: &Batch, stream: Stream) {
        let Some(file) = &self.file else { return };
        if self.lost.lines > 0 {
            self.lost.report(file, stream);
        }
        let appended = append(file, &batch.bytes);
        let whole = appended.as_ref().map_or_else(|(_, whole)| *whole, |()| batch.bytes.len());
        let bytes = whole as u64;
        self.written.add(Logged { bytes, ..Logged::default() });
        if let Err((error, _)) = appended {
            let rest = &batch.bytes[whole..];
            let lines = memchr::memchr_iter(b'\n', rest).count() as u64;
            let bytes = rest.len() as u64;
            self.lost.lines += lines;
            self.lost.bytes += bytes;
            self.lost.reason = error.to_string();
            self.written.add(Logged { bytes: 0, lost_bytes: bytes, lost_lines: lines });
        }
    }
}

impl Lost {
    /// Tells the reader that something is missing here, once the disk takes lines again.
    fn report(&mut self, file: &File, stream: Stream) {
        let stream = if stream == Stream::Stdout { "stdout" } else { "stderr" };
        let stamp = Stamp::now();
        let Lost { lines, bytes, reason } = &*self;
        let mut marker = stamp.as_bytes().to_vec();
        let text =
            format!(" {stream} F [podwright: {lines} lines ({bytes} bytes) lost: {reason}]\n");
        marker.extend_from_slice(text.as_bytes());
        if append(file, &marker).is_ok() {
            *self = Self::default();
        }
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(MODE)
        // Neither a planted link nor a planted fifo gets what a container prints.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(Some(file))
}

/// Writes all of it, or says how much of it, in whole lines, is in the file.
fn append(mut file: &File, bytes: &[u8]) -> Result<(), (io::Error, usize)> {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return Err((io::ErrorKind::WriteZero.into(), untear(file, bytes, written))),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((error, untear(file, bytes, written))),
        }
    }
    Ok(())
}

/// Takes back the part of a line that the disk still took, and returns what stays.
fn untear(file: &File, bytes: &[u8], written: usize) -> usize {
    let whole = memchr::memrchr(b'\n', &bytes[..written]).map_or(0, |end| end + 1);
    let torn = (written - whole) as u64;
    if torn > 0
        && let Ok(metadata) = file.metadata()
    {
        let _ = file.set_len(metadata.size().saturating_sub(torn));
    }
    whole
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn batch(text: &str) -> Batch {
        Batch { bytes: text.as_bytes().to_vec(), lines: 1 }
    }

    #[test]
    fn a_reopened_log_goes_on_in_a_new_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("0.log");
        let mut log = LogFile::open(path.clone(), Arc::default()).expect("a log");
        assert_eq!(path.metadata().expect("a file").permissions().mode() & 0o777 & !0o640, 0);
        log.append(&batch("one\n"), Stream::Stdout);
        std::fs::rename(&path, dir.path().join("0.log.1")).expect("rotated");
        log.append(&batch("two\n"), Stream::Stdout);
        log.reopen().expect("reopened");
        log.append(&batch("three\n"), Stream::Stdout);
        let read = |name| std::fs::read_to_string(dir.path().join(name)).expect("a file");
        assert_eq!((read("0.log.1"), read("0.log")), ("one\ntwo\n".into(), "three\n".into()));
    }

    #[test]
    fn a_failed_reopen_leaves_no_file_and_keeps_the_old_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let inner = dir.path().join("pod");
        std::fs::create_dir(&inner).expect("a directory");
        let mut log = LogFile::open(inner.join("0.log"), Arc::default()).expect("a log");
        std::fs::rename(&inner, dir.path().join("away")).expect("renamed");
        assert!(log.reopen().is_err());
        assert!(!inner.exists());
        log.append(&batch("still\n"), Stream::Stdout);
        let kept = std::fs::read_to_string(dir.path().join("away/0.log")).expect("a file");
        assert_eq!(kept, "still\n");
    }

    #[test]
    fn neither_links_nor_fifos_are_logs() {
        let dir = tempfile::tempdir().expect("a directory");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/tmp/podwright-no-such", &link).expect("a link");
        assert!(LogFile::open(link, Arc::default()).is_err());
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .expect("a fifo");
        assert!(LogFile::open(fifo, Arc::default()).is_err());
    }

    #[test]
    fn a_full_disk_loses_whole_lines_and_says_so() {
        // /dev/full is no regular file, so the log is opened elsewhere and then swapped.
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("0.log");
        let written = Arc::new(Written::default());
        let mut log = LogFile::open(path.clone(), Arc::clone(&written)).expect("a log");
        log.file = Some(OpenOptions::new().append(true).open("/dev/full").expect("/dev/full"));
        log.append(&batch("gone\nagain\n"), Stream::Stdout);
        log.append(&batch("more\n"), Stream::Stderr);
        log.reopen().expect("reopened");
        log.append(&batch("back\n"), Stream::Stdout);
        let text = std::fs::read_to_string(path).expect("a file");
        let (marker, rest) = text.split_once('\n').expect("two lines");
        assert_eq!(rest, "back\n");
        assert!(
            marker.contains(" stdout F [podwright: 3 lines (16 bytes) lost: No space left"),
            "{marker}"
        );
        assert_eq!(written.now(), Logged { bytes: 5, lost_bytes: 16, lost_lines: 3 });
    }
}
