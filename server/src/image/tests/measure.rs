//! Wall and CPU time of a real pull, by hand:
//! `PULL=127.0.0.1:5000/name:tag cargo test -p server -- --ignored --nocapture pull_and_measure`.

use std::time::Instant;

use super::*;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a registry and an image; prints figures"]
async fn pull_and_measure() {
    let name = std::env::var("PULL").expect("PULL names an image");
    let node = Node::new();
    let (started, cpu) = (Instant::now(), cpu_seconds());
    node.pull(&name).await.unwrap();
    let (wall, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let image = node.images.resolve(&name).unwrap();
    let (compressed, usage) = (image.size as f64 / 1e6, node.images.usage());
    println!(
        "{name}: {wall:.2} s, {cpu:.2} CPU s, {compressed:.1} MB compressed ({:.0} MB/s), {:.1} MB and {} inodes on disk, peak {} KiB",
        compressed / wall,
        usage.bytes as f64 / 1e6,
        usage.inodes,
        peak_kib()
    );
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

fn peak_kib() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.unwrap().trim().trim_end_matches(" kB").to_owned()
}
