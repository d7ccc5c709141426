//! `./dev bench idle` and `./dev bench list`: what a full node costs while nothing happens, and what the calls cost
//! that look at all of it. Real pods, one daemon after the other on the same machine.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tonic::Status;

use crate::cri::*;
use crate::image::catalogue::BUSYBOX;
use crate::measure::{Samples, memory, threads};
use crate::peer::Containerd;
use crate::pod::container;
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
    json!({
        "pods": settings.pods, "containers": settings.pods * settings.containers,
        "who": all.iter().map(Figures::json).collect::<Vec<_>>(),
    })
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
    let pods: Vec<_> = (0..settings.pods).map(|n| world.pod(&format!("pod-{n}"))).collect();
    let mut ids = Vec::new();
    for pod in &pods {
        let names = (0..settings.containers).map(|n| format!("c{n}"));
        ids.extend(names.map(|name| pod.run(container(&name, BUSYBOX, &[]))));
    }
    let (daemon, shims) = daemon_and_shims(world, (daemon, shim));
    let idle = (!settings.quiet.is_zero()).then(|| idle(&daemon, &shims, settings.quiet));
    let pss = (pss(&daemon), shims.iter().map(|dir| pss(dir)).sum());
    let calls = calls(world, &daemon, (&pods[0].id, &ids[0]), settings.calls);
    let shims = shims.len();
    pods.into_iter().for_each(crate::pod::Pod::end);
    Figures { name, pss, shims, idle, calls }
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
    fn json(&self) -> Value {
        let calls = self.calls.iter().map(|call| match &call.took {
            Ok((samples, cpu)) => {
                let mut value = samples.json();
                value["what"] = json!(call.what);
                value["cpu_ms"] = json!(cpu.as_secs_f64() * 1e3);
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
    println!("\n{pods} pods, {containers} containers");
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
                    "{what:<27} {:<12} {:>9.2} {:>9.2} {:>9.2} {:>9.2}",
                    of.name,
                    samples.percentile(50),
                    samples.percentile(90),
                    samples.percentile(99),
                    cpu.as_secs_f64() * 1e3
                ),
                Err(status) => println!("{what:<27} {:<12} cannot: {}", of.name, status.message()),
            }
            what = "";
        }
    }
}
