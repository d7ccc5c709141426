//! What must survive a restart: records by table and key, in one small embedded database each for pods and
//! for images, so that the commit of a pod's record never waits behind that of an image.
//!
//! Everything is read once, at start; after that memory is read and the store only written. A write returns
//! when it is on the disk. One writer thread for each database folds all writes that wait into one commit
//! (redb has no group commit of its own).
//!
//! Records are versioned JSON. Each has a copy in a file of its own (see `mirror`). A record that cannot be
//! decoded is set aside and replaced by its copy, and a database that cannot be read is renamed aside and made
//! again from the copies, as is one that is gone: none of these keeps the daemon from starting.

use std::fs::File;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::oneshot;

use crate::error::{Error, Result};

mod mirror;
#[cfg(feature = "store-redb")]
mod redb;
#[cfg(feature = "store-sled")]
mod sled;
mod writer;

#[cfg(all(feature = "store-redb", not(feature = "store-sled")))]
use redb::Redb as Chosen;
#[cfg(feature = "store-sled")]
use sled::Sled as Chosen;

use mirror::Mirror;
use writer::Writer;

/// Leads every record; a reader that does not know the version sets the record aside.
const RECORD_VERSION: u8 = 1;
/// Where undecodable records go: `<table>/<key>`.
const ASIDE: &str = "aside";
/// Where the number of the last commit is, in the database and beside the copies: the one with the higher number
/// knows more. An engine that finds damage may go back to an earlier commit and say nothing.
const META: &str = "meta";
const SEQUENCE: &str = "sequence";

/// One change: a value to keep, or `None` to forget the key.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    table: &'static str,
    key: String,
    value: Option<Vec<u8>>,
}

/// A key-value engine: ordered tables of byte strings.
///
/// `commit` applies all writes or none, and returns only when they survive a loss of power. `scan` sees every
/// commit that returned. A table that was never written is empty. One process at a time has a database open.
trait Engine: Send + Sized + 'static {
    /// Opens the database at `path`, creating it if there is none, and makes sure that all of it can be read.
    fn open(path: &Path) -> Result<Self>;
    /// Applies the writes, in order, in one durable transaction.
    fn commit(&self, writes: &[Write]) -> Result<()>;
    /// All entries of a table, by key.
    fn scan(&self, table: &str) -> Result<Vec<(String, Vec<u8>)>>;
}

type Entries = Vec<(String, Vec<u8>)>;
/// What became of a commit.
type Outcome = oneshot::Receiver<Result<(), String>>;

/// Writes that belong together, and who waits for them; without one, they are made good for if they fail.
struct Batch {
    writes: Vec<Write>,
    done: Option<oneshot::Sender<Result<(), String>>>,
}

