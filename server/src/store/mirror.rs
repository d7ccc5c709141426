//! A copy of every record as a file of its own, from which a database that is lost or broken is made again.
//!
//! `<dir>/<table>/<key>` holds the bytes of the record. A file appears whole or not at all, after its record was
//! committed and before anybody is told so; it is never synced to the disk. The database decides wherever it can
//! be read: a file without a record, or another than the record, is replaced at the next start. The commit's number,
//! which every commit changes, is written over its file instead: a few bytes of one page, so whole as well.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use super::{ASIDE, Entries, META, SEQUENCE, Write, decode};
use crate::error::{Error, Result};

/// The one file under way; no key begins with a dot.
const DRAFT: &str = ".draft";
/// A record is a few kilobytes; what is larger is no record of ours.
const MAX_RECORD: u64 = 16 << 20;

#[derive(Debug)]
pub(super) struct Mirror {
    dir: PathBuf,
}

impl Mirror {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Follows some writes. What fails is logged: the records themselves are safe.
    pub(super) fn follow(&self, writes: &[Write]) {
        for write in writes.iter().filter(|write| write.table != ASIDE) {
            let done = match &write.value {
                Some(value) if write.table == META && self.overwrite(&write.key, value) => Ok(()),
                Some(value) => self.put(write.table, &write.key, value),
                None => self.remove(write.table, &write.key),
            };
            if let Err(err) = done {
                tracing::warn!(%err, "copy of a record not kept");
            }
        }
    }

    /// The number of the last commit that the copies followed.
    pub(super) fn sequence(&self) -> u64 {
        self.get(META, SEQUENCE).and_then(|bytes| decode(&bytes).ok()).unwrap_or(0)
    }

    /// The copy of one record.
    pub(super) fn get(&self, table: &str, key: &str) -> Option<Vec<u8>> {
        let path = self.path(table, key);
        let metadata = std::fs::symlink_metadata(&path).ok()?;
        (metadata.is_file() && metadata.len() <= MAX_RECORD).then(|| std::fs::read(&path).ok())?
    }

    /// The copies of a table's records.
    pub(super) fn entries(&self, table: &str) -> Entries {
        let keys = self.names(&self.dir.join(table));
        keys.into_iter().filter_map(|key| Some((key.clone(), self.get(table, &key)?))).collect()
    }

    /// Every copy that there is, as the writes that made them; for tables known by name.
    pub(super) fn all(&self, tables: &[&'static str]) -> Vec<Write> {
        let of = |table: &&'static str| {
            let table = *table;
            let entries = self.entries(table).into_iter();
            entries.map(move |(key, value)| Write { table, key, value: Some(value) })
        };
        tables.iter().flat_map(of).collect()
    }

    /// Makes the copies of a table those of these records and no others.
    pub(super) fn agree(&self, table: &str, records: &Entries) {
        let copies = self.entries(table);
        let done = || -> Result<()> {
            for record in records.iter().filter(|record| !copies.contains(record)) {
                self.put(table, &record.0, &record.1)?;
            }
            let gone = |key: &&String| !records.iter().any(|(kept, _)| kept == *key);
            copies
                .iter()
                .map(|(key, _)| key)
                .filter(gone)
                .try_for_each(|key| self.remove(table, key))
        };
        if let Err(err) = done() {
            tracing::warn!(%err, "copies of records not kept");
        }
    }

    fn path(&self, table: &str, key: &str) -> PathBuf {
        self.dir.join(table).join(key)
    }

    fn names(&self, dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| !name.starts_with('.')).collect()
    }

    fn put(&self, table: &str, key: &str, value: &[u8]) -> Result<()> {
        let (path, dir) = (self.path(table, key), self.dir.join(table));
        let draft = dir.join(DRAFT);
        let write = || std::fs::write(&draft, value);
        let written = match write() {
            Err(err) if err.kind() == ErrorKind::NotFound => {
                let mut private = std::fs::DirBuilder::new();
                private.recursive(true).mode(0o700);
                private.create(&dir).and_then(|()| write())
            }
            other => other,
        };
        written.and_then(|()| std::fs::rename(&draft, &path)).map_err(Error::io("write", &path))
    }

    /// Writes over a file of the same length; false if there is none.
    fn overwrite(&self, key: &str, value: &[u8]) -> bool {
        let Ok(file) = File::options().write(true).open(self.path(META, key)) else { return false };
        file.metadata().is_ok_and(|file| file.len() == value.len() as u64)
            && file.write_all_at(value, 0).is_ok()
    }

    fn remove(&self, table: &str, key: &str) -> Result<()> {
        let path = self.path(table, key);
        match std::fs::remove_file(&path) {
            Err(err) if err.kind() != ErrorKind::NotFound => Err(Error::io("remove", &path)(err)),
            _ => Ok(()),
        }
    }
}
