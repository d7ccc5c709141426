//! What a start makes of what the last daemon, a crash or a reboot left.

use std::time::{Duration, Instant};

use e2e::cri::*;
use e2e::image::catalogue::{BUSYBOX, LAYERS};
use e2e::node::ListOperationsRequest;
use e2e::pod::{Pod, container, namespaces, sandbox, shell};
use e2e::{Options, World, eventually};
use rustix::process::Signal;

use crate::planted::Planted;

/// A world whose network is one plugin, `script`, with all the time that it wants.
fn scripted(version: &str, script: &str) -> World {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let plugin = dir.path().join("scripted");
    std::fs::write(&plugin, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&plugin, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let config = format!("network.bin_dirs = [\"{}\"]\n", dir.path().display());
    let conflist = serde_json::json!({
        "cniVersion": version, "name": "shared", "plugins": [{"type": "scripted"}],
    });
    // It stays as long as the test's process: the world outlives this function.
    std::mem::forget(dir);
    World::start(Options { config, conflist: Some(conflist.to_string()), ..Default::default() })
}

/// What such a plugin answers to an ADD, of which it keeps nothing.
const ADDED: &str = r#"echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"'$CNI_NETNS'"}],"ips":[{"address":"10.1.2.3/24","interface":0}]}'"#;

const SLEEPS: [&str; 3] = ["/bin/sh", "-c", "exec sleep 1000"];

/// A pod as it is told apart from the world that it lives in.
struct Known {
    id: String,
    config: PodSandboxConfig,
    ip: String,
    running: String,
    created: String,
    exited: String,
}

impl Known {
    fn make(world: &World, name: &str) -> Self {
        let pod = world.pod(name);
        let running = pod.run(container("running", BUSYBOX, &SLEEPS));
        let created = pod.create(container("created", BUSYBOX, &SLEEPS));
        let exited = pod.run(container("exited", BUSYBOX, &shell("exit 7")));
        world.ended(&exited);
        let ip = pod.ip();
        let Pod { id, config, .. } = pod;
        Self { id, config, ip, running, created, exited }
    }

    fn pod<'w>(&self, world: &'w World) -> Pod<'w> {
        Pod { world, id: self.id.clone(), config: self.config.clone() }
    }

    /// Everything is as it was, and works.
    fn lives(&self, world: &World) {
        let pod = self.pod(world);
        let status = world.sandbox_status(&self.id).unwrap();
        assert_eq!(status.state(), PodSandboxState::SandboxReady);
        assert_eq!(pod.ip(), self.ip);
        let state = |id: &str| world.container_status(id).unwrap().state();
        assert_eq!(state(&self.running), ContainerState::ContainerRunning);
        assert_eq!(state(&self.created), ContainerState::ContainerCreated);
        assert_eq!(world.container_status(&self.exited).unwrap().exit_code, 7);
        assert_eq!(world.exec(&self.running, "echo here"), "here\n");
        world.start_container(&self.created).unwrap();
        assert_eq!(world.exec(&self.created, "echo here"), "here\n");
    }
}

/// The same pod under a daemon that finds its database in another condition.
fn after(lose: impl FnOnce(&World)) {
    let mut world = World::start(Options::default());
    world.pull(BUSYBOX);
    let known = Known::make(&world, "stays");
    world.end_daemon(Signal::KILL);
    lose(&world);
    world.start_daemon();
    known.lives(&world);
    let image = world.client.list_images(ListImagesRequest::default()).unwrap().images;
    assert_eq!(image.len(), 1);
    assert_eq!(image[0].repo_tags, [BUSYBOX], "images keep their names");
    known.pod(&world).end();
    world.finish();
}

#[test]
fn a_lost_database_kills_nothing() {
    after(|world| drop(world.sh(&format!("rm -r {}/*", world.path("root/db").display()))));
}

#[test]
fn images_come_back_without_any_record() {
    after(|world| {
        let root = world.path("root").display().to_string();
        world.sh(&format!("rm -r {root}/db/images {root}/images/records"));
    });
}

