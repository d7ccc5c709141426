//! Manifests, indexes and configs (and, where configured, layer blobs) as files named by their digest.
//!
//! What is read back is verified, so that a file cut short by a loss of power counts as missing.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::digest::Digest;
use super::error::Error;
use crate::failpoint;

/// The directory of files by digest.
#[derive(Debug)]
pub(super) struct Content {
    dir: PathBuf,
    next: AtomicU64,
}

impl Content {
    /// Opens `dir`, making it where needed; unfinished files of an earlier run go.
    pub(super) fn open(dir: &Path) -> Result<Self, Error> {
        let unfinished = dir.join("ingest");
        match fs::remove_dir_all(&unfinished) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &unfinished)(err));
            }
            _ => {}
        }
        for sub in ["ingest", "sha256", "sha512"] {
            let path = dir.join(sub);
            fs::create_dir_all(&path).map_err(Error::io("make the directory", &path))?;
        }
        Ok(Self { dir: dir.to_owned(), next: AtomicU64::new(0) })
    }

    /// Where the files are.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let algorithm = digest.as_str().split(':').next().unwrap_or_default();
        self.dir.join(algorithm).join(digest.hex())
    }

    /// Whether there is a file of that name.
    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    /// The whole content, if it is here and intact.
    pub(super) fn read(&self, digest: &Digest, cap: u64) -> Option<Vec<u8>> {
        let file = File::open(self.path(digest)).ok()?;
        let mut bytes = Vec::new();
        file.take(cap + 1).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 <= cap && digest.matches(&bytes)).then_some(bytes)
    }

    /// Keeps some bytes. Durable with the next sync of the file system.
    pub(super) fn write(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        let mut draft = self.draft()?;
        draft.write(bytes)?;
        draft.keep(self, digest)
    }

    /// A file that is not named yet.
    pub(super) fn draft(&self) -> Result<Draft, Error> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join("ingest").join(number.to_string());
        failpoint::step("content/create", || {
            let file = File::create(&path).map_err(Error::io("create", &path))?;
            Ok(Draft { path, file })
        })
    }

    /// A file without a name, to be written and read back: it goes with its last descriptor.
    pub(super) fn spool(&self) -> Result<File, Error> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join("ingest").join(number.to_string());
        let mut options = File::options();
        options.read(true).write(true).create_new(true);
        let file = options.open(&path).map_err(Error::io("create", &path))?;
        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        Ok(file)
    }

    /// Opens content as it is.
    pub(super) fn open_file(&self, digest: &Digest) -> Option<File> {
        File::open(self.path(digest)).ok()
    }

    /// Forgets content; no error if there is none.
    pub(super) fn remove(&self, digest: &Digest) -> Result<(), Error> {
        let path = self.path(digest);
        failpoint::step("content/remove", || match fs::remove_file(&path) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", &path)(err))
            }
            _ => Ok(()),
        })
    }

    /// Whether a sync of the file system of `path` is one of this directory's, too.
    pub(super) fn is_beside(&self, path: &Path) -> bool {
        let device = |path: &Path| fs::metadata(path).map(|found| found.dev());
        matches!((device(&self.dir), device(path)), (Ok(own), Ok(other)) if own == other)
    }

    /// Makes all that was kept durable.
    pub(super) fn sync(&self) -> Result<(), Error> {
        let dir = File::open(&self.dir).map_err(Error::io("open", &self.dir))?;
        failpoint::step("content/sync", || {
            rustix::fs::syncfs(dir).map_err(Error::io("sync", &self.dir))
        })
    }

    /// Every digest that has a file.
    pub(super) fn list(&self) -> Result<Vec<Digest>, Error> {
        let mut digests = Vec::new();
        for algorithm in ["sha256", "sha512"] {
            let dir = self.dir.join(algorithm);
            for entry in fs::read_dir(&dir).map_err(Error::io("list", &dir))? {
                let name = entry.map_err(Error::io("list", &dir))?.file_name();
                digests.extend(Digest::parse(&format!("{algorithm}:{}", name.to_string_lossy())));
            }
        }
        Ok(digests)
    }
}

/// A file being written; gone when dropped without a name.
#[derive(Debug)]
pub(super) struct Draft {
    path: PathBuf,
    file: File,
}

impl Draft {
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        failpoint::step("content/write", || {
            self.file.write_all(bytes).map_err(Error::io("write", &self.path))
        })
    }

    /// Gives the file its name; the content must have been verified.
    pub(super) fn keep(self, content: &Content, digest: &Digest) -> Result<(), Error> {
        failpoint::step("content/keep", || {
            fs::rename(&self.path, content.path(digest)).map_err(Error::io("rename", &self.path))
        })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Already renamed, or of no use: what is left over goes at the next start.
        fs::remove_file(&self.path).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_counts_as_missing() {
        let dir = tempfile::tempdir().unwrap();
        let content = Content::open(dir.path()).unwrap();
        let digest = Digest::sha256(b"hello");
        assert_eq!(content.read(&digest, 100), None);
        content.write(&digest, b"hello").unwrap();
        assert_eq!(content.read(&digest, 5).as_deref(), Some(&b"hello"[..]));
        assert_eq!(content.read(&digest, 4), None);
        assert_eq!(content.list().unwrap().as_slice(), std::slice::from_ref(&digest));
        fs::write(content.path(&digest), b"hell").unwrap();
        assert_eq!(content.read(&digest, 100), None);
        content.remove(&digest).unwrap();
        content.remove(&digest).unwrap();
        drop(content.draft().unwrap());
        assert_eq!(fs::read_dir(dir.path().join("ingest")).unwrap().count(), 0);
    }
}
