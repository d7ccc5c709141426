//! sled, with what its own flush lacks: on Linux it calls sync_file_range, which does not reach the disk's
//! metadata, so acknowledged commits were lost when power was cut. Its file is fsynced after each commit.

use std::fs::File;
use std::path::Path;

use super::{Engine, Write};
use crate::error::{Error, Result};

pub(super) struct Sled {
    db: sled::Db,
    file: File,
}

fn failed(what: &str, err: impl std::fmt::Display) -> Error {
    Error::Store(format!("{what}: {err}"))
}

impl Engine for Sled {
    fn open(path: &Path) -> Result<Self> {
        let db = sled::Config::new()
            .path(path)
            .flush_every_ms(None)
            .cache_capacity(1 << 20)
            .open()
            .map_err(|err| failed(&format!("open {}", path.display()), err))?;
        let data = path.join("db");
        let file = File::open(&data).map_err(Error::io("open", &data))?;
        for entry in &db {
            entry.map_err(|err| failed(&format!("read {}", path.display()), err))?;
        }
        Ok(Self { db, file })
    }

    /// One batch on the default tree, keys led by their table: sled's batches are atomic within one tree.
    fn commit(&self, writes: &[Write]) -> Result<()> {
        let mut batch = sled::Batch::default();
        for write in writes {
            let key = full_key(write.table, &write.key);
            match &write.value {
                Some(value) => batch.insert(key, value.as_slice()),
                None => batch.remove(key),
            }
        }
        self.db.apply_batch(batch).map_err(|err| failed("commit", err))?;
        self.db.flush().map_err(|err| failed("flush", err))?;
        self.file.sync_all().map_err(|err| failed("fsync", err))
    }

    fn scan(&self, table: &str) -> Result<Vec<(String, Vec<u8>)>> {
        let prefix = full_key(table, "");
        self.db
            .scan_prefix(&prefix)
            .map(|entry| {
                let (key, value) = entry.map_err(|err| failed(table, err))?;
                let key =
                    std::str::from_utf8(&key[prefix.len()..]).map_err(|err| failed(table, err))?;
                Ok((key.to_owned(), value.to_vec()))
            })
            .collect()
    }
}

fn full_key(table: &str, key: &str) -> Vec<u8> {
    [table.as_bytes(), b"\0", key.as_bytes()].concat()
}
