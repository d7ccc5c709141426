//! `./dev bench`: podwrightd beside Debian's containerd, everything that design section 6 names, in one run.
//! `./dev bench pods [PODS]`: what a pod takes and costs, beside the runtimes and the plugins alone, in one run.
//! `./dev bench pull [ROUNDS [IMAGE|all [PODS]]]`: what a pull does, beside containerd's and others'.
//! `./dev bench idle [PODS [SECONDS]]`, `./dev bench list [PODS]`: what a full node costs, beside containerd's.
//!
//! Ratios count, not milliseconds: everything here is measured on the same machine in the same minutes.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use e2e::bench::{self, arguments, floor, floor::Alone, plot, table};
use e2e::image::catalogue::BUSYBOX;
use e2e::measure::{Processor, Samples};
use e2e::pod::{container, sandbox};
use e2e::{Options, World, density, place, pull_bench};
use serde_json::{Value, json};

const PODS: usize = 40;
const RUNTIMES: [&str; 2] = ["crun", "runc"];
/// Containers that are probed, by so many threads, for so long.
const PROBED: usize = 100;
const PROBERS: usize = 4;
const PROBE_ROUNDS: usize = 10;
const PERIOD: Duration = Duration::from_secs(1);
/// Pods of a node on which nothing happens; how often each call is timed.
const IDLE_PODS: usize = 100;
const CALLS: usize = 100;
/// Bytes through each way into a pod.
const THROUGHPUT: usize = 1 << 30;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("pods") => pods(number(&arguments, 1, PODS)),
        Some("pull") => pull(&arguments[1..]),
        Some("idle") => full("idle.json", &idle(&arguments[1..])),
        Some("list") => full("list.json", &list(&arguments[1..])),
        Some("plot") => return plot(&arguments[1..]),
        _ => return compare(&arguments),
    }
    ExitCode::SUCCESS
}

/// Podwright beside containerd, all of it.
fn compare(arguments: &[String]) -> ExitCode {
    let wanted = match arguments::read(arguments) {
        Ok(wanted) => wanted,
        Err(wrong) => {
            eprintln!("{wrong}\n{}", arguments::USAGE);
            return ExitCode::FAILURE;
        }
    };
    let report = bench::run(&bench::Settings { peers: peers(), ..wanted.settings });
    println!("\n{}\n\n{}", report.about, table::of(&report));
    let figures = serde_json::to_value(&report).expect("a report is JSON");
    match wanted.json {
        Some(path) => write_to(&path, &figures),
        None => write("compare.json", &figures),
    }
    ExitCode::SUCCESS
}

/// From the figures of a run to their picture.
fn plot(arguments: &[String]) -> ExitCode {
    let [from, to] = arguments else {
        eprintln!("{}", arguments::USAGE);
        return ExitCode::FAILURE;
    };
    let text = fs::read_to_string(from).map_err(|err| err.to_string());
    let report = text.and_then(|text| serde_json::from_str(&text).map_err(|err| err.to_string()));
    let drawn = report.and_then(|report| {
        println!("{}", table::of(&report));
        let svg = plot::svg(&report).ok_or("there is nobody to compare with")?;
        fs::write(to, svg).map_err(|err| err.to_string())
    });
    match drawn {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("{from}, {to}: {err}");
            ExitCode::FAILURE
        }
    }
}

/// Pods, commands and streams of podwrightd beside the runtimes and the plugins alone.
fn pods(pods: usize) {
    let mut rows = Vec::new();
    for runtime in RUNTIMES {
        rows.extend(through_cri(runtime, pods));
        rows.extend(floor::runtime(runtime, pods));
    }
    rows.extend(floor::plugins(pods));
    rows.extend(probes());
    print(&rows);
    throughput();
    write("pods.json", &json(&rows));
}

/// Pulls; `PODWRIGHT_PEERS` is where `./dev` has unpacked whom they are compared with.
fn pull(arguments: &[String]) {
    let number = |at, otherwise| number(arguments, at, otherwise);
    let target = place::target();
    let settings = pull_bench::Settings {
        rounds: number(0, 3),
        only: arguments.get(1).filter(|only| *only != "all").cloned().unwrap_or_default(),
        pods: number(2, 20),
        peers: peers().expect("run ./dev bench pull"),
        tools: true,
        dir: target.join("bench"),
    };
    write("pull.json", &pull_bench::run(&settings));
}

/// A node with many pods on which nothing happens.
fn idle(arguments: &[String]) -> density::Settings {
    let quiet = Duration::from_secs(number(arguments, 1, 60) as u64);
    let pods = number(arguments, 0, IDLE_PODS);
    density::Settings { pods, containers: 1, quiet, calls: CALLS, peers: peers() }
}

/// A node with so many pods that its lists are long. containerd would take half an hour to get there.
fn list(arguments: &[String]) -> density::Settings {
    let pods = number(arguments, 0, density::LISTED_PODS);
    let containers = density::LISTED_CONTAINERS;
    density::Settings { pods, containers, quiet: Duration::ZERO, calls: CALLS, peers: None }
}

fn full(file: &str, settings: &density::Settings) {
    write(file, &density::run(settings));
}

fn number(arguments: &[String], at: usize, otherwise: usize) -> usize {
    arguments.get(at).and_then(|number| number.parse().ok()).unwrap_or(otherwise)
}

fn peers() -> Option<PathBuf> {
    std::env::var_os("PODWRIGHT_PEERS").map(PathBuf::from)
}

