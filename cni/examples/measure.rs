//! What the crate costs beside the plugins alone: `measure [rounds]`, as root, with Debian's plugins.
//!
//! Each round attaches and detaches one pod in-process, one by executing plugins, and one by executing the same
//! plugins with the same input and nothing around them; then come eight at once by each. All of it happens in network
//! namespaces of its own. `PODWRIGHT_RULES=1` adds masquerading and portmap.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use cni::{Attachment, Network, Runtime, netns};
use serde_json::{Value, json};

const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);
const AT_ONCE: usize = 8;
const IN_PROCESS: [&str; 4] =
    ["in-process ADD", "in-process DEL", "in-process ADD, 8 at once", "in-process DEL, 8 at once"];
const EXECUTED: [&str; 4] =
    ["executed ADD", "executed DEL", "executed ADD, 8 at once", "executed DEL, 8 at once"];

type Timings = BTreeMap<&'static str, Vec<f64>>;

fn main() -> Result<(), Box<dyn Error>> {
    let rounds = std::env::args().nth(1).map_or(Ok(30), |arg| arg.parse())?;
    let dir = tempfile::tempdir()?;
    let host = dir.path().join("netns/host");
    netns::create(&host)?;
    let outcome = netns::run_in(&host, || measure(dir.path(), rounds).map_err(|e| e.to_string()));
    netns::remove(&host)?;
    rustix::mount::unmount(dir.path().join("netns"), rustix::mount::UnmountFlags::DETACH)?;
    for (name, mut times) in outcome?? {
        times.sort_by(f64::total_cmp);
        let at = |share: usize| times[(times.len() - 1) * share / 100];
        println!("{name:28} p50 {:7.2} ms   p90 {:7.2} ms", at(50), at(90));
    }
    Ok(())
}

fn measure(dir: &Path, rounds: usize) -> Result<Timings, Box<dyn Error>> {
    let rules = std::env::var_os("PODWRIGHT_RULES").is_some();
    let bridge = json!({
        "type": "bridge", "bridge": "br0", "isDefaultGateway": true, "ipMasq": rules,
        "ipam": { "type": "host-local", "dataDir": dir.join("leases"),
                  "ranges": [[{ "subnet": "10.78.0.0/16" }]] },
    });
    let mut plugins = vec![json!({ "type": "loopback" }), bridge];
    if rules {
        plugins.push(json!({ "type": "portmap", "capabilities": { "portMappings": true } }));
    }
    let list = json!({ "cniVersion": "1.0.0", "name": "net", "plugins": plugins });
    let network = Network::parse(list.to_string().as_bytes())?;
    let (cache_dir, bin_dirs) = (dir.join("cache"), vec![plugin_dir()]);
    let executed =
        Runtime { cache_dir, bin_dirs, native: false, timeout: LIMIT, ..Runtime::default() };
    let in_process = Runtime { native: true, ..executed.clone() };
    println!("in-process: {}", in_process.in_process(&network).join(", "));
    let mut timings = Timings::new();
    let mut time = |name, f: &mut dyn FnMut() -> Result<(), Box<dyn Error>>| {
        let started = Instant::now();
        f()?;
        timings.entry(name).or_default().push(started.elapsed().as_secs_f64() * 1000.0);
        Ok::<_, Box<dyn Error>>(())
    };
    for round in 0..rounds {
        let path = dir.join(format!("netns/pod{round}"));
        time("netns, loopback up", &mut || Ok(netns::create(&path)?))?;
        let mut pod = Attachment::for_pod(&format!("pod{round}"), "default", "pod", "uid");
        pod.netns = Some(path.clone());
        // In turns, since the first to come finds the namespace and the bridge cold.
        for turn in (0..3).map(|turn| (turn + round) % 3) {
            let ways = [(IN_PROCESS, &in_process), (EXECUTED, &executed)];
            if let Some((names, runtime)) = ways.get(turn) {
                time(names[0], &mut || {
                    Ok(runtime.add(&network, &pod, &runtime.deadline()).map(drop)?)
                })?;
                time(names[1], &mut || Ok(runtime.del(&network, &pod, &runtime.deadline())?))?;
                continue;
            }
            let plugins = list["plugins"].as_array().ok_or("a list")?;
            let mut result = Value::Null;
            time("plugins alone ADD", &mut || {
                for plugin in plugins {
                    result = serde_json::from_slice(&bare("ADD", plugin, &result, &pod)?)?;
                }
                Ok(())
            })?;
            time("plugins alone DEL", &mut || {
                let each = |plugin| bare("DEL", plugin, &result, &pod).map(drop);
                plugins.iter().rev().try_for_each(each)
            })?;
        }
        time("netns removed", &mut || Ok(netns::remove(&path)?))?;
    }
    for (names, runtime) in [(IN_PROCESS, &in_process), (EXECUTED, &executed)] {
        for _ in 0..rounds.div_ceil(AT_ONCE) {
            let took = at_once(dir, &network, runtime)?;
            timings.entry(names[2]).or_default().extend(took.iter().map(|(add, _)| add));
            timings.entry(names[3]).or_default().extend(took.iter().map(|(_, del)| del));
        }
    }
    Ok(timings)
}

