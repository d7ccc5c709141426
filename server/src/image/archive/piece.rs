//! A stretch of a file: a blob where it lies in an archive.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::super::error::Error;
use super::super::pull::blocking;

/// What is read at once.
const CHUNK: usize = 256 << 10;

/// Bytes of a file, from front to back. What the file has lost meanwhile is an error, as is what it says no more.
#[derive(Debug)]
pub(in crate::image) struct Piece {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Piece {
    pub(in crate::image) fn new(file: Arc<File>, at: u64, length: u64) -> Self {
        Self { file, at, end: at.saturating_add(length) }
    }

    /// What is left of it.
    pub(in crate::image) fn len(&self) -> u64 {
        self.end - self.at
    }

    /// All of it, if it is no longer than `cap`. Blocks.
    pub(super) fn read(&self, what: &str, cap: u64) -> Result<Vec<u8>, Error> {
        if self.len() > cap {
            return Err(Error::content(format!("{what}: more than {cap} bytes")));
        }
        let mut bytes = vec![0; usize::try_from(self.len()).unwrap_or(usize::MAX)];
        self.read_at(&mut bytes, self.at)?;
        Ok(bytes)
    }

    /// Its first bytes, fewer if it is shorter. Blocks.
    pub(in crate::image) fn magic(&self) -> Result<[u8; 4], Error> {
        let mut magic = [0; 4];
        let count = usize::try_from(self.len()).unwrap_or(usize::MAX).min(magic.len());
        self.read_at(&mut magic[..count], self.at)?;
        Ok(magic)
    }

    /// Reads on; `None` at the end. Blocks.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let count = usize::try_from(self.len()).unwrap_or(usize::MAX).min(CHUNK);
        if count == 0 {
            return Ok(None);
        }
        let mut bytes = vec![0; count];
        self.read_at(&mut bytes, self.at)?;
        self.at += count as u64;
        Ok(Some(bytes.into()))
    }

    /// The same from asynchronous code.
    pub(in crate::image) async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let mut rest = Self { file: self.file.clone(), at: self.at, end: self.end };
        let read = blocking(move || rest.next()).await?;
        self.at += read.as_ref().map_or(0, |bytes| bytes.len() as u64);
        Ok(read)
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> Result<(), Error> {
        self.file.read_exact_at(bytes, at).map_err(Error::io("read the archive", Path::new("")))
    }
}
