//! Figures: memory, log throughput, and what the shim adds to the runtime's own time.
//!
//! `cargo test -p shim --test contract -- --ignored --nocapture measure`, with `PODWRIGHT_SHIM`
//! naming the shim as it is shipped.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::bundle::Spec;
use crate::pod::{LIMIT, Pod, eventually, runtime};

fn rollup(pid: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("alive");
    let wanted = ["Rss:", "Pss:", "Private_Dirty:"];
    let lines = text.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name)));
    lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join(", ")
}

#[tokio::test]
#[ignore = "prints figures"]
async fn memory() {
    let count = std::env::var("PODWRIGHT_PODS").ok().and_then(|count| count.parse().ok());
    let mut pods = Vec::new();
    for _ in 0..count.unwrap_or(10) {
        pods.push(Pod::start().await);
    }
    println!("fresh: {}", rollup(pods[0].bootstrap.pid.expect("a pid")));
    for pod in &pods {
        pod.client
            .create_sandbox(
                shim::client::CreateSandbox { id: pod.id.clone(), ..Default::default() },
                LIMIT,
            )
            .await
            .expect("created");
        pod.client.start_sandbox(&pod.id, LIMIT).await.expect("started");
        pod.run("a", &Spec::sh("seq 1 100000; sleep 1000")).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!("one container, idle: {}", rollup(pods[0].bootstrap.pid.expect("a pid")));
    for pod in pods {
        pod.remove("a").await;
        pod.end().await;
    }
}

#[tokio::test]
#[ignore = "prints figures"]
async fn log_throughput() {
    let pod = Pod::start().await;
    for size in [64_usize, 1024] {
        let name = format!("l{size}");
        let total = 512 << 20;
        let line = "x".repeat(size - 1);
        // A file that is read again and again: the producer must not be what is measured.
        let input = std::path::PathBuf::from(format!("/dev/shm/{name}-{}.in", pod.id));
        let lines = (total as usize / ROUNDS) / size;
        fs::write(&input, format!("{line}\n").repeat(lines)).expect("written");
        let script = format!("cat {}", format!("{} ", input.display()).repeat(ROUNDS));
        let shim = pod.bootstrap.pid.expect("a pid");
        let before = cpu(shim);
        let began = Instant::now();
        let mut spec = Spec::sh(&script);
        spec.binds.push(input.clone());
        let mut task = pod.prepare(&name, &spec);
        // In memory: a disk's speed is not what is measured.
        let log = std::path::PathBuf::from(format!("/dev/shm/{name}-{}.log", pod.id));
        if let shim::client::Options::Podwright(options) = &mut task.options {
            options.log_path = Some(log.clone());
        }
        pod.client.create(task, LIMIT).await.expect("created");
        pod.client.start(&pod.container(&name), "", LIMIT).await.expect("started");
        assert_eq!(pod.finish(&name).await, 0);
        let took = began.elapsed();
        let written = fs::metadata(&log).expect("a log").len();
        let megabytes = f64::from(total) / 1e6;
        println!(
            "{size}-byte lines: {:.0} MB/s of output ({:.0} MB written), shim CPU {:.2} s of {:.2} s, {:.0} MB/s of shim CPU",
            megabytes / took.as_secs_f64(),
            written as f64 / 1e6,
            cpu(shim) - before,
            took.as_secs_f64(),
            megabytes / (cpu(shim) - before),
        );
        fs::remove_file(&log).expect("removed");
        fs::remove_file(&input).expect("removed");
    }
    pod.end().await;
}

/// How often the same input is printed.
const ROUNDS: usize = 16;

/// Seconds of CPU that a process has used.
fn cpu(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("alive");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a stat").1.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / 100.0
}

#[tokio::test]
#[ignore = "prints figures"]
async fn latency() {
    let pod = Pod::start().await;
    let rounds = 15;
    let mut ours = Vec::new();
    for number in 0..rounds {
        let name = format!("c{number}");
        let task = pod.prepare(&name, &Spec::new(&["sleep", "1000"]));
        let id = task.id.clone();
        let began = Instant::now();
        pod.client.create(task, LIMIT).await.expect("created");
        pod.client.start(&id, "", LIMIT).await.expect("started");
        ours.push(began.elapsed());
        pod.remove(&name).await;
    }
    let mut raw = Vec::new();
    for number in 0..rounds {
        let name = format!("r{number}");
        pod.prepare(&name, &Spec::new(&["sleep", "1000"]));
        let bundle = pod.bundle(&name);
        // The same container without a shim; its root file system is the bare layer.
        let config = fs::read_to_string(bundle.join("config.json")).expect("config.json");
        let root = format!("\"path\":{:?}", crate::bundle::rootfs());
        let config = config.replace("\"path\":\"rootfs\"", &root);
        fs::write(bundle.join("config.json"), config).expect("config.json");
        let id = pod.container(&name);
        let run = |arguments: &[&str]| {
            let status = Command::new(runtime())
                .arg("--root")
                .arg(pod.dir.join("runtime"))
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .status();
            assert!(status.expect("run").success());
        };
        let began = Instant::now();
        run(&["create", "--bundle", &bundle.to_string_lossy(), &id]);
        run(&["start", &id]);
        raw.push(began.elapsed());
        run(&["delete", "--force", &id]);
    }
    let mut exec = Vec::new();
    pod.run("e", &Spec::new(&["sleep", "1000"])).await;
    for number in 0..rounds {
        let process = pod.exec("e", &format!("e{number}"), &["true"]);
        let (id, exec_id) = (process.id.clone(), process.exec_id.clone());
        let began = Instant::now();
        pod.client.exec(process, LIMIT).await.expect("registered");
        pod.client.start(&id, &exec_id, LIMIT).await.expect("started");
        pod.client.wait(&id, &exec_id).await.expect("an exit");
        exec.push(began.elapsed());
        pod.client.delete(&id, &exec_id, LIMIT).await.expect("deleted");
    }
    pod.remove("e").await;
    println!("create + start: {:?}, raw runtime: {:?}", median(&mut ours), median(&mut raw));
    println!("exec of true: {:?}", median(&mut exec));
    let shims = launch_time().await;
    println!("launch of a shim until it answers: {shims:?}");
    eventually("all is quiet", || true);
    pod.end().await;
}

async fn launch_time() -> Duration {
    let mut all = Vec::new();
    for _ in 0..9 {
        let began = Instant::now();
        let pod = Pod::start().await;
        pod.client.ping(LIMIT).await.expect("an answer");
        all.push(began.elapsed());
        pod.end().await;
    }
    median(&mut all)
}

fn median(all: &mut [Duration]) -> Duration {
    all.sort();
    all[all.len() / 2]
}
