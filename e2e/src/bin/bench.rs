//! `./dev bench [PODS]`: what a pod takes and costs, beside the runtimes and the plugins alone, in one run.
//! `./dev bench pull [ROUNDS [IMAGE [PODS]]]`: what a pull does, beside containerd's and others'.
//! `./dev bench idle [PODS]`, `./dev bench list [PODS]`: what a full node costs, beside containerd's.
//!
//! Ratios count, not milliseconds: everything here is measured on the same machine in the same minutes.
#![forbid(unsafe_code)]

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use e2e::image::catalogue::BUSYBOX;
use e2e::measure::{Processor, Samples};
use e2e::pod::{container, sandbox};
use e2e::{Options, World, daemon, density, place, pull_bench};
use serde_json::{Value, json};

const PODS: usize = 40;
const RUNTIMES: [&str; 2] = ["crun", "runc"];
/// Containers that are probed, by so many threads, for so long.
const PROBED: usize = 100;
const PROBERS: usize = 4;
const PROBE_ROUNDS: usize = 10;
const PERIOD: Duration = Duration::from_secs(1);
/// Pods of a node on which nothing happens, and of one with long lists; how often each call is timed.
const IDLE_PODS: usize = 100;
const LISTED_PODS: usize = 500;
const CALLS: usize = 100;
/// Bytes through each way into a pod.
const THROUGHPUT: usize = 1 << 30;

struct Row {
    what: String,
    samples: Samples,
    /// For one of them.
    cpu: Option<Duration>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("pull") => return pull(&arguments[1..]),
        Some("idle") => return full("idle.json", &idle(&arguments[1..])),
        Some("list") => return full("list.json", &list(&arguments[1..])),
        _ => {}
    }
    let pods = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(PODS);
    let mut rows = Vec::new();
    for runtime in RUNTIMES {
        rows.extend(through_cri(runtime, pods));
        rows.extend(runtime_alone(runtime, pods));
    }
    rows.extend(plugins_alone(pods));
    rows.extend(probes());
    print(&rows);
    throughput();
    write("pods.json", &json(&rows));
    ExitCode::SUCCESS
}

/// Pulls; `PODWRIGHT_PEERS` is where `./dev` has unpacked whom they are compared with.
fn pull(arguments: &[String]) -> ExitCode {
    let number = |at, otherwise| number(arguments, at, otherwise);
    let target = place::target();
    let settings = pull_bench::Settings {
        rounds: number(0, 3),
        only: arguments.get(1).filter(|only| *only != "all").cloned().unwrap_or_default(),
        pods: number(2, 20),
        peers: peers().expect("run ./dev bench pull"),
        dir: target.join("bench"),
    };
    write("pull.json", &pull_bench::run(&settings));
    ExitCode::SUCCESS
}

/// A node with many pods on which nothing happens.
fn idle(arguments: &[String]) -> density::Settings {
    let quiet = Duration::from_secs(number(arguments, 1, 60) as u64);
    let pods = number(arguments, 0, IDLE_PODS);
    density::Settings { pods, containers: 1, quiet, calls: CALLS, peers: peers() }
}

/// A node with so many pods that its lists are long. containerd would take half an hour to get there.
fn list(arguments: &[String]) -> density::Settings {
    let pods = number(arguments, 0, LISTED_PODS);
    density::Settings { pods, containers: 3, quiet: Duration::ZERO, calls: CALLS, peers: None }
}

fn full(file: &str, settings: &density::Settings) -> ExitCode {
    write(file, &density::run(settings));
    ExitCode::SUCCESS
}

fn number(arguments: &[String], at: usize, otherwise: usize) -> usize {
    arguments.get(at).and_then(|number| number.parse().ok()).unwrap_or(otherwise)
}

fn peers() -> Option<PathBuf> {
    std::env::var_os("PODWRIGHT_PEERS").map(PathBuf::from)
}