enum Job {
    Commit(Batch),
    /// Is committed with the next batch, and before the next scan.
    Note(Write),
    Scan(&'static str, mpsc::SyncSender<Result<Entries>>),
    /// Has the copies of a table be those of these records.
    Agree(&'static str, Entries),
}

/// A handle on one database; clones share it.
#[derive(Clone)]
pub(crate) struct Store {
    jobs: mpsc::Sender<Job>,
    mirror: std::sync::Arc<Mirror>,
    new: bool,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

impl Store {
    /// Opens the database at `path` (a file or directory, by engine), which holds these tables; copies of its
    /// records are kept below `mirror`. A database that is broken is renamed aside; then, and when there was none,
    /// it is made again from the copies.
    ///
    /// # Errors
    /// When not even an empty database can be made there.
    pub(crate) fn open(path: &Path, mirror: &Path, tables: &[&'static str]) -> Result<Self> {
        Self::open_with::<Chosen>(path, mirror, tables)
    }

    fn open_with<E: Engine>(path: &Path, mirror: &Path, tables: &[&'static str]) -> Result<Self> {
        let mirror = std::sync::Arc::new(Mirror::new(mirror));
        let mut new = !path.exists();
        if new {
            make::<E>(path, &mirror, tables)?;
        }
        let engine = match open_whole::<E>(path) {
            Ok(engine) if mirror.sequence() <= sequence(&engine) => engine,
            Ok(engine) => {
                drop(engine);
                new = true;
                replace(path, "it lost its last commits", &mirror, tables)?
            }
            Err(err) if path.exists() => {
                new = true;
                replace(path, &err.to_string(), &mirror, tables)?
            }
            Err(err) => return Err(err),
        };
        let (jobs, queue) = mpsc::channel();
        let writer = Writer::new(path.to_owned(), tables, engine, mirror.clone());
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || writer.serve(&queue))
            .map_err(Error::io("start the writer thread of", path))?;
        Ok(Self { jobs, mirror, new })
    }

    /// Whether there was no database before, or none that could be used: records may be missing that no copy had.
    pub(crate) fn is_new(&self) -> bool {
        self.new
    }

    /// Keeps `value` under `key`; durable once the future is done. Writes are applied in the order of the calls,
    /// not in that in which the futures are awaited.
    pub(crate) fn put<T: Serialize>(
        &self,
        table: &'static str,
        key: &str,
        value: &T,
    ) -> impl Future<Output = Result<()>> + Send + use<T> {
        let sent = encode(table, key, value).and_then(|write| self.send(vec![write]));
        settled(sent)
    }

    /// Keeps `value` under `key` behind all writes before it, without waiting for the disk. If the disk does not
    /// take it, it is tried again until it does.
    pub(crate) fn put_later<T: Serialize>(&self, table: &'static str, key: &str, value: &T) {
        let queued = encode(table, key, value).and_then(|write| {
            let batch = Batch { writes: vec![write], done: None };
            self.jobs.send(Job::Commit(batch)).map_err(|_| writer_gone())
        });
        if let Err(err) = queued {
            tracing::error!(%err, "record not kept");
        }
    }

    /// Keeps `value` under `key` with the next commit that comes, at the latest in a moment, and before any read. For
    /// what is true whether it is on record or not, and is told by something else after a crash.
    ///
    /// # Errors
    /// When the value cannot be kept at all.
    pub(crate) fn note<T: Serialize>(
        &self,
        table: &'static str,
        key: &str,
        value: &T,
    ) -> Result<()> {
        let write = encode(table, key, value)?;
        self.jobs.send(Job::Note(write)).map_err(|_| writer_gone())
    }

    /// Returns when every write that was asked for before is durable.
    pub(crate) async fn flush(&self) -> Result<()> {
        settled(self.send(Vec::new())).await
    }

    /// Forgets `key`; no error if there is none. What the disk does not take now is forgotten as soon as it does,
    /// unless it was written again.
    pub(crate) async fn delete(&self, table: &'static str, key: &str) -> Result<()> {
        settled(self.send(vec![Write { table, key: key.to_owned(), value: None }])).await
    }

    fn send(&self, writes: Vec<Write>) -> Result<Outcome> {
        let (done, outcome) = oneshot::channel();
        let batch = Batch { writes, done: Some(done) };
        self.jobs.send(Job::Commit(batch)).map_err(|_| writer_gone())?;
        Ok(outcome)
    }

    /// Every record of a table. Those that cannot be decoded are set aside and logged, and their copies take their
    /// place. Blocks: for start-up.
    ///
    /// # Errors
    /// When the engine cannot read.
    pub(crate) fn load<T: DeserializeOwned>(
        &self,
        table: &'static str,
    ) -> Result<Vec<(String, T)>> {
        let mut records = Vec::new();
        let mut entries = Vec::new();
        let mut changed = Vec::new();
        for (key, bytes) in self.scan(table)? {
            match decode(&bytes) {
                Ok(value) => {
                    entries.push((key.clone(), bytes));
                    records.push((key, value));
                }
                Err(reason) => {
                    let copy = self.mirror.get(table, &key);
                    let copy = copy.and_then(|copy| Some((decode(&copy).ok()?, copy)));
                    let with_copy = copy.is_some();
                    tracing::error!(
                        table,
                        key,
                        reason,
                        with_copy,
                        "record cannot be decoded; set aside"
                    );
                    let aside = format!("{table}/{key}");
                    changed.push(Write { table: ASIDE, key: aside, value: Some(bytes) });
                    let value = copy.map(|(value, copy)| {
                        entries.push((key.clone(), copy.clone()));
                        records.push((key.clone(), value));
                        copy
                    });
                    changed.push(Write { table, key, value });
                }
            }
        }
        if !changed.is_empty() {
            self.send(changed)?.blocking_recv().ok();
        }
        self.jobs.send(Job::Agree(table, entries)).map_err(|_| writer_gone())?;
        Ok(records)
    }

    /// Every record of a table that can be decoded, with all writes that were durable when this was called. Changes
    /// nothing. Blocks.
    ///
    /// # Errors
    /// When the engine cannot read.
    pub(crate) fn read<T: DeserializeOwned>(&self, table: &'static str) -> Result<Vec<T>> {
        Ok(self.scan(table)?.iter().filter_map(|(_, bytes)| decode(bytes).ok()).collect())
    }

    fn scan(&self, table: &'static str) -> Result<Vec<(String, Vec<u8>)>> {
        let (answer, entries) = mpsc::sync_channel(1);
        self.jobs.send(Job::Scan(table, answer)).map_err(|_| writer_gone())?;
        entries.recv().map_err(|_| writer_gone())?
    }
}

fn writer_gone() -> Error {
    Error::Store("the writer thread is gone".into())
}

async fn settled(sent: Result<Outcome>) -> Result<()> {
    sent?.await.map_err(|_| writer_gone())?.map_err(Error::Store)
}

fn encode<T: Serialize>(table: &'static str, key: &str, value: &T) -> Result<Write> {
    let mut bytes = vec![RECORD_VERSION];
    serde_json::to_writer(&mut bytes, value)
        .map_err(|err| Error::Store(format!("encode {table}/{key}: {err}")))?;
    Ok(Write { table, key: key.to_owned(), value: Some(bytes) })
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    match bytes.split_first() {
        Some((&RECORD_VERSION, json)) => {
            serde_json::from_slice(json).map_err(|err| err.to_string())
        }
        Some((version, _)) => Err(format!("version {version} is not known")),
        None => Err("empty".into()),
    }
}

/// An engine may panic on what is no database of its own making.
fn open_whole<E: Engine>(path: &Path) -> Result<E> {
    catch_unwind(|| E::open(path)).unwrap_or_else(|_| {
        Err(Error::Store(format!("open {}: the engine gave up on it", path.display())))
    })
}

/// Sets a database aside and makes a new one in its place.
fn replace<E: Engine>(
    path: &Path,
    why: &str,
    mirror: &Mirror,
    tables: &[&'static str],
) -> Result<E> {
    let aside = set_aside(path)?;
    tracing::error!(why, aside = %aside.display(), "database cannot be used; set aside");
    make::<E>(path, mirror, tables)?;
    open_whole(path)
}

/// The number of a database's last commit.
fn sequence<E: Engine>(engine: &E) -> u64 {
    let entries = engine.scan(META).unwrap_or_default();
    let last = entries.into_iter().find(|(key, _)| key == SEQUENCE);
    last.and_then(|(_, value)| decode(&value).ok()).unwrap_or(0)
}

/// Makes a new database of the copies of the records that an earlier one had. It gets its name once it is whole and
/// on the disk, and that name is durable: a loss of power leaves a good one or none, and none that has answered is
/// lost with its directory.
fn make<E: Engine>(path: &Path, mirror: &Mirror, tables: &[&'static str]) -> Result<()> {
    let draft = path.with_extension("new");
    remove_any(&draft).map_err(Error::io("remove", &draft))?;
    let engine = open_whole::<E>(&draft)?;
    let mut copies = mirror.all(tables);
    if !copies.is_empty() {
        tracing::warn!(
            records = copies.len(),
            "a lost database was made again from copies of its records"
        );
    }
    if mirror.sequence() > 0 {
        copies.push(encode(META, SEQUENCE, &mirror.sequence())?);
    }
    if !copies.is_empty() {
        engine.commit(&copies)?;
    }
    drop(engine);
    let parent = path.parent().unwrap_or(path);
    let directory = File::open(parent).map_err(Error::io("open", parent))?;
    // All of it: an engine may have several files, and the directories above may be new as well.
    rustix::fs::syncfs(&directory).map_err(Error::io("sync", parent))?;
    std::fs::rename(&draft, path).map_err(Error::io("rename", &draft))?;
    directory.sync_all().map_err(Error::io("sync", parent))
}

/// A file or a directory, by engine; none is as good.
fn remove_any(path: &Path) -> std::io::Result<()> {
    let removed =
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    }
}

fn set_aside(path: &Path) -> Result<PathBuf> {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".broken-{now}"));
    let aside = PathBuf::from(name);
    std::fs::rename(path, &aside).map_err(Error::io("set aside", path))?;
    Ok(aside)
}

#[cfg(test)]
mod tests;
