//! A node that works for a while: pods come and go, probes exec, logs flow, images are pulled and removed, daemons
//! are killed. Meanwhile what the daemon, its shims and the host hold is sampled, and must not rise.
//!
//! A series rises if the straight line through its samples does, by more than the samples' own spread explains and
//! by more than is allowed over the whole window; so the longer a soak, the smaller the leak that it finds.

mod churn;
mod sample;
mod slope;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::image::catalogue::BUSYBOX;
use crate::world::{Options, World};

use sample::Series;
pub use slope::Line;

/// What is not looked at: until then caches fill and the allocator settles.
const WARM_UP: u32 = 4;
/// Samples over the whole soak, and the least pause between two.
const SAMPLES: u32 = 240;
const MIN_PAUSE: Duration = Duration::from_millis(500);
/// How often a daemon is killed, where daemons are.
const RESTART: Duration = Duration::from_secs(20);

/// How long, and how much at once.
#[derive(Debug, Clone)]
pub struct Settings {
    pub length: Duration,
    /// Pods at a time.
    pub pods: usize,
    /// Kill the daemon in between.
    pub restarts: bool,
}

/// What became of it.
#[derive(Debug)]
pub struct Report {
    pub settings: Settings,
    pub counts: Counts,
    pub rows: Vec<Row>,
    /// Calls that failed and whose retries did, too.
    pub failures: Vec<String>,
}

/// How much was done.
#[derive(Debug, Default)]
pub struct Counts {
    pub pods: AtomicU64,
    pub containers: AtomicU64,
    pub execs: AtomicU64,
    pub exits: AtomicU64,
    pub pulls: AtomicU64,
    pub restarts: AtomicU64,
    /// Calls that failed once, for a daemon that was killed.
    pub retries: AtomicU64,
}

/// One series, with the line through it.
#[derive(Debug, Clone)]
pub struct Row {
    pub what: &'static str,
    pub unit: &'static str,
    pub line: Line,
    /// How much it may rise over the window.
    pub allowed: f64,
}

impl Row {
    /// Whether it certainly rises by more than it may.
    pub fn rises(&self) -> bool {
        self.line.certain_rise() > self.allowed
    }
}

/// The world, which a restart of its daemon needs alone.
pub(super) struct Soak {
    world: RwLock<World>,
    ending: AtomicBool,
    counts: Counts,
}

impl Soak {
    fn world(&self) -> RwLockReadGuard<'_, World> {
        self.world.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn goes_on(&self) -> bool {
        !self.ending.load(Ordering::Relaxed)
    }

    /// Kills the daemon in the middle of whatever it does, and starts the next.
    fn restart(&self) {
        if let Some(pid) = self.world().daemon_pid() {
            crate::world::kill(pid);
        }
        let mut world = self.world.write().unwrap_or_else(PoisonError::into_inner);
        world.end_daemon(Signal::KILL);
        world.start_daemon();
        self.counts.restarts.fetch_add(1, Ordering::Relaxed);
    }
}

/// Churns and samples; at the end nothing may be left, or this panics.
pub fn run(settings: Settings) -> Report {
    let config = "log_level = \"warn\"\n".to_owned();
    let mut world = World::start(Options { config, ..Options::default() });
    world.pull(BUSYBOX);
    world.pod("warm-up").end();
    world.settle();
    let soak = Soak { world: RwLock::new(world), ending: false.into(), counts: Counts::default() };
    let mut series = Series::default();
    let failures = std::thread::scope(|scope| {
        let churning: Vec<_> = (0..settings.pods)
            .map(|number| (number, &soak))
            .map(|(number, soak)| scope.spawn(move || churn::pods(soak, number)))
            .chain([scope.spawn(|| churn::images(&soak))])
            .collect();
        watch(&settings, &soak, &mut series);
        soak.ending.store(true, Ordering::Relaxed);
        let ended = churning.into_iter().map(|thread| thread.join());
        ended.flat_map(|failed| failed.expect("a churning thread ends")).collect()
    });
    let Soak { world, counts, .. } = soak;
    let world = world.into_inner().unwrap_or_else(PoisonError::into_inner);
    world.finish();
    Report { rows: series.rows(), settings, counts, failures }
}

/// Samples until the time is over, and kills the daemon in between where that is wanted.
fn watch(settings: &Settings, soak: &Soak, series: &mut Series) {
    let start = Instant::now();
    let pause = (settings.length / SAMPLES).max(MIN_PAUSE);
    let warm = settings.length / WARM_UP;
    let mut restarted = start;
    while start.elapsed() < settings.length {
        std::thread::sleep(pause);
        if settings.restarts && restarted.elapsed() > RESTART {
            soak.restart();
            restarted = Instant::now();
        }
        if start.elapsed() > warm {
            series.sample(&soak.world(), start.elapsed());
        }
    }
}

impl Report {
    /// Every series that rises, and every call that failed.
    pub fn problems(&self) -> Vec<String> {
        let rising = self.rows.iter().filter(|row| row.rises()).map(|row| {
            format!("{} rises by {:.1} {}", row.what, row.line.certain_rise(), row.unit)
        });
        rising.chain(self.failures.iter().cloned()).collect()
    }

    /// The table that people read.
    pub fn table(&self) -> String {
        let mut text = format!("{}\n\n", self.summary());
        text += &format!(
            "{:<28} {:>9} {:>9} {:>12} {:>9} {:>9}\n",
            "held", "first", "last", "slope/h", "rise ≥", "allowed"
        );
        for Row { what, unit, line, allowed } in &self.rows {
            text += &format!(
                "{:<28} {:>9.1} {:>9.1} {:>+12.1} {:>9.1} {:>9.1}\n",
                format!("{what}, {unit}"),
                line.at_start(),
                line.at_end(),
                line.per_second() * 3600.0,
                line.certain_rise().max(0.0),
                allowed
            );
        }
        text
    }

    fn summary(&self) -> String {
        let Counts { pods, containers, execs, exits, pulls, restarts, retries } = &self.counts;
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        format!(
            "soak: {:.0} s, {} pods at a time: {} pods, {} containers, {} execs, {} exits, {} pulls, {} daemons \
             killed, {} calls repeated, {} failed",
            self.settings.length.as_secs_f64(),
            self.settings.pods,
            of(pods),
            of(containers),
            of(execs),
            of(exits),
            of(pulls),
            of(restarts),
            of(retries),
            self.failures.len()
        )
    }

    pub fn json(&self) -> Value {
        let rows = self.rows.iter().map(|Row { what, unit, line, allowed }| {
            json!({
                "what": what, "unit": unit, "allowed_rise": allowed,
                "first": line.at_start(), "last": line.at_end(),
                "per_hour": line.per_second() * 3600.0, "certain_rise": line.certain_rise(),
            })
        });
        json!({"summary": self.summary(), "rows": rows.collect::<Vec<_>>(), "problems": self.problems()})
    }
}
