//! What a world holds: anything that a pod could leave behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::cgroup::{self, Driver};
use crate::cri::{ListContainersRequest, ListPodSandboxRequest};
use crate::poll::{LIMIT, patience};
use crate::world::{self, World};

/// One line for each thing held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held(BTreeSet<String>);

impl Held {
    pub fn now(world: &World) -> Self {
        let mut held = BTreeSet::new();
        held.extend(mounts(world));
        held.extend(processes(world));
        held.extend(cgroups(world));
        held.extend(network(world));
        held.extend(files(world));
        held.extend(descriptors(world));
        held.extend(records(world));
        Self(held)
    }

    /// What is held that was not before. Waits until that is nothing, for as long as anything may take: the kernel and
    /// the daemon finish in the background, and on a disk that somebody else fills, deletions wait for the journal.
    pub fn more(&self, world: &World) -> Vec<String> {
        let start = std::time::Instant::now();
        loop {
            let more: Vec<String> = Self::now(world).0.difference(&self.0).cloned().collect();
            if more.is_empty() || start.elapsed() > LIMIT * patience() {
                return more;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

fn mounts(world: &World) -> Vec<String> {
    let table = fs::read_to_string(format!("/proc/{}/mountinfo", world.init())).unwrap_or_default();
    let line = |line: &str| {
        let mut fields = line.split(' ');
        let root = fields.nth(3)?;
        Some(format!("mount {} {root}", fields.next()?))
    };
    table.lines().filter_map(line).collect()
}

/// By name and count, so that a restarted daemon is no other process. The dead that wait to be reaped are none.
fn processes(world: &World) -> Vec<String> {
    let names = world::processes(world).into_iter().filter_map(|dir| {
        let stat = fs::read_to_string(dir.join("stat")).ok()?;
        let (name, rest) = stat.split_once(" (")?.1.rsplit_once(") ")?;
        (!rest.starts_with('Z')).then(|| format!("process {name}"))
    });
    counted(names)
}

fn numbered(dir: &Path) -> impl Iterator<Item = std::path::PathBuf> + use<> {
    fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|entry| {
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        Some(entry.path())
    })
}

/// The second `x` becomes `x #2`.
fn counted(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut counts = BTreeMap::<String, u32>::new();
    lines
        .map(|line| {
            let count = counts.entry(line.clone()).or_default();
            *count += 1;
            format!("{line} #{count}")
        })
        .collect()
}

/// A container's cgroup bears its id; the parents above belong to the kubelet, here the harness.
fn cgroups(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    for root in cgroup::roots(&world.cgroup) {
        below(&root, 8, &mut found);
    }
    found.retain(|path| Path::new(path).is_dir() && holds_id(path));
    if world.driver() == Driver::Systemd {
        found.extend(cgroup::scopes(&world.cgroup));
    }
    found.into_iter().map(|path| format!("cgroup {path}")).collect()
}

fn holds_id(path: &str) -> bool {
    path.split(|c: char| !c.is_ascii_hexdigit()).any(|word| word.len() == 64)
}

fn below(dir: &Path, depth: usize, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if depth > 1 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            below(&path, depth - 1, found);
        }
        found.push(path.display().to_string());
    }
}

fn network(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    below(&world.seen("/run/netns"), 1, &mut found);
    let links = fs::read_to_string(format!("/proc/{}/net/dev", world.init())).unwrap_or_default();
    // The bridge stays for the next pod, as the plugins leave it.
    let links = links
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim())
        .filter(|name| *name != "pods0")
        .map(|name| format!("link {name}"));
    found.extend(links);
    // Chains that portmap makes once and keeps have fixed names.
    let rules = world.try_sh("iptables-save 2>/dev/null").stdout;
    let rules = String::from_utf8_lossy(&rules);
    let of_pods =
        rules.lines().filter(|line| line.contains("CNI-DN-") || line.contains("--comment"));
    found.extend(
        of_pods.filter(|line| !line.contains("CNI portfwd")).map(|line| format!("rule {line}")),
    );
    found
}

/// Layers are not among them: those of an image that failed half-way stay a while for the next try.
fn files(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    let places = [
        ("cni/cache", 4),
        ("cni/ipam", 3),
        ("state/pods", 4),
        ("root/snapshots/snapshots", 1),
        ("root/snapshots/ingest", 1),
        ("root/snapshots/trash", 1),
    ];
    for (dir, depth) in places {
        below(&world.seen(world.path(dir)), depth, &mut found);
    }
    // What host-local keeps open or remembers is no one's in particular.
    found.retain(|path| {
        let name = path.rsplit('/').next().unwrap_or_default();
        let of_the_network = Path::new(path).is_dir() && path.contains("/cni/");
        // Links to the node's programs, for all pods.
        let of_the_node = path.contains("/cni/cache/engines/");
        !(name == "lock" || name.starts_with("last_reserved_ip") || of_the_network || of_the_node)
    });
    // The OCI runtimes' own state, in a directory for each of them.
    let mut states = Vec::new();
    below(&world.seen(world.path("state/runtime")), 2, &mut states);
    found.extend(states.into_iter().filter(|path| holds_id(path)));
    found.into_iter().map(|path| format!("file {path}")).collect()
}

/// The daemon's, without sockets: connections come and go with their clients.
fn descriptors(world: &World) -> Vec<String> {
    let Some(pid) = world.daemon_pid() else { return Vec::new() };
    let targets = numbered(Path::new(&format!("/proc/{pid}/fd"))).filter_map(|link| {
        let target = fs::read_link(link).ok()?.display().to_string();
        let kind = target.split(":[").next().unwrap_or(&target).to_owned();
        (kind != "socket").then(|| format!("descriptor {kind}"))
    });
    counted(targets)
}

fn records(world: &World) -> Vec<String> {
    let sandboxes = world.client.list_pod_sandbox(ListPodSandboxRequest::default());
    let containers = world.client.list_containers(ListContainersRequest::default());
    let sandboxes = sandboxes.map(|list| list.items).unwrap_or_default();
    let containers = containers.map(|list| list.containers).unwrap_or_default();
    let sandboxes = sandboxes.into_iter().map(|item| format!("sandbox {}", item.id));
    sandboxes.chain(containers.into_iter().map(|item| format!("container {}", item.id))).collect()
}
