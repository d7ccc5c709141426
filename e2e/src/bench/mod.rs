//! `./dev bench`: Podwright beside Debian's containerd, with the same runtime, plugins, network, images and client.
//!
//! Contestants take turns, pod by pod and call by call, so that what else the machine does meets all alike; what both
//! do at rest is looked at in the same seconds. Beside them stands what none can do without, and
//! conmon, which is no runtime, beside logs. A run ends after a time
//! that its settings bound, and never compares figures of two runs.

pub mod arguments;
mod contestant;
pub mod floor;
mod logs;
mod node;
pub mod plot;
mod pods;
mod pulls;
pub mod report;
mod streams;
pub mod table;
pub mod veth;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::density;
use contestant::Contestant;
use node::Extent;
use report::{Figure, Report, Row, Unit};

/// The same for all.
const RUNTIME: &str = "crun";
/// So many that one in a hundred is more than one.
const LISTED_CALLS: usize = 300;

/// How much is measured.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Pods one after the other.
    pub rounds: usize,
    /// Pods that are there at once, and how long nothing happens to them.
    pub pods: usize,
    pub quiet: Duration,
    /// Several pods at once, so many times.
    pub bursts: usize,
    pub commands: usize,
    /// Of each kind of list.
    pub calls: usize,
    /// Pods of the node with long lists, which is podwrightd's alone; 0: there is none.
    pub listed: usize,
    /// Of the daemon.
    pub kills: usize,
    pub pulls: usize,
    /// Of log lines, and through each stream, each so many times.
    pub bytes: usize,
    pub transfers: usize,
    /// Where `e2e/peers` has unpacked containerd; `None`: podwrightd alone.
    pub peers: Option<PathBuf>,
    /// One of [`PARTS`] alone; empty: all.
    pub only: String,
}

/// What there is to measure, in this order.
pub const PARTS: [&str; 8] =
    ["pods", "bursts", "commands", "logs", "streams", "node", "lists", "pull"];

impl Settings {
    /// Design section 6.
    pub fn full() -> Self {
        Self {
            rounds: 30,
            pods: 100,
            quiet: Duration::from_secs(30),
            bursts: 4,
            commands: 60,
            calls: 40,
            listed: density::LISTED_PODS,
            kills: 15,
            pulls: 3,
            bytes: 256 << 20,
            transfers: 3,
            peers: None,
            only: String::new(),
        }
    }

    /// Three minutes.
    pub fn quick() -> Self {
        Self {
            rounds: 8,
            pods: 20,
            quiet: Duration::from_secs(5),
            bursts: 1,
            commands: 15,
            calls: 10,
            listed: 50,
            kills: 5,
            pulls: 1,
            bytes: 64 << 20,
            transfers: 1,
            peers: None,
            only: String::new(),
        }
    }
}

/// Measures everything.
pub fn run(settings: &Settings) -> Report {
    let begun = Instant::now();
    let wants = |part: &str| settings.only.is_empty() || settings.only == part;
    let floors = floors(settings);
    let mut all = vec![
        Contestant::podwright("podwright", "", false),
        Contestant::podwright("plugins executed", "network.native = false\n", true),
    ];
    all.extend(settings.peers.as_deref().map(Contestant::containerd));
    let mut rows = Vec::new();
    for part in PARTS.into_iter().filter(|part| wants(part)) {
        rows.extend(measure(part, &mut all, settings, &floors));
    }
    rows.extend(
        floors
            .rows
            .into_iter()
            .map(|(what, value)| Row::alone("alone", &what, Unit::Milliseconds, all.len(), value)),
    );
    let report = Report {
        about: about(settings, begun.elapsed()),
        contestants: all.iter().map(|one| one.label.to_owned()).collect(),
        peer: all.iter().position(Contestant::is_peer),
        rows,
    };
    all.into_iter().for_each(Contestant::finish);
    report
}

fn measure(part: &str, all: &mut [Contestant], settings: &Settings, floors: &Floors) -> Vec<Row> {
    match part {
        "pods" => pods::sequential(all, settings.rounds, floors.up),
        "bursts" => pods::bursts(all, settings.bursts),
        "commands" => pods::commands(all, settings.commands, floors.exec),
        "logs" => {
            let Settings { transfers, bytes, ref peers, .. } = *settings;
            logs::measure(all, transfers, bytes, peers.as_deref())
        }
        "streams" => streams::measure(all, settings.transfers, settings.bytes),
        "node" => {
            let Settings { pods, quiet, calls, kills, .. } = *settings;
            node::measure(all, Extent { pods, quiet, calls, kills })
        }
        "lists" => long_lists(all, settings.listed),
        _ => match &settings.peers {
            Some(peers) => pulls::measure(all, settings.pulls, peers),
            None => Vec::new(),
        },
    }
}

/// Of the first alone: containerd would take half an hour to get there.
fn long_lists(all: &[Contestant], pods: usize) -> Vec<Row> {
    if pods == 0 {
        return Vec::new();
    }
    let containers = density::LISTED_CONTAINERS;
    println!("{pods} pods with {containers} containers each, of {} alone", all[0].label);
    let rows = density::lists(&all[0].world, pods, containers, LISTED_CALLS);
    let alone = |mut row: Row| {
        row.figures.resize(all.len(), None);
        row
    };
    rows.into_iter().map(alone).collect()
}

/// What is measured alone, before anybody competes.
struct Floors {
    /// Of a pod: a network and a root file system, beside each other, and then a runtime.
    up: f64,
    /// Of a command, and of one after a pause: the least, since the kernel's wait is now longer, now shorter.
    exec: [f64; 2],
    rows: Vec<(String, f64)>,
}

fn floors(settings: &Settings) -> Floors {
    println!("the runtime, a network, an overlay and the plugins, each alone");
    let p50 = |alone: &floor::Alone| Figure::sampled(&alone.samples).value;
    let [up, exec] = floor::runtime(RUNTIME, settings.rounds);
    let (network, overlay) = (floor::network(settings.rounds), floor::overlay(settings.rounds));
    let [add, del] = floor::plugins(settings.rounds);
    let [of_pod, exec_of_pod, eased] = floor::in_a_pod(RUNTIME, settings.rounds);
    let rows = [&up, &exec, &of_pod, &exec_of_pod, &eased, &network, &overlay, &add, &del];
    Floors {
        up: p50(&up) + p50(&network).max(p50(&overlay)),
        exec: [p50(&exec), eased.samples.percentile(0)],
        rows: rows.iter().map(|alone| (alone.what.clone(), p50(alone))).collect(),
    }
}

/// The machine, and how much was done.
fn about(settings: &Settings, took: Duration) -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let uname = rustix::system::uname();
    format!(
        "{cores} cores, Linux {}, {RUNTIME}; {} pods in turn, {} at rest; {} s",
        uname.release().to_string_lossy(),
        settings.rounds,
        settings.pods,
        took.as_secs()
    )
}
