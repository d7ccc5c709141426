//! A layer's bytes as they come: counted, hashed once, and cut into entries and their contents.

use std::io::Read;

use sha2::{Digest, Sha256};
use tar_core::parse::{ParseEvent, Parser};

use super::Limits;
use super::entry::Entry;
use crate::{Error, LayerId, Result};

/// What is read at once.
const CHUNK: usize = 256 << 10;
/// Headers come in blocks of this size, contents are padded to it.
const BLOCK: u64 = 512;

/// A tar stream.
pub(super) struct Stream<R> {
    source: R,
    parser: Parser,
    buffer: Vec<u8>,
    /// What of the buffer is read and not yet consumed.
    start: usize,
    end: usize,
    hash: Sha256,
    total: u64,
    limits: Limits,
}

impl<R: Read> Stream<R> {
    pub(super) fn new(source: R, limits: Limits) -> Self {
        let mut parser = Parser::new(tar_core::parse::Limits {
            max_metadata_size: limits.max_header,
            max_path_len: Some(limits.max_path),
            ..tar_core::parse::Limits::default()
        });
        // Numbers are checked by `Entry`, which also knows negative and fractional times.
        parser.set_ignore_pax_errors(true);
        parser.set_allow_empty_path(true);
        let buffer = vec![0; CHUNK];
        Stream { source, parser, buffer, start: 0, end: 0, hash: Sha256::new(), total: 0, limits }
    }

    /// The next entry; its contents must be taken with [`Stream::content`] or skipped.
    pub(super) fn next(&mut self) -> Result<Option<Entry>> {
        loop {
            let input = &self.buffer[self.start..self.end];
            let event =
                self.parser.parse(input).map_err(|err| Error::archive(b"", err.to_string()))?;
            let (consumed, entry) = match event {
                ParseEvent::NeedData { min_bytes } => {
                    if !self.need(min_bytes)? {
                        return Ok(None);
                    }
                    continue;
                }
                ParseEvent::Entry { consumed, entry } => {
                    (consumed, Some(Entry::new(&entry, None)?))
                }
                ParseEvent::SparseEntry { consumed, entry, sparse_map, real_size } => {
                    (consumed, Some(Entry::new(&entry, Some((sparse_map, real_size)))?))
                }
                ParseEvent::GlobalExtensions { consumed, .. } => (consumed, None),
                ParseEvent::End { .. } => return Ok(None),
            };
            self.start += consumed;
            if entry.is_some() {
                return Ok(entry);
            }
        }
    }

    /// Reads until there are `wanted` bytes, in large steps so that a header that grows is not
    /// parsed over and over. False at the end of a stream that lacks its end mark, as some do.
    fn need(&mut self, wanted: usize) -> Result<bool> {
        let have = self.end - self.start;
        // All headers of an entry, and as much again for a sparse map.
        if wanted > 2 * self.limits.max_header as usize + CHUNK {
            let limit = u64::from(self.limits.max_header);
            return Err(Error::Limit { what: "header bytes", limit });
        }
        let wanted = wanted.max(if have > 2 * BLOCK as usize { 2 * have } else { 0 });
        while self.end - self.start < wanted {
            if self.fill(wanted)? {
                continue;
            }
            let rest = &self.buffer[self.start..self.end];
            if rest.iter().all(|&byte| byte == 0) && rest.len() as u64 <= BLOCK {
                return Ok(false);
            }
            if rest.len() > have {
                return Ok(true);
            }
            return Err(Error::archive(b"", "the stream ends within an entry"));
        }
        Ok(true)
    }

    /// One read; false at the end. There will be room for `wanted` bytes.
    fn fill(&mut self, wanted: usize) -> Result<bool> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 && self.buffer.len() - self.start < wanted.max(BLOCK as usize) {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.buffer.len() < wanted || self.end == self.buffer.len() {
            self.buffer.resize(wanted.next_multiple_of(CHUNK).max(self.end + CHUNK), 0);
        }
        let read = loop {
            match self.source.read(&mut self.buffer[self.end..]) {
                Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
                other => break other.map_err(Error::Read)?,
            }
        };
        self.hash.update(&self.buffer[self.end..self.end + read]);
        self.end += read;
        self.total += read as u64;
        if self.total > self.limits.max_bytes {
            return Err(Error::Limit { what: "bytes", limit: self.limits.max_bytes });
        }
        Ok(read > 0)
    }

    /// Gives the next `size` bytes to `take`, piece by piece, and passes over the padding.
    pub(super) fn content(
        &mut self,
        size: u64,
        mut take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut left = size;
        while left > 0 {
            let piece = self.available(left)?;
            take(&self.buffer[self.start..self.start + piece])?;
            self.start += piece;
            left -= piece as u64;
        }
        let mut padding = size.next_multiple_of(BLOCK) - size;
        while padding > 0 {
            let piece = self.available(padding)?;
            self.start += piece;
            padding -= piece as u64;
        }
        Ok(())
    }

    fn available(&mut self, most: u64) -> Result<usize> {
        if self.start == self.end && !self.fill(CHUNK)? {
            return Err(Error::archive(b"", "the stream ends within an entry's contents"));
        }
        Ok(((self.end - self.start) as u64).min(most) as usize)
    }

    /// Reads what is left, which belongs to the digest though not to any entry.
    pub(super) fn finish(mut self) -> Result<LayerId> {
        loop {
            self.start = self.end;
            if !self.fill(CHUNK)? {
                return Ok(LayerId::from_digest(&self.hash.finalize()));
            }
        }
    }
}
