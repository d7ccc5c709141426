//! A thread apart from all others that looks at them: it feeds systemd's watchdog while the daemon is well, and writes
//! the flight recorder to a file when it is not, or when SIGUSR1 asks for it.
//!
//! It has an executor of its own, so it goes on when the daemon's is stuck. Well is a daemon whose executor takes a new
//! task, lets it sleep and wakes it, and whose tables of pods and operations can be read. One that waits for a disk or a
//! plugin is well: a restart would not help it. Without a watchdog and without a signal the thread sleeps.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::error::{Error, Result};
use crate::operation::Operations;
use crate::sandbox::Pods;
use crate::{recorder, systemd};

/// Looks in the time that systemd gives: so one that comes late is no death yet.
const LOOKS: u32 = 3;
/// What a probe sleeps: nothing worth mentioning, and the clock has to work for it.
const NAP: Duration = Duration::from_millis(1);
/// Where dumps lie, in the state directory.
const DUMPS: &str = "flight-recorder";

/// Starts the thread.
///
/// # Errors
/// When there can be none.
pub(crate) fn start(pods: &Arc<Pods>) -> Result<()> {
    let failed = |err: std::io::Error| Error::Unavailable(format!("start the watchdog: {err}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed)?;
    let asked = {
        let _inside = runtime.enter();
        signal(SignalKind::user_defined1()).map_err(failed)?
    };
    let (main, pods) = (Handle::current(), pods.clone());
    let dump =
        Dump { operations: pods.node.operations.clone(), dir: pods.node.config.state.join(DUMPS) };
    let watch = move || {
        runtime.block_on(async {
            let feeding = async {
                let Some(patience) = systemd::watchdog() else {
                    return std::future::pending().await;
                };
                let probe = || pods.node.tasks.spawn_on(&main, probe(pods.clone()));
                feed(patience, probe, || systemd::tell("WATCHDOG=1"), || dump.write("stuck")).await;
            };
            tokio::join!(feeding, answer(asked, &dump));
        });
    };
    std::thread::Builder::new().name("watchdog".into()).spawn(watch).map_err(failed)?;
    Ok(())
}

/// What a dump is made of and where it goes.
struct Dump {
    operations: Operations,
    dir: PathBuf,
}

impl Dump {
    fn write(&self, why: &str) {
        match recorder::dump(&self.operations, &self.dir, why) {
            Ok(path) => tracing::warn!(path = %path.display(), why, "flight recorder written"),
            Err(err) => tracing::error!(%err, why, "the flight recorder cannot be written"),
        }
    }
}

/// Writes a dump for each signal.
async fn answer(mut asked: Signal, dump: &Dump) {
    while asked.recv().await.is_some() {
        dump.write("SIGUSR1");
    }
}

/// Ends soon where all is well.
async fn probe(pods: Arc<Pods>) {
    tokio::time::sleep(NAP).await;
    pods.sandboxes();
    pods.node.operations.list();
}

/// Says `well` after each probe that ends, and `stuck` once for one that takes long: nothing is said again before it
/// has ended.
async fn feed(
    patience: Duration,
    probe: impl Fn() -> JoinHandle<()>,
    well: impl Fn(),
    stuck: impl Fn(),
) {
    let look = patience / LOOKS;
    loop {
        let mut probing = probe();
        if tokio::time::timeout(look, &mut probing).await.is_err() {
            stuck();
            probing.await.ok();
        }
        well();
        tokio::time::sleep(look).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;

    use super::*;
    use crate::telemetry::Tasks;

    #[test]
    fn a_stuck_executor_is_not_fed_and_is_told_of_once() {
        let executor = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let watcher = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (tasks, main) = (Tasks::default(), executor.handle().clone());
        let (fed, told) = (AtomicU32::new(0), AtomicU32::new(0));
        let (release, gate) = mpsc::channel::<()>();
        let patience = Duration::from_millis(60);
        let feeding = feed(
            patience,
            || tasks.spawn_on(&main, tokio::time::sleep(NAP)),
            || {
                fed.fetch_add(1, Ordering::SeqCst);
            },
            || {
                told.fetch_add(1, Ordering::SeqCst);
            },
        );
        let reaches = async |counter: &AtomicU32, least| {
            while counter.load(Ordering::SeqCst) < least {
                tokio::time::sleep(NAP).await;
            }
        };
        let script = async {
            reaches(&fed, 2).await;
            tasks.spawn_on(&main, async move { gate.recv().ok() });
            // A machine under load may have been slow before.
            let before = told.load(Ordering::SeqCst);
            reaches(&told, before + 1).await;
            let (fed_then, told_then) = (fed.load(Ordering::SeqCst), told.load(Ordering::SeqCst));
            tokio::time::sleep(patience * 3).await;
            assert_eq!(fed.load(Ordering::SeqCst), fed_then, "fed while stuck");
            assert_eq!(told.load(Ordering::SeqCst), told_then, "told twice");
            release.send(()).unwrap();
            reaches(&fed, fed_then + 2).await;
        };
        watcher.block_on(async {
            tokio::select! {
                () = feeding => {}
                () = script => {}
            }
        });
    }
}
