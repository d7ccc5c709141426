//! A pod that has nothing to do with what goes on beside it: it runs, logs, and answers commands.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::cri::*;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::{container, shell};
use e2e::{Client, World, eventually};
use tonic::Code;

/// Counts into its log without a process for each line, so that it is always the same one.
pub(crate) const COUNTS: &str = "busybox mkfifo /tmp/never; n=0; \
    while :; do echo $n; n=$((n+1)); read -t 0.05 x <>/tmp/never; done";

/// Between two commands.
const PAUSE: Duration = Duration::from_millis(60);

#[derive(Debug)]
pub(crate) struct Bystander {
    container: String,
    started_at: i64,
    log: PathBuf,
    lines: usize,
    talk: Arc<Talk>,
    thread: Option<JoinHandle<()>>,
}

/// Shared with the thread that has commands run in the pod.
#[derive(Debug, Default)]
struct Talk {
    stop: AtomicBool,
    quiet: AtomicBool,
    answered: AtomicUsize,
    /// Held while a command runs.
    turn: Mutex<()>,
    /// Answers that nothing explains.
    wrong: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bystander {
    pub(crate) fn start(world: &World) -> Self {
        let pod = world.pod("bystander");
        let id = pod.run(container("counts", BUSYBOX, &shell(COUNTS)));
        let started_at = world.container_status(&id).expect("ContainerStatus").started_at;
        let log = PathBuf::from(format!("{}/counts.log", pod.config.log_directory));
        eventually("the bystander to count", || {
            std::fs::read_to_string(&log).ok().filter(|text| !text.is_empty())
        });
        let talk = Arc::<Talk>::default();
        let client = Client::new(&world.seen(world.path("state/podwright.sock")));
        let (shared, of) = (talk.clone(), id.clone());
        let thread = Some(std::thread::spawn(move || talks(&shared, &client, &of)));
        let this = Self { container: id, started_at, log, lines: 0, talk, thread };
        eventually("the bystander to answer", || (this.answered() > 0).then_some(()));
        this
    }

    /// No command runs in it from now on, or commands do again.
    /// Returns what was before.
    pub(crate) fn quiet(&self, quiet: bool) -> bool {
        let before = self.talk.quiet.swap(quiet, Ordering::SeqCst);
        drop(lock(&self.talk.turn));
        before
    }

    /// It runs as it did at the start, has lost no line, and had its commands answered.
    pub(crate) fn check(&mut self, world: &World) -> anyhow::Result<()> {
        let status = world.container_status(&self.container).context("the bystander's status")?;
        ensure!(
            status.state() == ContainerState::ContainerRunning
                && status.started_at == self.started_at,
            "the bystander was disturbed: {status:?}"
        );
        let text = std::fs::read_to_string(&self.log)?;
        let lines = counted(&text)?;
        ensure!(lines > self.lines, "the bystander stands still at line {lines}");
        self.lines = lines;
        let wrong = lock(&self.talk.wrong);
        ensure!(wrong.is_empty(), "commands in the bystander: {}", wrong.join("; "));
        Ok(())
    }

    pub(crate) fn answered(&self) -> usize {
        self.talk.answered.load(Ordering::SeqCst)
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.talk.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How many lines a log has that counts from 0; an error where one is missing.
pub(crate) fn counted(log: &str) -> anyhow::Result<usize> {
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    for (number, line) in whole.lines().enumerate() {
        ensure!(line.ends_with(&format!(" F {number}")), "line {number} of a log is {line:?}");
    }
    Ok(whole.lines().count())
}

fn talks(talk: &Talk, client: &Client, container: &str) {
    while !talk.stop.load(Ordering::SeqCst) {
        std::thread::sleep(PAUSE);
        let _turn = lock(&talk.turn);
        if talk.quiet.load(Ordering::SeqCst) {
            continue;
        }
        let answer = client.exec_sync(ExecSyncRequest {
            container_id: container.into(),
            cmd: ["echo", "alive"].map(str::to_owned).into(),
            timeout: 30,
        });
        match answer {
            Ok(answer) if answer.exit_code == 0 && answer.stdout == b"alive\n" => {
                talk.answered.fetch_add(1, Ordering::SeqCst);
            }
            Ok(answer) => lock(&talk.wrong).push(format!("{answer:?}")),
            // What a client hears of a daemon that dies or is not there; a daemon that is has to answer.
            Err(status)
                if matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled) => {
            }
            Err(status) => lock(&talk.wrong).push(status.to_string()),
        }
    }
}
