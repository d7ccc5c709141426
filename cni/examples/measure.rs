//! What the crate costs beside the plugins alone: `measure [rounds]`, as root, with Debian's plugins.
//!
//! Each round attaches and detaches one pod through the crate, and one by executing the same plugins with
//! the same input and nothing around them. All of it happens in network namespaces of its own.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use cni::{Attachment, Network, Runtime, netns};
use serde_json::{Value, json};

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
        println!("{name:24} p50 {:7.2} ms   p90 {:7.2} ms", at(50), at(90));
    }
    Ok(())
}

fn measure(dir: &Path, rounds: usize) -> Result<Timings, Box<dyn Error>> {
    let bridge = json!({
        "type": "bridge", "bridge": "br0", "isDefaultGateway": true, "ipMasq": true,
        "ipam": { "type": "host-local", "dataDir": dir.join("leases"),
                  "ranges": [[{ "subnet": "10.78.0.0/16" }]] },
    });
    let list =
        json!({ "cniVersion": "1.0.0", "name": "net", "plugins": [bridge, { "type": "portmap" }] });
    let network = Network::parse(list.to_string().as_bytes())?;
    let runtime = Runtime { cache_dir: dir.join("cache"), ..Runtime::default() };
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
        for crate_first in [round % 2 == 0, round % 2 == 1] {
            if crate_first {
                time("crate ADD", &mut || {
                    Ok(runtime.add(&network, &pod, &runtime.deadline()).map(drop)?)
                })?;
                time("crate DEL", &mut || Ok(runtime.del(&network, &pod, &runtime.deadline())?))?;
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
    Ok(timings)
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
    let mut child = Command::new(Path::new("/usr/lib/cni").join(kind))
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", &pod.container_id)
        .env("CNI_NETNS", pod.netns.as_deref().ok_or("a namespace")?)
        .env("CNI_IFNAME", &pod.ifname)
        .env("CNI_PATH", "/usr/lib/cni")
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