/// The file of the figures, where they are kept unless somebody wants them elsewhere.
fn write(name: &str, figures: &Value) {
    write_to(&place::target().join("bench").join(name), figures);
}

fn write_to(path: &Path, figures: &Value) {
    let dir = path.parent().unwrap_or(Path::new(""));
    let made = if dir.as_os_str().is_empty() { Ok(()) } else { fs::create_dir_all(dir) };
    match made.and_then(|()| fs::write(path, figures.to_string())) {
        Ok(()) => println!("\nas JSON: {}", path.display()),
        Err(err) => eprintln!("{}: {err}", path.display()),
    }
}

/// Pods one after the other: Run, Create and Start, an exec, Stop and Remove.
fn through_cri(runtime: &'static str, pods: usize) -> Vec<Alone> {
    let world = quiet(runtime);
    world.pod("warm-up").end();
    let processor = Processor::of(&world);
    let [mut up, mut run, mut create, mut start, mut exec, mut down] =
        std::array::from_fn(|_| Samples::default());
    let before = processor.used();
    for number in 0..pods {
        let config = sandbox(&world, &format!("pod-{number}"));
        let pod = run.time(|| world.pod_of(config));
        let id = create.time(|| pod.create(container("c", BUSYBOX, &[])));
        start.time(|| world.start_container(&id)).expect("StartContainer");
        up.add(run.last() + create.last() + start.last());
        down.time(|| pod.end());
    }
    let cost = (processor.used() - before) / u32::try_from(pods).unwrap_or(1);
    let pod = world.pod("exec");
    let id = pod.run(container("c", BUSYBOX, &[]));
    let before = processor.used();
    for _ in 0..pods {
        exec.time(|| world.try_exec(&id, &["true"], 10)).expect("ExecSync");
    }
    let exec_cost = (processor.used() - before) / u32::try_from(pods).unwrap_or(1);
    pod.end();
    world.finish();
    let row = |what: &str, samples: Samples, cpu| Alone {
        what: format!("{runtime}: {what}"),
        samples,
        cpu,
    };
    vec![
        row("pod up (Run + Create + Start); processor for the cycle", up, Some(cost)),
        row("  RunPodSandbox", run, None),
        row("  CreateContainer", create, None),
        row("  StartContainer", start, None),
        row("pod down (Stop + Remove)", down, None),
        row("ExecSync true", exec, Some(exec_cost)),
    ]
}

/// Exec probes of many containers, each once a second, as a kubelet runs them.
fn probes() -> Option<Alone> {
    let world = quiet(RUNTIMES[0]);
    // Before the pod: its shim counts too.
    let processor = Processor::of(&world);
    let pod = world.pod("probes");
    let names = (0..PROBED).map(|number| format!("c{number}"));
    let ids: Vec<_> = names.map(|name| pod.run(container(&name, BUSYBOX, &[]))).collect();
    let before = processor.used();
    let all = std::thread::scope(|scope| {
        let probers: Vec<_> = ids
            .chunks(PROBED / PROBERS)
            .map(|ids| {
                let world = &world;
                scope.spawn(move || {
                    let mut samples = Samples::default();
                    for _ in 0..PROBE_ROUNDS {
                        let begun = Instant::now();
                        for id in ids {
                            let probe = samples.time(|| world.try_exec(id, &["true"], 1));
                            probe.expect("ExecSync");
                        }
                        std::thread::sleep(PERIOD.saturating_sub(begun.elapsed()));
                    }
                    samples
                })
            })
            .collect();
        let joined = probers.into_iter().map(|prober| prober.join().expect("a prober goes on"));
        joined.reduce(Samples::and)
    });
    let count = u32::try_from(PROBED * PROBE_ROUNDS).unwrap_or(1);
    let cpu = Some((processor.used() - before) / count);
    pod.end();
    world.finish();
    let what = format!("{}: ExecSync true, {PROBED} containers once a second", RUNTIMES[0]);
    all.map(|samples| Alone { what, samples, cpu })
}

fn throughput() {
    let world = quiet(RUNTIMES[0]);
    let rates = e2e::throughput::measure(&world, THROUGHPUT);
    world.finish();
    println!(
        "\nMB/s there and back, {} MiB to a cat: exec {:.0}, port-forward {:.0}, a plain proxy {:.0}, directly {:.0}",
        THROUGHPUT >> 20,
        rates.exec,
        rates.forward,
        rates.proxy,
        rates.direct
    );
}

/// A world whose daemon says little, with the image.
fn quiet(runtime: &'static str) -> World {
    let config = "log_level = \"warn\"\n".into();
    let world = World::start(Options { runtime, config, ..Default::default() });
    world.pull(BUSYBOX);
    world
}

fn print(rows: &[Alone]) {
    println!("\n{:<75} {:>9} {:>9} {:>9} {:>9}", "milliseconds", "p50", "p90", "p99", "processor");
    for row in rows {
        let cpu = row.cpu.map_or(String::new(), |cpu| format!("{:.1}", cpu.as_secs_f64() * 1e3));
        println!(
            "{:<75} {:>9.1} {:>9.1} {:>9.1} {cpu:>9}",
            row.what,
            row.samples.percentile(50),
            row.samples.percentile(90),
            row.samples.percentile(99),
        );
    }
}

fn json(rows: &[Alone]) -> Value {
    let rows = rows.iter().map(|row| {
        let mut value = row.samples.json();
        value["what"] = json!(row.what.trim());
        value["cpu_ms"] = json!(row.cpu.map(|cpu| cpu.as_secs_f64() * 1e3));
        value
    });
    Value::Array(rows.collect())
}
