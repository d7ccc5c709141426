//! systemd's cgroup driver, and systemd doing to the machine what it does on every node: reloading, executing itself
//! again, being without D-Bus.
//!
//! Only where the machine is the tests' own, `./dev vm-test`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use e2e::cri::*;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::{container, namespaces, shell};
use e2e::{Driver, Options, World, eventually};
use rustix::process::{Pid, Signal, kill_process};
use tonic::Code;

use crate::refused;
use crate::resources::update;

/// As `on_each_runtime`, on machines whose systemd is the tests'.
macro_rules! on_systemd {
    ($($(#[$attribute:meta])* fn $name:ident($world:ident) $body:block)+) => {
        $(
            $(#[$attribute])*
            mod $name {
                use super::*;

                fn on(runtime: &'static str) {
                    if Driver::of_tests() == Driver::Cgroupfs {
                        println!("skipped: asks systemd for cgroups: PODWRIGHT_CGROUP_DRIVER, in a machine");
                        return;
                    }
                    let world = World::start(Options { runtime, ..Default::default() });
                    body(&world);
                    world.finish();
                }

                fn body($world: &World) $body

                #[test]
                fn crun() {
                    on("crun");
                }

                #[test]
                fn runc() {
                    on("runc");
                }
            }
        )+
    };
}

pub(crate) fn systemctl(arguments: &[&str]) -> String {
    let ran = Command::new("systemctl").args(arguments).output().unwrap();
    let err = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "systemctl {arguments:?}: {err}");
    String::from_utf8(ran.stdout).unwrap()
}

/// D-Bus is away while this lives.
struct NoBus;

impl NoBus {
    fn begin() -> Self {
        systemctl(&["stop", "dbus.socket", "dbus.service"]);
        assert!(std::os::unix::net::UnixStream::connect("/run/dbus/system_bus_socket").is_err());
        Self
    }
}

impl Drop for NoBus {
    fn drop(&mut self) {
        systemctl(&["start", "dbus.socket"]);
    }
}

/// Every limit that the kernel has for a container.
pub(crate) fn limits(world: &World, id: &str) -> BTreeMap<String, String> {
    const SUFFIXES: [&str; 7] = [".max", ".weight", ".low", ".high", ".min", ".group", ".cpus"];
    let dir = world.cgroups_of(id).pop().expect("a cgroup");
    let names = std::fs::read_dir(&dir).unwrap().flatten().map(|entry| entry.file_name());
    let names = names.filter_map(|name| name.into_string().ok());
    let limits = names.filter(|name| SUFFIXES.iter().any(|suffix| name.ends_with(suffix)));
    limits.map(|name| (name.clone(), std::fs::read_to_string(dir.join(name)).unwrap())).collect()
}

/// A container with limits of each kind, and one device beside those that all have. It sees the whole host, as an
/// exporter of the node's metrics does.
pub(crate) fn limited(name: &str) -> ContainerConfig {
    let mut config = container(name, BUSYBOX, &shell("mknod /tmp/kmsg c 1 11; exec sleep 1000"));
    let some = ["/dev/fuse", "/dev/hwrng"].into_iter().find(|path| Path::new(path).exists());
    config.devices.push(Device {
        host_path: some.expect("a device").into(),
        container_path: "/dev/only-read".into(),
        permissions: "r".into(),
    });
    config.mounts.push(Mount {
        host_path: "/".into(),
        container_path: "/host".into(),
        readonly: true,
        ..Default::default()
    });
    let resources = config.linux.as_mut().unwrap().resources.as_mut().unwrap();
    *resources = LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        memory_limit_in_bytes: 64 << 20,
        unified: [("pids.max", "77"), ("memory.high", "62914560"), ("memory.oom.group", "1")]
            .map(|(file, value)| (file.into(), value.into()))
            .into(),
        ..Default::default()
    };
    config
}

/// Its rules: one device to be read and not written, none other.
#[track_caller]
pub(crate) fn devices_are_ruled(world: &World, id: &str) {
    let line = "(: </dev/only-read) && echo read; (: >>/dev/only-read) 2>&1; (: >/tmp/kmsg) 2>&1; : >/dev/null";
    let told = world.exec(id, line);
    assert!(told.starts_with("read\n"), "{told}");
    assert_eq!(told.matches("Operation not permitted").count(), 2, "{told}");
}

on_systemd! {
    fn a_container_is_one_delegated_scope_in_its_pods_slice(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("scope");
        let id = pod.run(container("c", BUSYBOX, &[]));
        let unit = format!("podwright-{id}.scope");
        let slice = pod.config.linux.as_ref().unwrap().cgroup_parent.clone();
        let asked = ["show", &unit, "--property=Slice,Delegate,ActiveState,CollectMode", "--value"];
        let mut told: Vec<String> = systemctl(&asked).lines().map(str::to_owned).collect();
        told.retain(|line| !line.is_empty());
        told.sort();
        let mut expected = vec!["active", "inactive-or-failed", "yes", slice.as_str()];
        expected.sort_unstable();
        assert_eq!(told, expected);
        let dir = world.cgroups_of(&id).pop().unwrap();
        assert!(dir.ends_with(Path::new(&slice).join(unit)), "{}", dir.display());
        let inside = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap();
        assert_eq!(inside.lines().count(), 1, "not in a cgroup below it: {inside}");
        pod.end();
    }

    /// Nobody asks systemd for the cgroup of a process that only reaps.
    fn the_init_of_shared_processes_is_in_the_pods_slice(world) {
        world.pull(BUSYBOX);
        let mut config = e2e::pod::sandbox(world, "shared");
        let linux = config.linux.as_mut().unwrap();
        let slice = linux.cgroup_parent.clone();
        linux.security_context.as_mut().unwrap().namespace_options =
            Some(namespaces(NamespaceMode::Pod, NamespaceMode::Pod));
        let pod = world.pod_of(config);
        let dir = world.cgroups_of(&pod.id).pop().expect("the init's cgroup");
        assert!(dir.parent().unwrap().ends_with(&slice), "{}", dir.display());
        let inside = || std::fs::read_to_string(dir.join("cgroup.procs")).unwrap();
        let before = inside();
        assert_eq!(before.lines().count(), 1, "{before}");
        let mut config = container("c", BUSYBOX, &[]);
        crate::security(&mut config).namespace_options =
            Some(namespaces(NamespaceMode::Pod, NamespaceMode::Pod));
        let id = pod.run(config);
        systemctl(&["daemon-reload"]);
        world.stop_container(&id, 0).unwrap();
        assert_eq!(inside(), before);
        pod.end();
    }

    fn limits_and_device_rules_outlive_a_reload_and_an_exec_of_systemd(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("reload");
        let id = pod.run(limited("c"));
        let before = limits(world, &id);
        for (file, value) in [("memory.max", "67108864\n"), ("cpu.max", "50000 100000\n"), ("pids.max", "77\n")] {
            assert_eq!(before[file], value, "{file}");
        }
        eventually("the node", || world.try_exec(&id, &["test", "-c", "/tmp/kmsg"], 5).ok().filter(|ran| ran.exit_code == 0));
        devices_are_ruled(world, &id);
        let change = LinuxContainerResources {
            memory_limit_in_bytes: 96 << 20,
            cpu_quota: 70_000,
            ..Default::default()
        };
        for round in 0..2 {
            let before = limits(world, &id);
            for verb in ["daemon-reload", "daemon-reexec", "daemon-reload"] {
                systemctl(&[verb]);
                assert_eq!(limits(world, &id), before, "{verb}");
                devices_are_ruled(world, &id);
            }
            // What starts beside it makes systemd look at the slice again.
            let beside = pod.run(container(&format!("beside-{round}"), BUSYBOX, &[]));
            world.stop_container(&beside, 0).unwrap();
            assert_eq!(limits(world, &id), before, "beside another");
            update(world, &id, change.clone()).unwrap();
            devices_are_ruled(world, &id);
            let now = limits(world, &id);
            assert_eq!((now["memory.max"].as_str(), now["cpu.max"].as_str()), ("100663296\n", "70000 100000\n"));
        }
        pod.end();
    }

    /// systemd has properties of its own, which it writes again when something else of the scope changes.
    fn a_resize_that_was_refused_does_not_come_back(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("refused");
        let id = pod.run(container("c", BUSYBOX, &[]));
        let before = limits(world, &id);
        let half = LinuxContainerResources {
            cpu_quota: 90_000,
            cpu_period: 100_000,
            memory_limit_in_bytes: 128 << 20,
            cpuset_cpus: "4000".into(),
            ..Default::default()
        };
        update(world, &id, half).unwrap_err();
        assert_eq!(limits(world, &id), before);
        systemctl(&["daemon-reload"]);
        systemctl(&["set-property", "--runtime", &format!("podwright-{id}.scope"), "CPUWeight=50", "MemoryLow=1M"]);
        let mut after = limits(world, &id);
        // None, or as good as none.
        let quota: String = after["cpu.max"].split(' ').next().unwrap().to_owned();
        let processors = quota.parse::<u64>().map_or(u64::MAX, |quota| quota / 100_000);
        assert!(processors > 1000, "{after:?}");
        for changed in ["cpu.max", "cpu.weight", "memory.low"] {
            after.insert(changed.into(), before[changed].clone());
        }
        assert_eq!(after, before);
        pod.end();
    }

    fn what_is_not_limited_is_not_limited_by_systemd(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("unlimited");
        let id = pod.run(container("c", BUSYBOX, &[]));
        let now = limits(world, &id);
        for file in ["memory.max", "memory.swap.max", "pids.max"] {
            assert_eq!(now[file], "max\n", "{file}");
        }
        let limit = |cpu_quota: i64| {
            let change = LinuxContainerResources { cpu_quota, cpu_period: 100_000, ..Default::default() };
            update(world, &id, change).unwrap();
        };
        limit(20_000);
        assert_eq!(limits(world, &id)["cpu.max"], "20000 100000\n");
        limit(-1);
        systemctl(&["daemon-reload"]);
        systemctl(&["set-property", "--runtime", &format!("podwright-{id}.scope"), "CPUWeight=50"]);
        assert_ne!(limits(world, &id)["cpu.max"], "20000 100000\n");
        pod.end();
    }

    fn without_dbus_pods_go_on_and_new_ones_come_or_say_why_not(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("no-bus");
        let stays = pod.run(limited("stays"));
        let goes = pod.run(limited("goes"));
        let before = limits(world, &stays);
        let bus = NoBus::begin();
        assert_eq!(world.exec(&stays, "echo here"), "here\n");
        let stats = world.client.container_stats(ContainerStatsRequest { container_id: stays.clone() });
        assert!(stats.unwrap().stats.unwrap().memory.is_some());
        let more = LinuxContainerResources { memory_limit_in_bytes: 80 << 20, ..Default::default() };
        match update(world, &stays, more.clone()) {
            Ok(()) => assert_eq!(limits(world, &stays)["memory.max"], "83886080\n"),
            Err(status) => {
                assert!(status.message().contains("bus"), "{status}");
                assert_eq!(limits(world, &stays), before, "all or nothing");
            }
        }
        world.stop_container(&goes, 0).unwrap();
        world.remove_container(&goes).unwrap();
        assert_eq!(world.cgroups_of(&goes), Vec::<std::path::PathBuf>::new());
        let refused_or_runs = |config: ContainerConfig| {
            let made = pod.try_create(config).and_then(|id| world.start_container(&id).map(|()| id));
            match made {
                Ok(id) => assert_eq!(limits(world, &id)["memory.max"], "67108864\n"),
                Err(status) => assert!(status.message().contains("bus"), "{status}"),
            }
        };
        refused_or_runs(limited("new"));
        // What is left of one that did not start goes without it, too.
        let other = world.pod("whole");
        match other.try_create(limited("c")).and_then(|id| world.start_container(&id)) {
            Ok(()) => {}
            Err(status) => assert!(status.message().contains("bus"), "{status}"),
        }
        other.end();
        drop(bus);
        update(world, &stays, more).unwrap();
        assert_eq!(limits(world, &stays)["memory.max"], "83886080\n");
        let after = pod.run(limited("after"));
        devices_are_ruled(world, &stays);
        assert_eq!(limits(world, &after)["pids.max"], "77\n");
        pod.end();
    }

    /// A shim that is late finds the scope gone, and the counter of its kills with it.
    fn that_memory_ran_out_is_known_once_the_scope_is_gone(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("late");
        let line = "until [ -e /tmp/go ]; do sleep 0.1; done; exec dd if=/dev/zero of=/dev/null bs=64M";
        let mut config = container("hog", BUSYBOX, &shell(line));
        let resources = config.linux.as_mut().unwrap().resources.as_mut().unwrap();
        resources.memory_limit_in_bytes = 16 << 20;
        resources.memory_swap_limit_in_bytes = 16 << 20;
        let id = pod.run(config);
        let request = ContainerStatusRequest { container_id: id.clone(), verbose: true };
        let info = world.client.container_status(request).unwrap().info;
        let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
        let comm =
            |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let shim = world.pids().into_iter().find(|pid| comm(pid) == "podwright-shim\n").unwrap();
        let shim = Pid::from_raw(shim.try_into().unwrap()).unwrap();
        kill_process(shim, Signal::STOP).unwrap();
        std::fs::write(format!("/proc/{}/root/tmp/go", info["pid"]), "").unwrap();
        eventually("systemd to remove the scope", || {
            world.cgroups_of(&id).is_empty().then_some(())
        });
        kill_process(shim, Signal::CONT).unwrap();
        let ended = world.ended(&id);
        assert_eq!((ended.exit_code, ended.reason.as_str()), (137, "OOMKilled"));
        pod.end();
    }

    fn a_parent_that_is_no_slice_is_refused_with_what_to_set(world) {
        let mut config = e2e::pod::sandbox(world, "mismatch");
        config.linux.as_mut().unwrap().cgroup_parent = "/kubepods/burstable/pod1".into();
        let made = world.try_pod(config).map(|pod| pod.id);
        refused(&made, Code::InvalidArgument, "set cgroupDriver to systemd in the kubelet's");
    }
}

#[test]
fn a_slice_is_refused_on_cgroupfs_with_what_to_set() {
    let world = World::start(Options { driver: Driver::Cgroupfs, ..Default::default() });
    let mut config = e2e::pod::sandbox(&world, "mismatch");
    config.linux.as_mut().unwrap().cgroup_parent = "kubepods-burstable-pod1.slice".into();
    let made = world.try_pod(config).map(|pod| pod.id);
    refused(&made, Code::InvalidArgument, "set cgroup.driver to \"systemd\" in podwrightd's");
    world.finish();
}