#[test]
fn an_image_whose_names_are_lost_too_comes_back_by_its_id() {
    let mut world = World::start(Options::default());
    let id = world.pull(LAYERS);
    let status = |world: &World| {
        let image = Some(ImageSpec { image: id.clone(), ..Default::default() });
        let request = ImageStatusRequest { image, verbose: false };
        world.client.image_status(request).unwrap().image.expect("the image")
    };
    let before = status(&world);
    world.end_daemon(Signal::KILL);
    let root = world.path("root").display().to_string();
    world.sh(&format!("rm -r {root}/db/images {root}/images/records {root}/images/labels"));
    world.start_daemon();
    let nameless = Image { repo_tags: vec![], repo_digests: vec![], ..before.clone() };
    assert_eq!(status(&world), nameless);
    let pod = world.pod("nameless");
    let container = pod.run(container("c", &id, &[]));
    assert_eq!(world.exec(&container, "cat /data/replaced"), "upper");
    assert_eq!(world.pull(LAYERS), id);
    assert_eq!(status(&world), before);
    pod.end();
    // What was removed stays so, whatever is lost.
    world.remove_image(&id);
    world.end_daemon(Signal::KILL);
    world.sh(&format!("rm -r {root}/db/images {root}/images/records"));
    world.start_daemon();
    assert!(world.client.list_images(ListImagesRequest::default()).unwrap().images.is_empty());
    world.finish();
}

#[test]
fn a_broken_database_kills_nothing() {
    after(|world| {
        let db = world.path("root/db");
        world.sh(&format!(
            "for f in {}/*; do dd if=/dev/urandom of=$f bs=4096 seek=1 count=20 conv=notrunc; done",
            db.display()
        ));
    });
}

#[test]
fn a_cut_database_kills_nothing() {
    after(|world| {
        drop(world.sh(&format!("truncate -s 5000 {}/*", world.path("root/db").display())));
    });
}

#[test]
fn a_garbled_record_kills_nothing() {
    after(|world| {
        let db = world.path("root/db/pods");
        let before = std::fs::read(world.seen(&db)).unwrap();
        world.sh(&format!("sed -i 's/\"shim_pid\"/\"shim-pid\"/g' {}", db.display()));
        assert_ne!(std::fs::read(world.seen(&db)).unwrap(), before, "a record was garbled");
    });
}

#[test]
fn leftovers_of_each_kind_are_swept_at_the_start() {
    let mut world = World::start(Options::default());
    world.pull(BUSYBOX);
    let known = Known::make(&world, "bystander");
    world.end_daemon(Signal::KILL);
    let planted = Planted::plant(&world);
    world.start_daemon();
    planted.goes(&world);
    known.lives(&world);
    known.pod(&world).end();
    world.finish();
}

/// Every process of the world's but its first, the registry and those of the test itself.
fn kill_all_pods(world: &World) {
    eventually("every process of a pod to end", || {
        let ps = world.sh("busybox ps -o pid,comm");
        let of_pods: Vec<&str> = ps
            .lines()
            .skip(1)
            .filter_map(|line| line.trim().split_once(' '))
            .filter(|(_, comm)| ["podwright-shim", "sleep"].contains(&comm.trim()))
            .map(|(pid, _)| pid)
            .collect();
        if of_pods.is_empty() {
            return Some(());
        }
        world.try_sh(&format!("kill -9 {}", of_pods.join(" ")));
        None
    });
}

