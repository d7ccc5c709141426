//! What the daemon, the shims and the host hold at one moment.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Row;
use super::slope::Line;
use crate::cgroup;
use crate::measure::memory;
use crate::world::{World, processes};

/// What is watched, in which unit, and by how much it may rise over a whole soak. With the pods at a time the
/// counts go up and down; a leak only goes up.
const WATCHED: &[(&str, &str, f64)] = &[
    ("daemon: RSS", "KiB", 2048.0),
    ("daemon: PSS", "KiB", 2048.0),
    ("daemon: descriptors", "", 4.0),
    ("daemon: threads", "", 4.0),
    ("a shim: PSS", "KiB", 64.0),
    ("a shim: descriptors", "", 2.0),
    ("a shim: threads", "", 1.0),
    ("node: shims", "", 2.0),
    ("node: processes", "", 8.0),
    ("node: mounts", "", 4.0),
    ("node: cgroups", "", 12.0),
    ("node: network namespaces", "", 2.0),
    ("node: links", "", 2.0),
    ("node: leases", "", 2.0),
    ("node: files of pods", "", 32.0),
    ("node: layers and snapshots", "", 4.0),
];

/// All samples by what was sampled.
#[derive(Debug, Default)]
pub(super) struct Series(BTreeMap<&'static str, Vec<(f64, f64)>>);

impl Series {
    pub(super) fn sample(&mut self, world: &World, at: Duration) {
        let mut add = |what: &'static str, value: Option<f64>| {
            if let Some(value) = value {
                self.0.entry(what).or_default().push((at.as_secs_f64(), value));
            }
        };
        if let Some(daemon) = world.daemon_pid().map(|pid| PathBuf::from(format!("/proc/{pid}"))) {
            add("daemon: RSS", memory(&daemon, "Rss:").map(|kib| kib as f64));
            add("daemon: PSS", pss(&daemon));
            add("daemon: descriptors", count(&daemon.join("fd")));
            add("daemon: threads", count(&daemon.join("task")));
        }
        let processes = processes(world);
        let shims: Vec<&PathBuf> = processes.iter().filter(|dir| is_shim(dir)).collect();
        add("a shim: PSS", mean(&shims, pss));
        add("a shim: descriptors", mean(&shims, |dir| count(&dir.join("fd"))));
        add("a shim: threads", mean(&shims, |dir| count(&dir.join("task"))));
        add("node: shims", Some(shims.len() as f64));
        add("node: processes", Some(processes.len() as f64));
        let init = PathBuf::from(format!("/proc/{}", world.init()));
        add("node: mounts", lines(&init.join("mountinfo")));
        add("node: links", lines(&init.join("net/dev")));
        add("node: network namespaces", count(&world.seen("/run/netns")));
        let cgroups = cgroup::roots(world.cgroup()).iter().map(|root| below(root, true)).sum();
        add("node: cgroups", Some(cgroups));
        add("node: leases", Some(below(&world.path("cni/ipam"), false)));
        add("node: files of pods", Some(below(&world.seen(world.path("state/pods")), false)));
        let store = |dir| count(&world.path("root/snapshots").join(dir));
        add(
            "node: layers and snapshots",
            store("layers").zip(store("snapshots")).map(|(a, b)| a + b),
        );
    }

    pub(super) fn rows(&self) -> Vec<Row> {
        WATCHED
            .iter()
            .filter_map(|&(what, unit, allowed)| {
                let line = Line::through(self.0.get(what)?);
                Some(Row { what, unit, line, allowed })
            })
            .collect()
    }
}

fn pss(process: &Path) -> Option<f64> {
    memory(process, "Pss:").map(|kib| kib as f64)
}

fn count(dir: &Path) -> Option<f64> {
    fs::read_dir(dir).ok().map(|entries| entries.count() as f64)
}

fn lines(file: &Path) -> Option<f64> {
    fs::read_to_string(file).ok().map(|text| text.lines().count() as f64)
}

fn mean(of: &[&PathBuf], value: impl Fn(&Path) -> Option<f64>) -> Option<f64> {
    let values: Vec<f64> = of.iter().filter_map(|dir| value(dir)).collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// By its program: a shim's helper children have other names, or are gone at once.
fn is_shim(process: &Path) -> bool {
    fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim() == "podwright-shim")
}

/// Everything below a directory, or its directories alone; the depth is bounded by the file system.
fn below(dir: &Path, directories: bool) -> f64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => 1.0 + below(&entry.path(), directories),
            Ok(_) if !directories => 1.0,
            _ => 0.0,
        })
        .sum()
}
