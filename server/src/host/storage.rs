//! Directories on storage that is not ours: volumes, log directories. Any of it may hang for hours.
//!
//! Each path is looked up on a thread of its own, once however many ask for it meanwhile, and waited for with a
//! limit. What hangs holds up those who need that very path, and one thread.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::telemetry::{Tasks, apart};

/// How long a caller waits. The next one goes on waiting for the same look-up, so this may be short.
const PATIENCE: Duration = Duration::from_secs(20);

/// What became of a look-up: the path without symbolic links, or why not.
type Found = Result<PathBuf, Refusal>;

/// Why there is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The kernel's words.
    #[error("{0}")]
    Refused(String),
    /// Nobody has said anything for so long; it may still come.
    #[error("its storage has not answered for {} s", .0.as_secs())]
    Silent(Duration),
}

#[derive(Debug, Clone)]
struct Lookup {
    since: Instant,
    found: watch::Receiver<Option<Found>>,
}

/// The look-ups under way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Storage(Arc<Mutex<HashMap<PathBuf, Lookup>>>);

impl Storage {
    /// The directory or file at `path`, without symbolic links; made as a directory where nothing is.
    ///
    /// # Errors
    /// What the kernel said, or for how long it has said nothing.
    pub(crate) async fn directory(&self, tasks: &Tasks, path: &Path) -> Found {
        self.within(tasks, path, PATIENCE, look_up).await
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Lookup>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn within(
        &self,
        tasks: &Tasks,
        path: &Path,
        patience: Duration,
        work: impl FnOnce(&Path) -> std::io::Result<PathBuf> + Send + 'static,
    ) -> Found {
        let Lookup { since, mut found } = self.join_or_begin(tasks, path, work);
        let answer = async {
            let answer = found.wait_for(Option::is_some).await.ok().and_then(|one| one.clone());
            answer.unwrap_or_else(|| Err(Refusal::Refused("the look-up was given up".into())))
        };
        let answer = tokio::time::timeout(patience, answer).await;
        answer.unwrap_or_else(|_| Err(Refusal::Silent(since.elapsed())))
    }

    fn join_or_begin(
        &self,
        tasks: &Tasks,
        path: &Path,
        work: impl FnOnce(&Path) -> std::io::Result<PathBuf> + Send + 'static,
    ) -> Lookup {
        let mut under_way = self.lock();
        if let Some(lookup) = under_way.get(path) {
            return lookup.clone();
        }
        let (done, found) = watch::channel(None);
        let lookup = Lookup { since: Instant::now(), found };
        under_way.insert(path.to_owned(), lookup.clone());
        let (all, path) = (self.clone(), path.to_owned());
        let span = tracing::info_span!("look up", path = %path.display());
        tasks.spawn(span, async move {
            let asked = path.clone();
            let found = apart(move || work(&asked).map_err(Error::io("look up", &asked))).await;
            all.lock().remove(&path);
            done.send_replace(Some(found.map_err(|err| {
                Refusal::Refused(match err {
                    Error::Io { source, .. } => source.to_string(),
                    other => other.to_string(),
                })
            })));
        });
        lookup
    }
}

fn look_up(path: &Path) -> std::io::Result<PathBuf> {
    match std::fs::canonicalize(path) {
        Err(err) if err.kind() == ErrorKind::NotFound => {
            std::fs::create_dir_all(path)?;
            std::fs::canonicalize(path)
        }
        resolved => resolved,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn links_are_resolved_and_missing_directories_made() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        std::fs::create_dir(base.join("real")).unwrap();
        std::os::unix::fs::symlink("real", base.join("link")).unwrap();
        std::os::unix::fs::symlink("gone", base.join("dangling")).unwrap();
        let (storage, tasks) = (Storage::default(), Tasks::default());
        let found = async |name: &str| storage.directory(&tasks, &base.join(name)).await;
        assert_eq!(found("link").await, Ok(base.join("real")));
        assert_eq!(found("new/deep").await, Ok(base.join("new/deep")));
        assert!(base.join("new/deep").is_dir());
        found("dangling").await.unwrap_err();
    }

    #[tokio::test]
    async fn a_path_that_hangs_is_looked_up_once_and_answers_those_who_wait() {
        let (storage, tasks) = (Storage::default(), Tasks::default());
        let (go, gate) = mpsc::channel::<()>();
        let path = Path::new("/hangs");
        let hang = move |path: &Path| {
            gate.recv().ok();
            Ok(path.to_owned())
        };
        let short = Duration::from_millis(20);
        let first = storage.within(&tasks, path, short, hang).await;
        assert!(matches!(first, Err(Refusal::Silent(for_)) if for_ >= short), "{first:?}");
        let again =
            |patience| storage.within(&tasks, path, patience, |_| panic!("a second look-up"));
        again(short).await.unwrap_err();
        go.send(()).unwrap();
        assert_eq!(again(PATIENCE).await, Ok(path.to_owned()));
        assert!(storage.lock().is_empty());
    }
}
