//! A node of the test's own: a network namespace that plays the host, directories, scripted plugins.

#![allow(dead_code, reason = "each test file uses its part of this")]

pub(crate) mod case;
pub(crate) mod look;
pub(crate) mod tables;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cni::{Attachment, Deadline, Network, Runtime, netns};
use serde_json::{Value, json};

/// More than anything here needs on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Debian's plugins: those that `./dev` unpacked, else the installed ones.
pub(crate) fn plugins() -> PathBuf {
    let unpacked = std::env::var_os("PODWRIGHT_TOOLS").map(|tools| Path::new(&tools).join("cni"));
    unpacked.filter(|dir| dir.is_dir()).unwrap_or_else(|| "/usr/lib/cni".into())
}

/// Everything below one temporary directory; [`Drop`] checks that nothing is left.
pub(crate) struct Node {
    dir: tempfile::TempDir,
    pub(crate) runtime: Runtime,
}

impl Node {
    pub(crate) fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests need root");
        let dir = tempfile::tempdir().unwrap();
        let runtime = Runtime {
            bin_dirs: vec![dir.path().join("bin"), plugins()],
            cache_dir: dir.path().join("cache"),
            native: false,
            ..Runtime::default()
        };
        fs::create_dir(dir.path().join("bin")).unwrap();
        let node = Self { dir, runtime };
        netns::create(&node.netns("host")).unwrap();
        node
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn netns(&self, name: &str) -> PathBuf {
        self.dir.path().join("netns").join(name)
    }