/// Attaches several pods at the same time, then detaches them; how long each took.
fn at_once(
    dir: &Path,
    network: &Network,
    runtime: &Runtime,
) -> Result<Vec<(f64, f64)>, Box<dyn Error>> {
    let ms = |started: Instant| started.elapsed().as_secs_f64() * 1000.0;
    let pods: Vec<_> = (0..AT_ONCE).map(|at| dir.join(format!("netns/many{at}"))).collect();
    pods.iter().try_for_each(|path| netns::create(path))?;
    let gate = std::sync::Barrier::new(AT_ONCE);
    let one = |(at, path): (usize, &std::path::PathBuf)| -> cni::Result<(f64, f64)> {
        let mut pod = Attachment::for_pod(&format!("many{at}"), "default", "pod", "uid");
        pod.netns = Some(path.clone());
        gate.wait();
        let started = Instant::now();
        let added = runtime.add(network, &pod, &runtime.deadline());
        let add = ms(started);
        gate.wait();
        let started = Instant::now();
        runtime.del(network, &pod, &runtime.deadline())?;
        added.map(|_| (add, ms(started)))
    };
    let took = std::thread::scope(|scope| {
        let threads: Vec<_> =
            pods.iter().enumerate().map(|pod| scope.spawn(move || one(pod))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a thread")).collect::<Vec<_>>()
    });
    pods.iter().try_for_each(|path| netns::remove(path))?;
    took.into_iter().map(|took| Ok(took??)).collect()
}

/// A plugin, and nothing else.
fn bare(
    verb: &str,
    plugin: &Value,
    previous: &Value,
    pod: &Attachment,
) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut config = plugin.clone();
    config["name"] = "net".into();
    config["cniVersion"] = "1.0.0".into();
    if !previous.is_null() {
        config["prevResult"] = previous.clone();
    }
    let kind = plugin["type"].as_str().ok_or("a type")?;
    let mut child = Command::new(plugin_dir().join(kind))
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", &pod.container_id)
        .env("CNI_NETNS", pod.netns.as_deref().ok_or("a namespace")?)
        .env("CNI_IFNAME", &pod.ifname)
        .env("CNI_PATH", plugin_dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    child.stdin.take().ok_or("a pipe")?.write_all(config.to_string().as_bytes())?;
    let output = child.wait_with_output()?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(String::from_utf8_lossy(&output.stdout).into())
    }
}

/// Debian's plugins: those that `./dev` unpacked, else the installed ones.
fn plugin_dir() -> std::path::PathBuf {
    std::env::var_os("PODWRIGHT_TOOLS").map_or("/usr/lib/cni".into(), |t| Path::new(&t).join("cni"))
}
