//! The in-process network and the plugins' executables, taken in turns under pods that live on.

use e2e::cri::*;
use e2e::failpoint::{Action, Armed};
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::{Pod, container, sandbox, shell};
use e2e::{Options, World, eventually};
use rustix::process::Signal;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// The daemon again, with the network done by one or the other.
fn switch(world: &mut World, native: bool) {
    world.end_daemon(Signal::TERM);
    let setting = format!("network.native = {native}\n");
    std::fs::write(world.path("conf.d/test.toml"), setting).unwrap();
    world.start_daemon();
    let info = world.client.status(StatusRequest { verbose: true }).unwrap().info;
    let config: serde_json::Value = serde_json::from_str(&info["config"]).unwrap();
    let done = config["cni"]["inProcess"].as_array().unwrap().iter().any(|name| name == "bridge");
    assert_eq!(done, native, "{config}");
}

struct Known {
    id: String,
    config: PodSandboxConfig,
    ip: String,
    container: String,
}

impl Known {
    fn make(world: &World, name: &str) -> Self {
        let pod = world.pod(name);
        let container = pod.run(container("one", BUSYBOX, &shell("exec sleep 1000")));
        let ip = pod.ip();
        let Pod { id, config, .. } = pod;
        Self { id, config, ip, container }
    }

    fn reaches(&self, world: &World, other: &Self) {
        let told = world.exec(&self.container, &format!("ping -c 1 -W 20 {}", other.ip));
        assert!(told.contains("1 packets received"), "{told}");
        assert_eq!(world.sandbox_status(&self.id).unwrap().network.unwrap().ip, self.ip);
    }

    fn end(self, world: &World) {
        let Self { id, config, .. } = self;
        Pod { world, id, config }.end();
    }
}

#[test]
fn pods_keep_their_network_when_it_is_switched() {
    let mut world = World::start(Options::default());
    let path = world.path("cni/conf/10-pods.conflist");
    // What writes rules may be left to executables, the bridge is not.
    let mut list: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    list["plugins"][0]["ipMasq"] = false.into();
    std::fs::write(&path, list.to_string()).unwrap();
    switch(&mut world, false);
    world.pull(BUSYBOX);
    let by_executables = Known::make(&world, "by-executables");
    switch(&mut world, true);
    let in_process = Known::make(&world, "in-process");
    for native in [true, false] {
        switch(&mut world, native);
        by_executables.reaches(&world, &in_process);
        in_process.reaches(&world, &by_executables);
    }
    in_process.end(&world);
    switch(&mut world, true);
    by_executables.end(&world);
    world.finish();
}

/// The programs in `dir`, which is searched before the node's, are those of the engine.
fn become_those_of(dir: &Path, engine: &str) {
    let path = std::env::var_os("PATH").unwrap();
    let located = |name: &str| {
        std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.exists()).unwrap()
    };
    for (name, kind) in ["iptables", "ip6tables"]
        .into_iter()
        .flat_map(|n| ["", "-save", "-restore"].map(|k| (n, k)))
    {
        let own = dir.join(format!("{name}{kind}"));
        let _ = std::fs::remove_file(&own);
        let target = located(&format!("{name}-{engine}{kind}"));
        std::os::unix::fs::symlink(target, own).unwrap();
    }
}

fn rules(world: &World, engine: &str) -> usize {
    let of_pods =
        |line: &&str| line.contains("CNI-DN-") || line.contains("id: ") || line.contains("10.88.");
    world.sh(&format!("iptables-{engine}-save 2>/dev/null")).lines().filter(of_pods).count()
}

/// A world whose `iptables` is the older one, and the directory of it; none where there are not both.
fn changeable(failpoints: bool) -> Option<(World, TempDir)> {
    let both = "iptables-legacy -t nat -S && iptables-nft -t nat -S";
    if !Command::new("unshare").args(["-n", "sh", "-c", both]).output().unwrap().status.success() {
        eprintln!("not tried: this machine has not both kinds of tables");
        return None;
    }
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    become_those_of(dir.path(), "legacy");
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let environment = vec![("PATH".to_owned(), path)];
    Some((World::start(Options { environment, failpoints, ..Options::default() }), dir))
}

fn with_port(world: &World, port: i32) -> PodSandboxConfig {
    let mut config = sandbox(world, &format!("pod-{port}"));
    config.port_mappings =
        vec![PortMapping { container_port: 80, host_port: port, ..PortMapping::default() }];
    config
}

/// The record is older than the rules.
#[test]
fn rules_of_a_pod_that_never_came_up_go_too() {
    let Some((mut world, dir)) = changeable(true) else { return };
    let point = "run/cni-add/after".to_owned();
    world.failpoints().arm(&[Armed { point, n: 1, action: Action::Kill }]);
    assert!(world.try_pod(with_port(&world, 12000)).is_err());
    world.end_daemon(Signal::KILL);
    assert!(rules(&world, "legacy") > 0);
    become_those_of(dir.path(), "nft");
    world.start_daemon();
    eventually("the rules to go", || (rules(&world, "legacy") == 0).then_some(()));
    assert_eq!(rules(&world, "nft"), 0);
    world.finish();
}

/// The node's `iptables` becomes another while pods live and the daemon is away.
#[test]
fn rules_go_by_the_engine_that_wrote_them() {
    let Some((mut world, dir)) = changeable(false) else { return };
    for (port, native) in [(12000, true), (12001, false)] {
        become_those_of(dir.path(), "legacy");
        switch(&mut world, true);
        let Pod { id, config, .. } = world.pod_of(with_port(&world, port));
        assert!(rules(&world, "legacy") > 0 && rules(&world, "nft") == 0);
        become_those_of(dir.path(), "nft");
        switch(&mut world, native);
        Pod { world: &world, id, config }.end();
        assert_eq!((rules(&world, "legacy"), rules(&world, "nft")), (0, 0), "by {native}");
    }
    world.finish();
}
