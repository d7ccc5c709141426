//! redb: copy-on-write B-trees in one file, an fdatasync for each commit.

use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};

use super::{Engine, Write};
use crate::error::{Error, Result};

/// Page cache in bytes: the whole of a node's records is a few megabytes.
const CACHE: usize = 1 << 20;

pub(super) struct Redb(Database);

type Table<'a> = TableDefinition<'a, &'static str, &'static [u8]>;

fn failed(what: &str, err: impl std::fmt::Display) -> Error {
    Error::Store(format!("{what}: {err}"))
}

impl Engine for Redb {
    fn open(path: &Path) -> Result<Self> {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE);
        let open = || -> Result<_, redb::DatabaseError> {
            let mut database = builder.create(path)?;
            // What it could mend is an earlier commit; the caller sees that by its number.
            database.check_integrity()?;
            Ok(Self(database))
        };
        open().map_err(|err| failed(&format!("open {}", path.display()), err))
    }

    fn commit(&self, writes: &[Write]) -> Result<()> {
        let txn = self.0.begin_write().map_err(|err| failed("begin", err))?;
        for write in writes {
            let mut table =
                txn.open_table(Table::new(write.table)).map_err(|err| failed(write.table, err))?;
            match &write.value {
                Some(value) => table.insert(write.key.as_str(), value.as_slice()).map(drop),
                None => table.remove(write.key.as_str()).map(drop),
            }
            .map_err(|err| failed(&write.key, err))?;
        }
        txn.commit().map_err(|err| failed("commit", err))
    }

    fn scan(&self, table: &str) -> Result<Vec<(String, Vec<u8>)>> {
        let txn = self.0.begin_read().map_err(|err| failed("begin", err))?;
        let open = match txn.open_table(Table::new(table)) {
            Ok(open) => open,
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(err) => return Err(failed(table, err)),
        };
        let entries = open.iter().map_err(|err| failed(table, err))?;
        entries
            .map(|entry| {
                let (key, value) = entry.map_err(|err| failed(table, err))?;
                Ok((key.value().to_owned(), value.value().to_vec()))
            })
            .collect()
    }
}
