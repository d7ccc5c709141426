//! `./dev bench idle` and `./dev bench list`: what a full node costs while nothing happens, and what the calls cost
//! that look at all of it. Real pods, one daemon after the other on the same machine.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tonic::Status;

use crate::bench::report::{Figure, Judged, Row, Target, Unit};
use crate::cri::*;
use crate::image::catalogue::BUSYBOX;
use crate::measure::{Samples, memory, threads};
use crate::peer::Containerd;
use crate::pod::{Pod, container};
use crate::world::{Options, World, processes};

/// What to measure.
#[derive(Debug, Clone)]
pub struct Settings {
    pub pods: usize,
    /// In each pod.
    pub containers: usize,
    /// How long nothing happens; zero: it is not looked at.
    pub quiet: Duration,
    /// Of each kind.
    pub calls: usize,
    /// Where `e2e/peers` has unpacked containerd; `None`: podwrightd alone.
    pub peers: Option<PathBuf>,
}

/// A node that is fuller than most: real pods, and real containers in each.
pub const LISTED_PODS: usize = 500;
pub const LISTED_CONTAINERS: usize = 3;
/// What design section 6 wants of its lists.
const LISTED: Target = Target::AtMost(5.0);
const LISTS: [&str; 5] = [
    "ListPodSandbox",
    "ListContainers",
    "ListContainers of a label",
    "ListContainers of a pod",
    "StreamContainers",
];
/// Pods that are started, and ended, at once.
const HANDFUL: usize = 4;

/// What was measured of one daemon.
struct Figures {
    name: &'static str,
    /// KiB of the daemon, and of all shims together.
    pss: (u64, u64),
    shims: usize,
    /// Of one core, while nothing happens: the daemon, and all shims.
    idle: Option<(f64, f64)>,
    calls: Vec<Timed>,
}

struct Timed {
    what: &'static str,
    /// How long, and the processor's time of the daemon for one.
    took: Result<(Samples, Duration), Status>,
}

/// Measures, prints, and returns the figures.
pub fn run(settings: &Settings) -> Value {
    let all = [Some(ours(settings)), settings.peers.as_deref().map(|at| theirs(settings, at))];
    let all: Vec<Figures> = all.into_iter().flatten().collect();
    print(settings, &all);
    let containers = settings.pods * settings.containers;
    let who: Vec<Value> = all.iter().map(|figures| figures.json(containers)).collect();
    json!({ "pods": settings.pods, "containers": containers, "who": who })
}

fn ours(settings: &Settings) -> Figures {
    let config = "log_level = \"warn\"\n".into();
    let world = World::start(Options { config, ..Default::default() });
    let figures = measure(&world, ("podwright", "podwrightd", "podwright-shim"), settings);
    world.finish();
    figures
}

fn theirs(settings: &Settings, peers: &Path) -> Figures {
    let mut world = World::without_daemon(Options::default());
    world.start_registry();
    let mut containerd = Containerd::start(&world, peers);
    std::mem::swap(&mut world.client, &mut containerd.client);
    // As much of the names as the kernel keeps.
    measure(&world, ("containerd", "containerd", "containerd-shim"), settings)
}

fn measure(
    world: &World,
    (name, daemon, shim): (&'static str, &str, &str),
    settings: &Settings,
) -> Figures {
    println!("{name}: {} pods with {} containers each", settings.pods, settings.containers);
    world.pull(BUSYBOX);
    let pods = fill(world, settings.pods, settings.containers);
    let (daemon, shims) = daemon_and_shims(world, (daemon, shim));
    let idle = (!settings.quiet.is_zero()).then(|| idle(&daemon, &shims, settings.quiet));
    let pss = (pss(&daemon), shims.iter().map(|dir| pss(dir)).sum());
    let (pod, id) = &pods[0];
    let calls = calls(world, &daemon, (&pod.id, id), settings.calls);
    let shims = shims.len();
    empty(pods);
    Figures { name, pss, shims, idle, calls }
}

/// The lists of a full node, of one daemon alone: nobody else holds as much on this machine.
pub(crate) fn lists(world: &World, pods: usize, containers: usize, count: usize) -> Vec<Row> {
    let filled = fill(world, pods, containers);
    let (pod, id) = &filled[0];
    let group = format!("{pods} real pods with {containers} containers each");
    let row = |(what, call): Call<'_>| {
        call().expect("the daemon lists");
        let mut samples = Samples::default();
        (0..count).for_each(|_| samples.time(&call).expect("the daemon lists"));
        judged(&group, what, &samples, pods * containers)
    };
    let lists = kinds(world, (&pod.id, id)).into_iter().filter(|(what, _)| LISTS.contains(what));
    let rows = lists.map(row).collect();
    empty(filled);
    rows
}

/// A call of a node with so many containers. What is wanted of the longest lists is not said of shorter ones.
fn judged(group: &str, what: &str, samples: &Samples, containers: usize) -> Row {
    let full = containers >= LISTED_PODS * LISTED_CONTAINERS;
    let target = Some(LISTED).filter(|_| full && LISTS.contains(&what));
    let figure = Figure::sampled(samples).by(Judged::P99).target(target);
    Row::new(group, what, Unit::Milliseconds, vec![Some(figure)])
}

