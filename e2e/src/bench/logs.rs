//! From what a container prints to its log file: how fast, and what of the processor it costs beside the container's
//! own. Every line is counted in the end.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cri::Mount;
use crate::density::Watched;
use crate::image::catalogue::BUSYBOX;
use crate::pod::{container, sandbox, shell};
use crate::poll::within;

use super::contestant::Contestant;
use super::report::{Figure, Row, Target, Unit};
use conmon::Conmon;

mod conmon;

/// A container's output.
#[derive(Debug, Clone, Copy)]
struct Kind {
    what: &'static str,
    /// Of each line, with its end.
    line: usize,
    /// Shell for printing the input once.
    print: &'static str,
    /// How often it is printed, so that the producer is never what is measured.
    again: usize,
    wanted: Option<Target>,
}

impl Kind {
    /// What the container does.
    fn line(self) -> String {
        let print = format!("{}; ", self.print).repeat(self.again);
        format!("until [ -e /files/go ]; do usleep 1000; done; {print}touch /files/done")
    }
}

const CAT: &str = "cat /files/input";
const WANTED: Option<Target> = Some(Target::AtLeast(250.0));
const KINDS: [Kind; 3] = [
    Kind { what: "lines of 64 bytes", line: 64, print: CAT, again: 16, wanted: WANTED },
    Kind { what: "lines of 1024 bytes", line: 1024, print: CAT, again: 16, wanted: WANTED },
    // As a program does that flushes each line: the producer is slow itself.
    Kind {
        what: "64 bytes, line by line",
        line: 64,
        print: "dd if=/files/input bs=64 2>/dev/null",
        again: 2,
        wanted: None,
    },
];
const GROUP: &str = "container logs";
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two looks at whether all was printed.
const GLANCE: Duration = Duration::from_millis(1);
/// The input is this part of what is printed by whoever prints it so often.
const AGAIN: usize = 16;

/// In memory: a disk's speed is not what is measured.
#[derive(Debug)]
struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        let dir = PathBuf::from(format!("/dev/shm/podwright-bench-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("memory can be written");
        Self(dir)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn log(&self) -> PathBuf {
        self.at("logs").join("c.log")
    }

    /// Tells the container to print, and waits until it says that it has.
    fn until_printed(&self, who: &str) -> Duration {
        let begun = Instant::now();
        fs::write(self.at("go"), "").expect("memory can be written");
        while !self.at("done").exists() {
            assert!(begun.elapsed() < PATIENCE, "{who}: the container still prints");
            std::thread::sleep(GLANCE);
        }
        begun.elapsed()
    }

    fn until_logged(&self, lines: usize) {
        let all = || (newlines(&self.log()) == lines).then_some(());
        within(PATIENCE, "every line in the log", all);
    }

    /// All but the input.
    fn forget(&self) {
        for name in ["go", "done", "logs/c.log"] {
            fs::remove_file(self.at(name)).expect("memory can be written");
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Of one container: bytes a second, and the processor's seconds a byte.
#[derive(Debug, Clone, Copy)]
struct Once {
    rate: f64,
    cost: f64,
}

impl Once {
    fn of(bytes: f64, took: Duration, processor: Duration) -> Self {
        Self { rate: bytes / took.as_secs_f64(), cost: processor.as_secs_f64() / bytes }
    }
}

/// So many bytes of each kind of line, each contestant in turn, and conmon where it is among the `peers`.
pub(super) fn measure(
    all: &[Contestant],
    rounds: usize,
    bytes: usize,
    peers: Option<&Path>,
) -> Vec<Row> {
    println!("{} MB of log lines", bytes / 1_000_000);
    let conmon = peers.and_then(Conmon::among);
    let mut rows = Vec::new();
    for kind in KINDS {
        let files = Files::new();
        let line = "x".repeat(kind.line - 1) + "\n";
        let lines = bytes / AGAIN / kind.line;
        fs::write(files.at("input"), line.repeat(lines)).expect("memory can be written");
        let mut measured: Vec<Vec<Once>> = all.iter().map(|_| Vec::new()).collect();
        let mut alone = Vec::new();
        for _ in 0..rounds {
            alone.extend(conmon.as_ref().map(|it| it.once(&files, kind, lines * kind.again)));
            for (one, measured) in all.iter().zip(&mut measured) {
                measured.push(once(one, &files, kind, lines * kind.again));
            }
        }
        let row = |what: &str, unit, target: Option<Target>, of: fn(&Once) -> f64| {
            let figures = all.iter().zip(&measured).map(|(one, measured)| {
                let target = target.and_then(|target| one.wanted(target));
                Some(Figure::of(median(measured.iter().map(of))).target(target))
            });
            Row::new(GROUP, what, unit, figures.collect())
        };
        rows.push(row(kind.what, Unit::MegabytesPerSecond, kind.wanted, |of| of.rate / 1e6));
        let processor = format!("processor, {}", kind.what);
        rows.push(row(&processor, Unit::SecondsPerGigabyte, None, |of| of.cost * 1e9));
        let row = |what: &str, unit, of: fn(&Once) -> f64| {
            Row::alone(GROUP, what, unit, all.len(), median(alone.iter().map(of)))
        };
        if conmon.is_some() {
            let what = format!("conmon alone, {}", kind.what);
            rows.push(row(&what, Unit::MegabytesPerSecond, |of| of.rate / 1e6));
            let what = format!("processor of conmon, {}", kind.what);
            rows.push(row(&what, Unit::SecondsPerGigabyte, |of| of.cost * 1e9));
        }
    }
    rows
}

pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// A container prints all of it once it is told to, and says when it has.
fn once(one: &Contestant, files: &Files, kind: Kind, lines: usize) -> Once {
    let world = &one.world;
    let mut config = sandbox(world, "logs");
    config.log_directory = files.at("logs").display().to_string();
    fs::create_dir_all(files.at("logs")).expect("memory can be written");
    let pod = world.pod_of(config);
    let line = kind.line();
    let mut config = container("c", BUSYBOX, &shell(&line));
    let host_path = files.0.display().to_string();
    config.mounts =
        vec![Mount { container_path: "/files".into(), host_path, ..Default::default() }];
    let id = pod.run(config);
    let (daemon, shims) = one.processes();
    let watched = Watched::begin(&daemon, &shims);
    let took = files.until_printed(one.label);
    world.ended(&id);
    files.until_logged(lines);
    let (daemon, shims) = watched.used();
    pod.end();
    files.forget();
    Once::of((lines * kind.line) as f64, took, daemon + shims)
}

fn newlines(log: &Path) -> usize {
    let mut file = fs::File::open(log).expect("a log");
    let (mut buffer, mut count) = (vec![0; 1 << 20], 0);
    while let Ok(read @ 1..) = file.read(&mut buffer) {
        count += buffer[..read].iter().filter(|byte| **byte == b'\n').count();
    }
    count
}
