//! The one thread that writes a database. All commits that wait go into one transaction.
//!
//! An engine that failed, or panicked, is not asked again: it is closed, and opened anew before the next write, since a
//! full disk, say, has room again at some time. Whoever waits for a write is told. What nobody waits for, and what has to be
//! forgotten in any case, is owed, and tried again until it is done; what was only noted is owed from the beginning.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::{Batch, Engine, Job, META, Mirror, SEQUENCE, Write, encode, open_whole, sequence};
use crate::error::{Error, Result};
use crate::failpoint;
use crate::metric;

/// Batches folded into one commit at most; nearly all are of one write.
const MAX_BATCH: usize = 256;
/// How often writes that are owed are tried again.
pub(super) const RETRY: Duration = Duration::from_secs(1);

pub(super) struct Writer<E> {
    path: PathBuf,
    tables: Vec<&'static str>,
    engine: Option<E>,
    mirror: Arc<Mirror>,
    /// The number of the last commit that was tried.
    last: u64,
    /// By what they are about.
    owed: BTreeMap<(&'static str, String), Option<Vec<u8>>>,
    tried: Instant,
}

impl<E: Engine> Writer<E> {
    pub(super) fn new(
        path: PathBuf,
        tables: &[&'static str],
        engine: E,
        mirror: Arc<Mirror>,
    ) -> Self {
        let (last, tables) = (sequence(&engine), tables.to_vec());
        let (engine, owed, tried) = (Some(engine), BTreeMap::new(), Instant::now());
        let writer = Self { path, tables, engine, mirror, last, owed, tried };
        // That none failed is told, too.
        metric::COMMIT_FAILURES.of([writer.name()]).add(0);
        writer
    }

    /// Serves jobs until every handle is gone.
    pub(super) fn serve(mut self, queue: &mpsc::Receiver<Job>) {
        let mut pending = None;
        loop {
            let job = match pending.take() {
                Some(job) => Ok(job),
                None => self.next(queue),
            };
            match job {
                Ok(Job::Note(write)) => {
                    if self.owed.is_empty() {
                        self.tried = Instant::now();
                    }
                    self.owed.insert((write.table, write.key), write.value);
                }
                Ok(Job::Scan(table, answer)) => {
                    if !self.owed.is_empty() {
                        self.commit(Vec::new());
                    }
                    let scanned = caught(|| self.engine().and_then(|engine| engine.scan(table)));
                    answer.send(scanned).ok();
                }
                Ok(Job::Agree(table, records)) => self.mirror.agree(table, &records),
                Ok(Job::Commit(batch)) => {
                    let mut batches = vec![batch];
                    while batches.len() < MAX_BATCH {
                        match queue.try_recv() {
                            Ok(Job::Commit(batch)) => batches.push(batch),
                            Ok(other) => {
                                pending = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.commit(batches);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => self.commit(Vec::new()),
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn next(&self, queue: &mpsc::Receiver<Job>) -> Result<Job, mpsc::RecvTimeoutError> {
        if self.owed.is_empty() {
            return queue.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected);
        }
        match (self.tried + RETRY).saturating_duration_since(Instant::now()) {
            // Also while others keep us busy.
            Duration::ZERO => Err(mpsc::RecvTimeoutError::Timeout),
            left => queue.recv_timeout(left),
        }
    }

    fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// Counts a commit, under the database's name.
    #[allow(clippy::cast_precision_loss, reason = "a number of records")]
    fn measure(&self, records: usize, began: Instant, durable: bool) {
        let name = self.name();
        if !durable {
            metric::COMMIT_FAILURES.of([name]).add(1);
        } else if records > 0 {
            metric::COMMIT_SECONDS.of([name]).took(began.elapsed());
            metric::COMMIT_RECORDS.of([name]).observe(records as f64);
        }
    }

    fn engine(&mut self) -> Result<&E> {
        let engine = match self.engine.take() {
            Some(engine) => engine,
            None => {
                let engine = open_whole::<E>(&self.path)?;
                let copied = self.mirror.sequence();
                if sequence(&engine) < copied {
                    let mut copies = self.mirror.all(&self.tables);
                    copies.push(encode(META, SEQUENCE, &copied)?);
                    engine.commit(&copies)?;
                }
                engine
            }
        };
        Ok(self.engine.insert(engine))
    }

    /// Commits what is owed and then the batches, or none of it.
    fn commit(&mut self, batches: Vec<Batch>) {
        self.tried = Instant::now();
        let owed = self.owed.iter().map(|((table, key), value)| Write {
            table,
            key: key.clone(),
            value: value.clone(),
        });
        let mut writes: Vec<Write> = owed.collect();
        writes.extend(batches.iter().flat_map(|batch| batch.writes.iter().cloned()));
        let mirror = self.mirror.clone();
        self.last += 1;
        let number = self.last;
        let (records, began) = (writes.len(), Instant::now());
        let result =
            caught(|| self.engine().and_then(|engine| commit(engine, &mirror, writes, number)));
        self.measure(records, began, result.is_ok());
        if let Err(err) = &result {
            tracing::error!(%err, path = %self.path.display(), "records not written; the database is opened anew");
            let engine = self.engine.take();
            let close = || {
                drop(engine);
                Ok(())
            };
            caught(close).ok();
        } else {
            self.owed.clear();
        }
        let result = result.map_err(|err| format!("{}: {}", self.path.display(), text(err)));
        for Batch { writes, done } in batches {
            for write in writes {
                if result.is_err() && (done.is_none() || write.value.is_none()) {
                    self.owed.insert((write.table, write.key), write.value);
                }
            }
            if let Some(done) = done {
                done.send(result.clone()).ok();
            }
        }
    }
}

/// An engine that panics, as some do over a disk that fails, has failed like any other. It is closed then, so nothing
/// half-changed is used again.
fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::Store("the database engine panicked".into())))
}

/// Commits under a number, and has the copies follow, between the failpoints of each of the writes.
fn commit<E: Engine>(
    engine: &E,
    mirror: &Mirror,
    mut writes: Vec<Write>,
    number: u64,
) -> Result<()> {
    let pass = |writes: &[Write], when: &str| {
        writes.iter().try_for_each(|write| {
            let verb = if write.value.is_some() { "put" } else { "delete" };
            failpoint::pass(format_args!("store/{}/{verb}/{when}", write.table))
        })
    };
    pass(&writes, "before")?;
    let own = writes.len();
    if own > 0 {
        writes.push(encode(META, SEQUENCE, &number)?);
    }
    engine.commit(&writes)?;
    mirror.follow(&writes);
    pass(&writes[..own], "after")
}

/// Without the word that the store's own errors begin with.
fn text(err: Error) -> String {
    match err {
        Error::Store(text) => text,
        other => other.to_string(),
    }
}
