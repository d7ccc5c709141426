//! A node with many pods: what they hold and use while nothing happens, how long lists take, and how soon the lists
//! are whole again after the daemon was killed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::cri::{ContainerStateValue, ListContainersRequest, ListPodSandboxRequest};
use crate::density::{SETTLE, Watched, kinds, pss};
use crate::measure::Samples;
use crate::poll::within;

use super::contestant::Contestant;
use super::pods::{Started, end_at_once, start_at_once};
use super::report::{Figure, Judged, Row, Target, Unit};

/// Pods that are started, and ended, at once.
const HANDFUL: usize = 4;
/// For all calls of one kind to one daemon: some take seconds.
const CALLS_LIMIT: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(120);
/// Of design section 6.
const SHIM_MB: Target = Target::AtMost(0.25);
const DAEMON_MB: Target = Target::AtMost(25.0);
const IDLE_PERCENT: Target = Target::AtMost(0.02);
const RESTART_MS: Target = Target::AtMost(300.0);
const LIST_MS: [(&str, Target); 3] = [
    ("ListContainers", Target::AtMost(1.0)),
    ("ListContainerStats", Target::AtMost(10.0)),
    ("ListPodSandboxMetrics", Target::AtMost(20.0)),
];
/// Lists are wanted so short up to so many pods, and shims so small from so many on, which share their program.
const NODE: usize = 100;

/// How much of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    pub(super) pods: usize,
    /// Zero: how much is used at rest is not looked at.
    pub(super) quiet: Duration,
    pub(super) calls: usize,
    pub(super) kills: usize,
}

/// Everything about a full node. All contestants' pods are there at the same time.
pub(super) fn measure(all: &mut [Contestant], extent: Extent) -> Vec<Row> {
    println!("{} pods", extent.pods);
    let pods = fill(all, extent.pods);
    let mut rows = at_rest(all, &extent);
    rows.extend(lists(all, &pods, &extent));
    rows.push(kills(all, &extent));
    for (one, mut pods) in all.iter().zip(pods) {
        while !pods.is_empty() {
            let some = pods.split_off(pods.len().saturating_sub(HANDFUL));
            end_at_once(&one.world, some);
        }
    }
    rows
}

fn group(pods: usize) -> String {
    format!("{pods} pods")
}

fn fill(all: &[Contestant], pods: usize) -> Vec<Vec<Started>> {
    let mut started: Vec<Vec<Started>> = all.iter().map(|_| Vec::new()).collect();
    for first in (0..pods).step_by(HANDFUL) {
        for (one, started) in all.iter().zip(&mut started) {
            let name = format!("node-{first}");
            started.extend(start_at_once(&one.world, HANDFUL.min(pods - first), &name).0);
        }
    }
    started
}

fn at_rest(all: &[Contestant], extent: &Extent) -> Vec<Row> {
    let processes: Vec<_> = all.iter().map(Contestant::processes).collect();
    let idle = (!extent.quiet.is_zero()).then(|| idle(&processes, extent.quiet));
    let mb = |kib: u64| kib as f64 * 1024.0 / 1e6;
    let daemon = processes.iter().map(|(daemon, _)| mb(pss(daemon)));
    let shims = processes
        .iter()
        .map(|(_, shims)| mb(shims.iter().map(|shim| pss(shim)).sum()) / extent.pods.max(1) as f64);
    let row = |what: &str, unit, target: Option<Target>, values: Vec<f64>| {
        let figures = all.iter().zip(values).map(|(one, value)| {
            let target = target.and_then(|target| one.wanted(target));
            Some(Figure::of(value).target(target))
        });
        Row::new(&group(extent.pods), what, unit, figures.collect())
    };
    let shim_mb = Some(SHIM_MB).filter(|_| extent.pods >= NODE);
    let mut rows = vec![
        row("memory of the daemon (PSS)", Unit::Megabytes, Some(DAEMON_MB), daemon.collect()),
        row("memory of a pod's shim (PSS)", Unit::Megabytes, shim_mb, shims.collect()),
    ];
    let idle = idle.map(|idle| row("processor at rest", Unit::Percent, Some(IDLE_PERCENT), idle));
    rows.extend(idle);
    rows
}

