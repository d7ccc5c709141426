//! Full disks: in each directory that the daemon, its shims and its plugins write to. What cannot be done is told,
//! what runs goes on, what is removed makes room, and with room again all is as before, without a restart.

use std::time::Duration;

use e2e::cri::*;
use e2e::image::catalogue::{BUSYBOX, LAYERS};
use e2e::pod::{Pod, container, shell};
use e2e::{Options, World, eventually, within};
use tonic::Status;

/// A directory of a world on a small disk of its own.
struct Disk<'w> {
    world: &'w World,
    dir: String,
}

impl Disk<'_> {
    /// Takes all the room there is.
    fn fill(&self) {
        let fill = format!("{}/.fill", self.dir);
        self.world.sh(&format!(
            "head -c 1000000000 /dev/zero >{fill} 2>/dev/null; \
             while echo more >>{fill}; do :; done 2>/dev/null; true"
        ));
    }

    fn free(&self) {
        self.world.sh(&format!("rm {}/.fill", self.dir));
    }
}

fn world_with_disk(below: &str, kilobytes: u32) -> World {
    let mut world = World::without_daemon(Options::default());
    let dir = world.path(below);
    world.sh(&format!(
        "mkdir -p {0}; mount -t tmpfs -o size={kilobytes}k podwright-e2e {0}",
        dir.display()
    ));
    world.begin();
    world
}

/// A refusal names what is full.
fn told(what: &str, refused: &Status) {
    let message = refused.message();
    println!("{what}: {message}");
    assert!(message.to_lowercase().contains("no space left") || message.contains('/'), "{message}");
}

/// Whatever the disk refuses comes undone; the caller is told.
fn try_everything(world: &World) {
    match world.try_pod(e2e::pod::sandbox(world, "on-full")) {
        Err(refused) => told("RunPodSandbox", &refused),
        Ok(pod) => {
            match pod.try_create(container("c", BUSYBOX, &[])) {
                Err(refused) => told("CreateContainer", &refused),
                Ok(id) => {
                    if let Err(refused) = world.start_container(&id) {
                        told("StartContainer", &refused);
                    }
                }
            }
            // Ending works on a full disk too; if a record cannot be kept, the next try may.
            pod.stop().unwrap_or_else(|status| panic!("StopPodSandbox: {status}"));
            if let Err(refused) = pod.remove() {
                told("RemovePodSandbox", &refused);
            }
        }
    }
    if let Err(refused) = world.try_pull(LAYERS) {
        told("PullImage", &refused);
    }
}

fn finish_failed(world: &World) {
    let list = world.client.list_pod_sandbox(ListPodSandboxRequest::default()).unwrap();
    for item in list.items {
        if item.state() == PodSandboxState::SandboxNotready {
            let pod = Pod { world, id: item.id, config: Default::default() };
            pod.end();
        }
    }
}

fn full(below: &str, kilobytes: u32) {
    let world = world_with_disk(below, kilobytes);
    let disk = Disk { world: &world, dir: world.path(below).display().to_string() };
    world.pull(BUSYBOX);
    let (stays, goes) = (world.pod("stays"), world.pod("goes"));
    let lines =
        "n=0; while :; do n=$((n+1)); echo $n; [ ! -e /tmp/end ] || exit 9; sleep 0.1; done";
    let stayed = stays.run(container("c", BUSYBOX, &shell(lines)));
    goes.run(container("c", BUSYBOX, &[]));
    disk.fill();
    try_everything(&world);
    let list = world.client.list_containers(ListContainersRequest::default()).unwrap();
    assert!(list.containers.iter().any(|one| one.id == stayed));
    let status = world.container_status(&stayed).unwrap();
    assert_eq!(status.state(), ContainerState::ContainerRunning);
    goes.stop().unwrap();
    if let Err(refused) = goes.remove() {
        told("RemovePodSandbox", &refused);
    }
    disk.free();
    finish_failed(&world);
    assert_eq!(world.exec(&stayed, "echo on"), "on\n");
    world.pull(LAYERS);
    let again = world.pod("again");
    let id = again.run(container("c", BUSYBOX, &shell("exit 4")));
    assert_eq!(world.ended(&id).exit_code, 4);
    again.end();
    assert_eq!(world.exec(&stayed, "echo still"), "still\n");
    // The container ends at this, and may take the command with it.
    world.try_exec(&stayed, &shell("touch /tmp/end"), 30).ok();
    assert_eq!(world.ended(&stayed).exit_code, 9);
    let pod = stays.id;
    restarts_whole(world, pod, &stayed);
}

/// Nothing that was said while the disk was full is different after a restart.
fn restarts_whole(mut world: World, pod: String, stayed: &str) {
    world.end_daemon(rustix::process::Signal::KILL);
    world.start_daemon();
    let status = world.container_status(stayed).unwrap();
    assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, 9));
    let list = world.client.list_pod_sandbox(ListPodSandboxRequest::default()).unwrap();
    assert_eq!(list.items.len(), 1, "{:?}", list.items);
    Pod { world: &world, id: pod, config: Default::default() }.end();
    world.finish();
}

#[test]
fn of_the_database() {
    full("root/db", 6_000);
}

#[test]
fn of_the_snapshots() {
    full("root/snapshots", 24_000);
}

#[test]
fn of_the_images() {
    full("root/images", 2_000);
}

#[test]
fn of_the_whole_root() {
    full("root", 32_000);
}

#[test]
fn of_the_state() {
    full("state", 4_000);
}

#[test]
fn of_the_network_s_cache() {
    full("cni/cache", 100);
}

#[test]
fn of_the_network_s_addresses() {
    full("cni/ipam", 100);
}

/// A container that prints goes on; what is lost is counted, and told where it is missing.
#[test]
fn of_the_logs() {
    let world = world_with_disk("logs", 400);
    let disk = Disk { world: &world, dir: world.path("logs").display().to_string() };
    world.pull(BUSYBOX);
    let config = e2e::pod::sandbox(&world, "logs");
    world.sh(&format!("mkdir -p {}", config.log_directory));
    let log = format!("{}/c.log", config.log_directory);
    let pod = world.pod_of(config);
    let lines = "n=0; while :; do n=$((n+1)); echo line $n; echo $n >/tmp/n; sleep 0.01; done";
    let id = pod.run(container("c", BUSYBOX, &shell(lines)));
    eventually("the first lines", || world.read(&log).contains("line 5\n").then_some(()));
    disk.fill();
    let count = || world.exec(&id, "cat /tmp/n").trim().parse::<u64>().unwrap_or(0);
    let at = count();
    within(Duration::from_secs(60), "it to print on", || (count() > at + 300).then_some(()));
    let refused = pod.try_create({
        let mut other = container("other", BUSYBOX, &[]);
        other.log_path = "deep/er/other.log".into();
        other
    });
    println!("a new container: {refused:?}");
    disk.free();
    eventually("the log to go on", || {
        let log = world.read(&log);
        let marker = log.find("[podwright: ")?;
        assert!(log[marker..].contains("lost: No space left"), "{log}");
        log[marker..].contains("line ").then_some(())
    });
    for line in world.read(&log).lines() {
        assert!(line.contains(" stdout F "), "a torn line: {line}");
    }
    world.stop_container(&id, 0).unwrap();
    pod.end();
    world.finish();
}
