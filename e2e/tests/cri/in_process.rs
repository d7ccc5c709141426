//! The in-process network and the plugins' executables, taken in turns under pods that live on.

use e2e::cri::*;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::{Pod, container, shell};
use e2e::{Options, World};
use rustix::process::Signal;

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