/// What each daemon and its shims use in the same seconds.
fn idle(processes: &[(PathBuf, Vec<PathBuf>)], quiet: Duration) -> Vec<f64> {
    std::thread::sleep(SETTLE);
    let watched: Vec<_> = processes.iter().map(|(d, shims)| Watched::begin(d, shims)).collect();
    std::thread::sleep(quiet);
    let shares = watched.iter().map(Watched::shares);
    shares.map(|(daemon, shims)| (daemon + shims) * 100.0).collect()
}

/// Each kind of call, each contestant in turn.
fn lists(all: &[Contestant], pods: &[Vec<Started>], extent: &Extent) -> Vec<Row> {
    let mut kinds: Vec<_> = all
        .iter()
        .zip(pods)
        .map(|(one, pods)| kinds(&one.world, (&pods[0].pod, &pods[0].container)).into_iter())
        .collect();
    let mut rows = Vec::new();
    loop {
        let calls: Vec<_> = kinds.iter_mut().filter_map(Iterator::next).collect();
        let Some((what, _)) = calls.first() else { return rows };
        let mut samples: Vec<Samples> = all.iter().map(|_| Samples::default()).collect();
        // The first one may find nothing sampled, and the connection new.
        let can: Vec<bool> = calls.iter().map(|(_, call)| call().is_ok()).collect();
        for _ in 0..extent.calls {
            for (at, (_, call)) in calls.iter().enumerate() {
                if can[at] && samples[at].total() < CALLS_LIMIT {
                    samples[at].time(call).expect("it answered before");
                }
            }
        }
        let target = LIST_MS.iter().find(|(name, _)| name == what).map(|(_, target)| *target);
        let target = target.filter(|_| extent.pods <= NODE);
        let figures = all.iter().zip(&samples).zip(&can).map(|((one, samples), can)| {
            let target = target.and_then(|target| one.wanted(target));
            can.then(|| Figure::sampled(samples).target(target))
        });
        rows.push(Row::new(&group(extent.pods), what, Unit::Milliseconds, figures.collect()));
    }
}

/// From the start of the next daemon until its lists are as long as before. Nine of ten have to be soon enough: a node
/// has few restarts, and the kubelet waits for each.
fn kills(all: &mut [Contestant], extent: &Extent) -> Row {
    let mut samples: Vec<Samples> = all.iter().map(|_| Samples::default()).collect();
    for _ in 0..extent.kills {
        for (one, samples) in all.iter_mut().zip(&mut samples) {
            let begun = Instant::now();
            one.restart();
            within(PATIENCE, "complete lists", || complete(one, extent.pods).then_some(()));
            samples.add(begun.elapsed());
        }
    }
    let figures = all.iter().zip(&samples).map(|(one, samples)| {
        let figure = Figure::sampled(samples).by(Judged::P90);
        Some(figure.target(one.wanted(RESTART_MS)))
    });
    let what = format!("kill -9 until lists are complete: p50 / p90 / longest of {}", extent.kills);
    Row::new(&group(extent.pods), &what, Unit::Milliseconds, figures.collect())
}

fn complete(one: &Contestant, pods: usize) -> bool {
    let client = &one.world.client;
    let sandboxes = client.list_pod_sandbox(ListPodSandboxRequest::default());
    let running = crate::cri::ContainerFilter {
        state: Some(ContainerStateValue {
            state: crate::cri::ContainerState::ContainerRunning.into(),
        }),
        ..Default::default()
    };
    let containers = client.list_containers(ListContainersRequest { filter: Some(running) });
    sandboxes.is_ok_and(|answer| answer.items.len() >= pods)
        && containers.is_ok_and(|answer| answer.containers.len() >= pods)
}