/// The file of the figures.
fn write(name: &str, figures: &Value) {
    let dir = place::target().join("bench");
    let path = dir.join(name);
    match fs::create_dir_all(dir).and_then(|()| fs::write(&path, figures.to_string())) {
        Ok(()) => println!("\nas JSON: {}", path.display()),
        Err(err) => eprintln!("{}: {err}", path.display()),
    }
}

/// Pods one after the other: Run, Create and Start, an exec, Stop and Remove.
fn through_cri(runtime: &'static str, pods: usize) -> Vec<Row> {
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
    let row = |what: &str, samples: Samples, cpu| Row {
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
fn probes() -> Option<Row> {
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
    all.map(|samples| Row { what, samples, cpu })
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

/// The same container without a pod: create and start, and exec, of the runtime's executable on a prepared bundle.
fn runtime_alone(runtime: &'static str, rounds: usize) -> [Row; 2] {
    let world = World::without_daemon(Options::default());
    let bundle = world.path("bundle");
    let bin = bundle.join("rootfs/bin");
    fs::create_dir_all(&bin).expect("the world's directory");
    fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox-static is installed");
    fs::write(bundle.join("config.json"), specification(world.cgroup()).to_string())
        .expect("the world's directory");
    let time = |what: &str| {
        let output = world
            .command(place::binary("fixture"))
            .arg(what)
            .arg(world.tool(runtime))
            .arg(&bundle)
            .arg(rounds.to_string())
            .output()
            .expect("nsenter is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let up = format!("{runtime} alone: create + start; processor with delete");
    let exec = format!("{runtime} alone: exec true");
    [row_of(&up, &time("runtime"), "up", rounds), row_of(&exec, &time("exec"), "exec", rounds)]
}

/// The chain's plugins, each executed as libcni would, on a fresh network namespace.
fn plugins_alone(rounds: usize) -> [Row; 2] {
    let world = World::without_daemon(Options::default());
    let leases = world.path("cni/ipam").display().to_string();
    let output = world
        .command(place::binary("fixture"))
        .arg("plugins")
        .arg(world.cni_plugins())
        .arg(daemon::bridge(&leases))
        .arg(rounds.to_string())
        .output()
        .expect("nsenter is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut del = row_of("CNI plugins alone: DEL (portmap, bridge)", &output.stdout, "del", rounds);
    del.cpu = None;
    [
        row_of(
            "CNI plugins alone: ADD (loopback, bridge, portmap); processor with DEL",
            &output.stdout,
            "add",
            rounds,
        ),
        del,
    ]
}

fn row_of(what: &str, output: &[u8], name: &str, rounds: usize) -> Row {
    let text = String::from_utf8_lossy(output);
    let cpu = Samples::parse(&text, "cpu").total() / u32::try_from(rounds).unwrap_or(1);
    Row { what: what.into(), samples: Samples::parse(&text, name), cpu: Some(cpu) }
}

/// What podwrightd asks for a plain container, as far as time goes.
fn specification(cgroup: &str) -> Value {
    let namespaces: Vec<Value> = ["pid", "ipc", "uts", "mount", "network"]
        .iter()
        .map(|kind| json!({"type": kind}))
        .collect();
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/bin"],
            "args": ["/bin/busybox", "sleep", "3600"],
            "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
        },
        "root": {"path": "rootfs"},
        "hostname": "bench",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro", "nosuid"]},
        ],
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": format!("/{cgroup}/alone"),
            "resources": {"devices": [{"allow": false, "access": "rwm"}], "cpu": {"shares": 2}},
        },
    })
}

fn print(rows: &[Row]) {
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

fn json(rows: &[Row]) -> Value {
    let rows = rows.iter().map(|row| {
        let mut value = row.samples.json();
        value["what"] = json!(row.what.trim());
        value["cpu_ms"] = json!(row.cpu.map(|cpu| cpu.as_secs_f64() * 1e3));
        value
    });
    Value::Array(rows.collect())
}