    /// Runs on the node's network; plugins executed in there find it as theirs.
    pub(crate) fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        netns::run_in(&self.netns("host"), f).unwrap()
    }

    /// One whose runtime does what it can by itself.
    pub(crate) fn in_process() -> Self {
        let mut node = Self::new();
        node.runtime.native = true;
        node
    }

    /// An attachment in a new namespace.
    pub(crate) fn pod(&self, id: &str) -> Attachment {
        let path = self.netns(id);
        netns::create(&path).unwrap();
        Attachment { netns: Some(path), ..Attachment::for_pod(id, "default", id, "uid-1") }
    }

    /// What makes interfaces does not wait to find out whether addresses are anybody else's.
    pub(crate) fn wait_for_no_duplicates(&self, pod: &Attachment) {
        let set = || fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap();
        self.run(set);
        netns::run_in(pod.netns.as_ref().unwrap(), set).unwrap();
    }

    pub(crate) fn remove_netns(&self, id: &str) {
        netns::remove(&self.netns(id)).unwrap();
    }

    /// An executable plugin that appends its verb to `log`, keeps what it got, and then does as `body` says.
    pub(crate) fn script(&self, name: &str, body: &str) {
        let dir = self.dir.path().display();
        let text = format!(
            "#!/bin/sh\necho {name} $CNI_COMMAND >>{dir}/log\nenv | grep ^CNI_ | sort >{dir}/{name}.env\n\
             cat >{dir}/{name}.$CNI_COMMAND\n{body}\n"
        );
        let path = self.path("bin").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// What the plugin read on its last call of that verb.
    pub(crate) fn read(&self, plugin: &str, verb: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(&format!("{plugin}.{verb}"))).unwrap()).unwrap()
    }

    pub(crate) fn env(&self, plugin: &str) -> String {
        fs::read_to_string(self.path(&format!("{plugin}.env"))).unwrap()
    }

    /// The calls so far, in order, and forgets them.
    pub(crate) fn calls(&self) -> Vec<String> {
        let path = self.path("log");
        let log = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(path);
        log.lines().map(str::to_owned).collect()
    }

    /// The chain that most nodes have.
    pub(crate) fn bridge(&self) -> Network {
        let bridge = json!({
            "type": "bridge", "bridge": "br0", "isDefaultGateway": true, "ipMasq": true,
            "ipam": { "type": "host-local", "dataDir": self.path("leases"),
                      "ranges": [[{ "subnet": "10.77.0.0/24" }]] },
        });
        let portmap =
            json!({ "type": "portmap", "snat": true, "capabilities": { "portMappings": true } });
        network("1.0.0", &[bridge, portmap])
    }

    /// The same without rules.
    pub(crate) fn plain_bridge(&self) -> Network {
        let ipam =
            json!({"type": "host-local", "dataDir": self.path("leases"), "subnet": "10.77.0.0/24"});
        network(
            "1.0.0",
            &[json!({"type": "bridge", "bridge": "br0", "isGateway": true, "ipam": ipam})],
        )
    }

    /// The addresses that host-local has given away.
    pub(crate) fn leases(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("leases").join("net")).into_iter().flatten().flatten();
        let names = entries.map(|e| e.file_name().into_string().unwrap());
        names.filter(|name| name.parse::<std::net::IpAddr>().is_ok()).collect()
    }

    /// The interfaces of the node besides its loopback and bridge.
    pub(crate) fn veths(&self) -> Vec<String> {
        let dev = self.run(|| fs::read_to_string("/proc/thread-self/net/dev").unwrap());
        let names = dev.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim()));
        names.filter(|name| name.starts_with("veth")).map(str::to_owned).collect()
    }

    pub(crate) fn nat_rules(&self) -> String {
        let save = || Command::new("iptables-save").args(["-t", "nat"]).output().unwrap();
        String::from_utf8(self.run(save).stdout).unwrap()
    }

    pub(crate) fn cached(&self) -> usize {
        self.runtime.cached().unwrap().len()
    }

    /// What every test ends with.
    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.leases(), Vec::<String>::new(), "leases");
        // The kernel takes a namespace's interfaces down in its own time.
        let start = Instant::now();
        while !self.veths().is_empty() && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(self.veths(), Vec::<String>::new(), "interfaces");
        let results = fs::read_dir(self.path("cache/results")).into_iter().flatten();
        assert_eq!(results.count(), 0, "cache files");
        let rules = self.nat_rules();
        assert!(
            !rules.contains("-j DNAT") && !rules.contains("CNI-DN-") && !rules.contains("10.77.0."),
            "{rules}"
        );
        let pods = fs::read_dir(self.path("netns")).unwrap().flatten();
        let pods: Vec<_> = pods.map(|e| e.file_name()).filter(|name| name != "host").collect();
        assert!(pods.is_empty(), "namespaces {pods:?}");
        let marker = self.dir.path().to_str().unwrap().to_owned();
        let processes = processes_with(&marker);
        assert!(processes.is_empty(), "processes {processes:?}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let entries = fs::read_dir(self.path("netns")).into_iter().flatten().flatten();
        for entry in entries {
            let _ = netns::remove(&entry.path());
        }
        // The directory was mounted over itself, to be shared.
        let _ = rustix::mount::unmount(self.path("netns"), rustix::mount::UnmountFlags::DETACH);
    }
}

pub(crate) fn network(version: &str, plugins: &[Value]) -> Network {
    let list = json!({ "cniVersion": version, "name": "net", "plugins": plugins });
    Network::parse(list.to_string().as_bytes()).unwrap()
}

pub(crate) fn soon() -> Deadline {
    Deadline::after(PATIENCE)
}

/// A result without interfaces, printed by a scripted plugin.
pub(crate) fn prints_result(address: &str) -> String {
    format!("[ $CNI_COMMAND = ADD ] && echo '{{\"ips\":[{{\"address\":\"{address}\"}}]}}'; exit 0")
}

/// Processes whose command line says `marker`.
pub(crate) fn processes_with(marker: &str) -> Vec<String> {
    let pids = fs::read_dir("/proc").unwrap().flatten().map(|e| e.path().join("cmdline"));
    let lines = pids.filter_map(|path| fs::read_to_string(path).ok());
    lines.filter(|line| line.contains(marker)).collect()
}

pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < limit, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
