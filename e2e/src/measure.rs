//! Figures: how long calls take, and what they cost the processor.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::World;

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

    /// In milliseconds; 0 where nothing was timed.
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

/// The processor time of everything in a world's cgroup: daemon, shims, runtimes, plugins, containers.
#[derive(Debug)]
pub struct Processor {
    usage: std::path::PathBuf,
}

impl Processor {
    /// Moves the daemon into the world's cgroup, where its children follow.
    pub fn of(world: &World) -> Self {
        let v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let root = if v2 { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/cpuacct" };
        let cgroup = std::path::Path::new(root).join(&world.cgroup);
        let daemon = cgroup.join("daemon");
        std::fs::create_dir_all(&daemon).expect("a cgroup can be made");
        let pid = world.daemon_pid().expect("the daemon runs").to_string();
        std::fs::write(daemon.join("cgroup.procs"), pid).expect("a process can be moved");
        Self { usage: cgroup.join(if v2 { "cpu.stat" } else { "cpuacct.usage" }) }
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