#[test]
fn after_a_reboot_everything_is_dead_and_its_addresses_are_free() {
    let mut world = World::start(Options::default());
    world.pull(BUSYBOX);
    let known = Known::make(&world, "rebooted");
    let lease = world.path("cni/ipam/pods").join(&known.ip);
    assert!(world.seen(&lease).exists());
    world.end_daemon(Signal::KILL);
    kill_all_pods(&world);
    let state = world.path("state");
    // Mounts, namespaces and what lay in memory go with the boot; another one has another id.
    world.sh(&format!(
        "for m in $(busybox awk '$5 ~ \"^{state}/\" {{print $5}}' /proc/self/mountinfo | sort -r); do umount -l $m; done
        for n in /run/netns/*; do umount -l $n; rm $n; done
        rm -rf {state}/*
        iptables -w -t nat -F; iptables -w -t nat -X
        cat /proc/sys/kernel/random/uuid > {dir}/boot_id
        mount --bind {dir}/boot_id /proc/sys/kernel/random/boot_id",
        state = state.display(),
        dir = world.path("").display(),
    ));
    let start = Instant::now();
    world.start_daemon();
    println!("served {:?} after a reboot", start.elapsed());
    let status = world.sandbox_status(&known.id).unwrap();
    assert_eq!(status.state(), PodSandboxState::SandboxNotready);
    for (id, code, reason) in [(&known.running, 255, "Unknown"), (&known.exited, 7, "Error")] {
        let status = world.ended(id);
        assert_eq!((status.exit_code, status.reason.as_str()), (code, reason));
        assert!(status.finished_at > 0);
    }
    assert_eq!(world.ended(&known.created).reason, "Unknown");
    eventually("the address to be free", || (!world.seen(&lease).exists()).then_some(()));
    let log = world.read(world.path("daemon.log"));
    assert!(log.contains("the node was rebooted"), "nothing is dialled");
    world.sh("umount /proc/sys/kernel/random/boot_id");
    known.pod(&world).end();
    world.finish();
}

#[test]
fn exits_while_nobody_looked_keep_their_code_and_time() {
    let mut world = World::start(Options::default());
    world.pull(BUSYBOX);
    let pod = world.pod("unseen");
    let waits = "until [ -e /dev/shm/go ]; do sleep 0.05; done;";
    let ends: Vec<(String, i32)> = [("a", "exit 0", 0), ("b", "exit 3", 3), ("c", "exit 200", 200)]
        .map(|(name, end, code)| {
            (pod.run(container(name, BUSYBOX, &shell(&format!("{waits} {end}")))), code)
        })
        .into();
    let (id, config) = (pod.id.clone(), pod.config.clone());
    world.end_daemon(Signal::KILL);
    let nanoseconds = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        i64::try_from(since.as_nanos()).unwrap()
    };
    let before = nanoseconds();
    world.sh(&format!("touch {}", world.path(&format!("state/pods/{id}/shm/go")).display()));
    // A process is gone from `ps` before its parent, the shim, has been told.
    let state = world.path("state/pods").join(&id);
    eventually("the shim to have seen the ends", || {
        let records = world.sh(&format!("find {} -name exit.json", state.display()));
        (records.lines().count() == ends.len()).then_some(())
    });
    let ended = nanoseconds();
    world.start_daemon();
    for (container, code) in &ends {
        let status = world.container_status(container).unwrap();
        assert_eq!(status.state(), ContainerState::ContainerExited, "in the first answer");
        assert_eq!(status.exit_code, *code);
        assert!((before..=ended).contains(&status.finished_at), "{before} {status:?} {ended}");
    }
    Pod { world: &world, id, config }.end();
    world.finish();
}

/// A shim that does not answer delays nobody else, and its pod is not taken for dead.
#[test]
fn a_hung_shim_delays_only_itself() {
    let mut world = World::start(Options::default());
    world.pull(BUSYBOX);
    let (hung, fine) = (Known::make(&world, "hung"), Known::make(&world, "fine"));
    let pid = world.read(world.path(&format!("state/pods/{}/shim/shim.pid", hung.id)));
    let pid = pid.split(' ').next().unwrap().to_owned();
    world.end_daemon(Signal::KILL);
    world.sh(&format!("kill -STOP {pid}"));
    let start = Instant::now();
    world.start_daemon();
    let took = start.elapsed();
    println!("served {took:?} after a start with a hung shim");
    assert!(took < Duration::from_secs(9), "{took:?}");
    assert_eq!(world.exec(&fine.running, "echo here"), "here\n");
    assert_eq!(world.sandbox_status(&hung.id).unwrap().state(), PodSandboxState::SandboxReady);
    let status = world.container_status(&hung.running).unwrap();
    assert_eq!(status.state(), ContainerState::ContainerRunning);
    // In time: a shim that stays silent is ended.
    world.sh(&format!("kill -CONT {pid}"));
    fine.lives(&world);
    hung.lives(&world);
    hung.pod(&world).end();
    fine.pod(&world).end();
    world.finish();
}

/// A run that was cut off is undone behind the served calls, where everybody can see it.
#[test]
fn what_recovery_waits_for_is_listed() {
    let mut world = scripted(
        "1.0.0",
        "case $CNI_COMMAND in
        ADD) : > $CNI_NETNS.added; sleep 60;;
        DEL) sleep 8;;
        esac",
    );
    let config = sandbox(&world, "cut");
    let request = RunPodSandboxRequest { config: Some(config), ..Default::default() };
    std::thread::scope(|scope| {
        let client = &world.client;
        let run = scope.spawn(move || client.run_pod_sandbox(request));
        eventually("the plugin's ADD", || {
            (!world.sh("ls /run/netns/*.added 2>/dev/null; :").is_empty()).then_some(())
        });
        world.sh("kill -9 $(busybox pidof podwrightd)");
        run.join().unwrap().unwrap_err();
    });
    world.end_daemon(Signal::KILL);
    world.sh("rm /run/netns/*.added; kill -9 $(busybox pidof sleep scripted) 2>/dev/null; :");
    world.start_daemon();
    // Before it comes to the plugin it ends the shim.
    eventually("the undoing to wait for the plugin", || {
        let all = world.client.list_operations(ListOperationsRequest {}).unwrap();
        assert!(all.ready);
        let mut under_way = all.operations.iter();
        let undo = under_way.find(|one| one.what.starts_with("undo the run of sandbox"));
        let undo = undo.unwrap_or_else(|| panic!("{all:?}"));
        undo.waits_for.iter().any(|what| what.ends_with("/scripted")).then_some(())
    });
    eventually("the undoing to end", || {
        let all = world.client.list_operations(ListOperationsRequest {}).unwrap();
        all.operations.is_empty().then_some(())
    });
    world.finish();
}

#[test]
fn fifty_pods_are_found_again_at_once() {
    const PODS: usize = 50;
    let mut world = World::start(Options::default());
    world.pull(BUSYBOX);
    let make = |number: usize| {
        let mut config = sandbox(&world, &format!("many-{number}"));
        let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        context.namespace_options = Some(namespaces(NamespaceMode::Node, NamespaceMode::Container));
        let pod = world.pod_of(config);
        let mut config = container("c", BUSYBOX, &SLEEPS);
        let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        context.namespace_options = Some(namespaces(NamespaceMode::Node, NamespaceMode::Container));
        pod.run(config);
        pod.id
    };
    let ids: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..5)
            .map(|worker| {
                scope
                    .spawn(move || (0..PODS / 5).map(|n| make(worker * 10 + n)).collect::<Vec<_>>())
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    world.end_daemon(Signal::KILL);
    let start = Instant::now();
    world.start_daemon();
    let list = world.client.list_containers(ListContainersRequest::default()).unwrap();
    let took = start.elapsed();
    let running = |one: &&Container| one.state() == ContainerState::ContainerRunning;
    assert_eq!(list.containers.iter().filter(running).count(), PODS);
    let log = world.read(world.path("daemon.log"));
    let recovered = log.lines().rev().find(|line| line.contains("recovered")).unwrap_or_default();
    println!("{PODS} pods: listed {took:?} after the start of the daemon; {recovered}");
    for pod_sandbox_id in ids {
        world
            .client
            .stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() })
            .unwrap();
        world.client.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id }).unwrap();
    }
    world.finish();
}

/// Where the plugin keeps it.
fn told(world: &World) -> std::path::PathBuf {
    let config = world.read(world.path("conf.d/test.toml"));
    std::path::Path::new(config.split('"').nth(1).unwrap()).join("scripted.gc")
}

#[test]
fn plugins_collect_what_no_runtime_has() {
    let script = format!(
        "case $CNI_COMMAND in
        ADD) {ADDED};;
        GC) cat > \"$0.new\"; mv \"$0.new\" \"$0.gc\";;
        esac"
    );
    let mut world = scripted("1.1.0", &script);
    let pod = world.pod("kept");
    let (id, config) = (pod.id.clone(), pod.config.clone());
    let entry = serde_json::json!({
        "kind": "cniCacheV1", "containerId": "anothers", "config": "e30=", "ifName": "net1",
        "networkName": "shared", "netns": "/run/netns/cni-1", "result": {"cniVersion": "1.1.0"},
    });
    let cache = world.path("cni/cache/results");
    std::fs::write(world.seen(cache.join("shared-anothers-net1")), entry.to_string()).unwrap();
    let _ = std::fs::remove_file(told(&world));
    world.end_daemon(Signal::KILL);
    world.start_daemon();
    let text = eventually("the plugin to be told", || std::fs::read_to_string(told(&world)).ok());
    let text: serde_json::Value = serde_json::from_str(&text).unwrap();
    let valid = text["cni.dev/valid-attachments"].as_array().unwrap();
    for (id, ifname) in [(id.as_str(), "eth0"), ("anothers", "net1")] {
        let one = serde_json::json!({"containerID": id, "ifname": ifname});
        assert!(valid.contains(&one), "{valid:?}");
    }
    // With an entry that says nothing there may be an attachment that nobody knows of.
    std::fs::write(world.seen(cache.join("shared-anothers-net1")), "{").unwrap();
    std::fs::remove_file(told(&world)).unwrap();
    world.end_daemon(Signal::KILL);
    world.start_daemon();
    eventually("the collection to be given up", || {
        world.read(world.path("daemon.log")).contains("garbage is not collected").then_some(())
    });
    assert!(!told(&world).exists());
    std::fs::remove_file(world.seen(cache.join("shared-anothers-net1"))).unwrap();
    Pod { world: &world, id, config }.end();
    world.finish();
}