/// Pods with so many containers each, and the id of each pod's first.
fn fill(world: &World, pods: usize, containers: usize) -> Vec<(Pod<'_>, String)> {
    let one = |number: usize| {
        let pod = world.pod(&format!("pod-{number}"));
        let names = (0..containers).map(|number| format!("c{number}"));
        let ids: Vec<_> = names.map(|name| pod.run(container(&name, BUSYBOX, &[]))).collect();
        (pod, ids.into_iter().next().unwrap_or_default())
    };
    let every = |first: usize| (first..pods).step_by(HANDFUL).map(one).collect::<Vec<_>>();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..HANDFUL).map(|first| scope.spawn(move || every(first))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("pods start")).collect()
    })
}

fn empty(mut pods: Vec<(Pod<'_>, String)>) {
    let share = pods.len().div_ceil(HANDFUL);
    std::thread::scope(|scope| {
        while !pods.is_empty() {
            let some = pods.split_off(pods.len().saturating_sub(share));
            scope.spawn(|| some.into_iter().for_each(|(pod, _)| pod.end()));
        }
    });
}

/// The directories in /proc of a world's daemon and of its shims, by the beginnings of their names.
pub(crate) fn daemon_and_shims(
    world: &World,
    (daemon, shim): (&str, &str),
) -> (PathBuf, Vec<PathBuf>) {
    let of = |comm: &str| -> Vec<PathBuf> {
        processes(world).into_iter().filter(|dir| comm_of(dir).starts_with(comm)).collect()
    };
    let shims = of(shim);
    let daemon = of(daemon).into_iter().find(|dir| !shims.contains(dir)).expect("it runs");
    (daemon, shims)
}

/// What was begun by the last start has to end first: threads that wait for more work leave after ten seconds.
pub(crate) const SETTLE: Duration = Duration::from_secs(15);

/// Shares of a core.
fn idle(daemon: &Path, shims: &[PathBuf], quiet: Duration) -> (f64, f64) {
    std::thread::sleep(SETTLE);
    let begun = Watched::begin(daemon, shims);
    std::thread::sleep(quiet);
    begun.shares()
}

/// What a daemon and its shims use from a moment on.
#[derive(Debug)]
pub(crate) struct Watched {
    start: Instant,
    daemon: (PathBuf, HashMap<PathBuf, Duration>),
    shims: Vec<(PathBuf, HashMap<PathBuf, Duration>)>,
}

impl Watched {
    pub(crate) fn begin(daemon: &Path, shims: &[PathBuf]) -> Self {
        let shims = shims.iter().map(|shim| (shim.clone(), threads(shim))).collect();
        let daemon = (daemon.to_owned(), threads(daemon));
        Self { start: Instant::now(), daemon, shims }
    }

    /// Of one core: the daemon's, and all shims'.
    pub(crate) fn shares(&self) -> (f64, f64) {
        let (daemon, shims) = self.used();
        let share = |spent: Duration| spent.as_secs_f64() / self.start.elapsed().as_secs_f64();
        (share(daemon), share(shims))
    }

    /// The daemon's, and all shims'.
    pub(crate) fn used(&self) -> (Duration, Duration) {
        let daemon = since(&self.daemon.1, &self.daemon.0);
        (daemon, self.shims.iter().map(|(shim, before)| since(before, shim)).sum())
    }
}

type Call<'a> = (&'static str, Box<dyn Fn() -> Result<(), Status> + 'a>);

fn calls(world: &World, daemon: &Path, ids: (&str, &str), count: usize) -> Vec<Timed> {
    let time = |(what, call): Call<'_>| {
        // The first one may find nothing sampled, and the connection new.
        let took = call().and_then(|()| {
            let (mut samples, before) = (Samples::default(), threads(daemon));
            for _ in 0..count {
                samples.time(&call)?;
            }
            let spent = since(&before, daemon) / u32::try_from(count).unwrap_or(1);
            Ok((samples, spent))
        });
        Timed { what, took }
    };
    kinds(world, ids).into_iter().map(time).collect()
}

/// The calls that look at all of a node, or at one of many.
pub(crate) fn kinds<'a>(world: &'a World, (pod, id): (&'a str, &'a str)) -> Vec<Call<'a>> {
    let client = &world.client;
    let of_pod = Some(ContainerFilter { pod_sandbox_id: pod.into(), ..Default::default() });
    let of_label = Some(ContainerFilter {
        label_selector: [("container".to_owned(), "c0".to_owned())].into(),
        ..Default::default()
    });
    let containers = |filter: &Option<ContainerFilter>| {
        client.list_containers(ListContainersRequest { filter: filter.clone() }).map(drop)
    };
    vec![
        (
            "ListPodSandbox",
            Box::new(|| client.list_pod_sandbox(Default::default()).map(drop)) as Box<_>,
        ),
        ("ListContainers", Box::new(move || containers(&None))),
        ("ListContainers of a label", Box::new(move || containers(&of_label))),
        ("ListContainers of a pod", Box::new(move || containers(&of_pod))),
        ("StreamContainers", Box::new(|| client.stream_containers(Default::default()).map(drop))),
        ("PodSandboxStatus", Box::new(move || world.sandbox_status(pod).map(drop))),
        ("ContainerStatus", Box::new(move || world.container_status(id).map(drop))),
        (
            "ListContainerStats",
            Box::new(|| client.list_container_stats(Default::default()).map(drop)),
        ),
        (
            "ListPodSandboxStats",
            Box::new(|| client.list_pod_sandbox_stats(Default::default()).map(drop)),
        ),
        (
            "ListPodSandboxMetrics",
            Box::new(|| client.list_pod_sandbox_metrics(Default::default()).map(drop)),
        ),
        (
            "StreamPodSandboxMetrics",
            Box::new(|| client.stream_pod_sandbox_metrics(Default::default()).map(drop)),
        ),
    ]
}

