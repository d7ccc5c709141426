//! Figures: how long calls take, and what they cost the processor.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::World;

/// KiB by a line of a process's `smaps_rollup`; `None` once it is gone.
pub fn memory(process: &Path, line: &str) -> Option<u64> {
    let text = std::fs::read_to_string(process.join("smaps_rollup")).ok()?;
    let value = text.lines().find_map(|text| text.strip_prefix(line))?;
    value.trim().trim_end_matches(" kB").parse().ok()
}

/// The processor time of each thread that a process has now, to the nanosecond.
pub fn threads(process: &Path) -> HashMap<PathBuf, Duration> {
    let all = std::fs::read_dir(process.join("task")).into_iter().flatten().flatten();
    all.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        let nanos = text.split(' ').next()?.parse().ok()?;
        Some((thread.path(), Duration::from_nanos(nanos)))
    })
    .collect()
}

/// Durations of one kind of call.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// Times one call.
    pub fn time<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let value = call();
        self.0.push(start.elapsed());
        value
    }

    /// The latest; zero where nothing was timed.
    pub fn last(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }

    pub fn total(&self) -> Duration {
        self.0.iter().sum()
    }

    /// These and those of another.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    pub fn add(&mut self, duration: Duration) {
        self.0.push(duration);
    }

    /// In milliseconds; 0 where nothing was timed. The least is that of 0.
    pub fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).clamp(1, sorted.len().max(1));
        sorted.get(rank - 1).map_or(0.0, |sample| sample.as_secs_f64() * 1e3)
    }

    pub fn json(&self) -> Value {
        json!({
            "samples": self.0.len(),
            "p50_ms": self.percentile(50),
            "p90_ms": self.percentile(90),
            "p99_ms": self.percentile(99),
        })
    }

    /// From the lines that a process in the world prints, in microseconds.
    pub fn parse(text: &str, name: &str) -> Self {
        let micros = text.lines().filter_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        Self(micros.map(Duration::from_micros).collect())
    }
}

/// The processor time of everything in a cgroup, ended processes included.
#[derive(Debug)]
pub struct Processor {
    /// Where processes enter it.
    door: PathBuf,
    usage: PathBuf,
}

impl Processor {
    /// Of a world: daemon, shims, runtimes, plugins, containers. Moves the daemon into the world's cgroup, where its
    /// children follow.
    pub fn of(world: &World) -> Self {
        Self::new(&world.cgroup, "daemon", "").with_daemon(world)
    }

    /// Of the daemon and what it starts outside pods.
    pub fn of_daemon(world: &World) -> Self {
        Self::apart(world, "daemon").with_daemon(world)
    }

    /// Of what [`Processor::command`] starts.
    pub fn apart(world: &World, name: &str) -> Self {
        Self::new(&world.cgroup, name, name)
    }

    /// Of a world, as [`Processor::of`]; what [`Processor::command`] starts in it is counted with its pods.
    pub fn all(world: &World, name: &str) -> Self {
        Self::new(&world.cgroup, name, "")
    }

    fn with_daemon(self, world: &World) -> Self {
        self.enter(world);
        self
    }

    /// Moves the world's daemon, one that was started since, into the cgroup, where its children follow.
    pub fn enter(&self, world: &World) {
        let pid = world.daemon_pid().expect("the daemon runs").to_string();
        std::fs::write(&self.door, pid).expect("a process can be moved");
    }

    fn new(cgroup: &str, entered: &str, counted: &str) -> Self {
        let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let root = if v2 { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/cpuacct" };
        let cgroup = Path::new(root).join(cgroup);
        let dir = cgroup.join(entered);
        std::fs::create_dir_all(&dir).expect("a cgroup can be made");
        let usage = cgroup.join(counted).join(if v2 { "cpu.stat" } else { "cpuacct.usage" });
        Self { door: dir.join("cgroup.procs"), usage }
    }

    /// `program`, to be run in the world and in this cgroup from its beginning.
    pub fn command(&self, world: &World, program: &Path) -> Command {
        let mut command = world.command("sh");
        command.args(["-c", "echo $$ >\"$0\" && exec \"$@\""]).arg(&self.door).arg(program);
        command
    }

    pub fn used(&self) -> Duration {
        let text = std::fs::read_to_string(&self.usage).unwrap_or_default();
        match text.strip_prefix("usage_usec ") {
            Some(rest) => {
                rest.lines().next().and_then(|line| line.parse().ok()).map(Duration::from_micros)
            }
            None => text.trim().parse().ok().map(Duration::from_nanos),
        }
        .unwrap_or_default()
    }
}