/// What design wants of a call of a node with so many containers, and whether it is met.
fn verdict(what: &str, samples: &Samples, containers: usize) -> Option<String> {
    let row = judged("", what, samples, containers);
    let text = row.figures[0]?.wanted(row.unit)?;
    Some(format!("{text} {}", if row.meets(0, None)? { "ok" } else { "**miss**" }))
}

fn comm_of(process: &Path) -> String {
    std::fs::read_to_string(process.join("comm")).unwrap_or_default()
}

/// KiB.
pub(crate) fn pss(process: &Path) -> u64 {
    memory(process, "Pss:").expect("the kernel tells a process's share of memory")
}

/// What the threads that are there now have used since.
fn since(before: &HashMap<PathBuf, Duration>, process: &Path) -> Duration {
    threads(process)
        .into_iter()
        .map(|(id, used)| used.saturating_sub(before.get(&id).copied().unwrap_or_default()))
        .sum()
}

impl Figures {
    fn json(&self, containers: usize) -> Value {
        let calls = self.calls.iter().map(|call| match &call.took {
            Ok((samples, cpu)) => {
                let mut value = samples.json();
                value["what"] = json!(call.what);
                value["cpu_ms"] = json!(cpu.as_secs_f64() * 1e3);
                value["target"] = json!(verdict(call.what, samples, containers));
                value
            }
            Err(status) => json!({ "what": call.what, "failed": status.message() }),
        });
        json!({
            "who": self.name, "daemon_pss_kib": self.pss.0, "shims": self.shims,
            "shims_pss_kib": self.pss.1,
            "daemon_idle_percent": self.idle.map(|(daemon, _)| daemon * 100.0),
            "shims_idle_percent": self.idle.map(|(_, shims)| shims * 100.0),
            "calls": calls.collect::<Vec<_>>(),
        })
    }
}

fn print(settings: &Settings, all: &[Figures]) {
    let (pods, containers) = (settings.pods, settings.pods * settings.containers);
    println!("\n{pods} pods, {containers} containers, real ones");
    for of in all {
        let mb = |kib: u64| kib as f64 / 1024.0;
        println!(
            "{:<12} daemon {:.1} MB PSS, {} shims {:.3} MB each",
            of.name,
            mb(of.pss.0),
            of.shims,
            mb(of.pss.1) / of.shims.max(1) as f64
        );
        if let Some((daemon, shims)) = of.idle {
            let (daemon, shims) = (daemon * 100.0, shims * 100.0);
            println!("{:<12} idle: daemon {daemon:.4} % of a core, all shims {shims:.4} %", "");
        }
    }
    println!(
        "\n{:<27} {:<12} {:>9} {:>9} {:>9} {:>9}",
        "milliseconds", "", "p50", "p90", "p99", "processor"
    );
    for (at, call) in all[0].calls.iter().enumerate() {
        let mut what = call.what;
        for of in all {
            match &of.calls[at].took {
                Ok((samples, cpu)) => println!(
                    "{what:<27} {:<12} {:>9.2} {:>9.2} {:>9.2} {:>9.2}  {}",
                    of.name,
                    samples.percentile(50),
                    samples.percentile(90),
                    samples.percentile(99),
                    cpu.as_secs_f64() * 1e3,
                    verdict(call.what, samples, containers).unwrap_or_default()
                ),
                Err(status) => println!("{what:<27} {:<12} cannot: {}", of.name, status.message()),
            }
            what = "";
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_of_a_full_node_are_judged_by_their_99th_percentile() {
        let full = LISTED_PODS * LISTED_CONTAINERS;
        let mut samples = Samples::default();
        (0..98).for_each(|_| samples.add(Duration::from_millis(1)));
        (0..2).for_each(|_| samples.add(Duration::from_millis(6)));
        assert_eq!(verdict("ListContainers", &samples, full).unwrap(), "p99 ≤ 5 ms **miss**");
        (0..100).for_each(|_| samples.add(Duration::from_millis(1)));
        assert_eq!(verdict("ListContainers", &samples, full).unwrap(), "p99 ≤ 5 ms ok");
        assert_eq!(verdict("ListContainers", &samples, full - 1), None);
        assert_eq!(verdict("ListContainerStats", &samples, full), None);
    }
}
