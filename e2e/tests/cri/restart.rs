//! The daemon ends and comes back; pods do not notice.

use e2e::cri::*;
use e2e::image::catalogue::{BUSYBOX, WEB};
use e2e::pod::{container, shell};
use e2e::{Options, World, eventually};
use rustix::process::Signal;

fn restarted(signal: Signal) {
    let mut world = World::start(Options::default());
    world.pull(BUSYBOX);
    world.pull(WEB);
    let pod = world.pod("stays");
    let (id, config) = (pod.id.clone(), pod.config.clone());
    let running = pod.run(container(
        "running",
        BUSYBOX,
        &shell("n=0; while :; do echo $n; n=$((n+1)); sleep 0.01; done"),
    ));
    let ends = pod.run(container(
        "ends",
        BUSYBOX,
        &shell("while ! [ -e /dev/shm/go ]; do sleep 0.05; done; exit 42"),
    ));
    let created = pod.create(container("created", BUSYBOX, &[]));
    let ip = pod.ip();
    world.end_daemon(signal);
    let pid = world.sh("busybox pidof sh | wc -w");
    assert_ne!(pid.trim(), "0", "containers run on");
    // It ends while nobody looks.
    world.sh(&format!("touch {}", world.path(&format!("state/pods/{id}/shm/go")).display()));
    eventually("the container to end unseen", || {
        (!world.sh("busybox ps").contains("/dev/shm/go")).then_some(())
    });
    world.start_daemon();
    let pod = e2e::pod::Pod { world: &world, id, config };
    let status = world.sandbox_status(&pod.id).unwrap();
    assert_eq!(status.state(), PodSandboxState::SandboxReady);
    assert_eq!(pod.ip(), ip);
    // A process is gone from `ps` before its parent, the shim, has been told.
    let status = world.ended(&ends);
    assert_eq!((status.exit_code, status.reason.as_str()), (42, "Error"));
    let status = world.container_status(&running).unwrap();
    assert_eq!(status.state(), ContainerState::ContainerRunning);
    assert_eq!(world.exec(&running, "echo back"), "back\n");
    world.start_container(&created).unwrap();
    world.exec(&created, "true");
    world.stop_container(&running, 0).unwrap();
    assert_eq!(world.container_status(&running).unwrap().exit_code, 137);
    let log = pod.log("running");
    for (number, line) in log.lines().enumerate() {
        assert!(line.ends_with(&format!(" F {number}")), "no line is lost: {line}");
    }
    assert_eq!(world.pull(BUSYBOX), world.container_status(&running).unwrap().image_id);
    pod.end();
    world.finish();
}

#[test]
fn after_a_kill() {
    restarted(Signal::KILL);
}

#[test]
fn after_a_polite_end() {
    restarted(Signal::TERM);
}

/// A pod that was being made when the daemon died is released, or stays visible until the kubelet ends it.
#[test]
fn a_kill_in_the_middle_leaves_nothing() {
    let mut world = World::start(Options::default());
    world.pull(BUSYBOX);
    for delay in [5, 20, 60, 120] {
        let config = e2e::pod::sandbox(&world, &format!("cut-{delay}"));
        let request = RunPodSandboxRequest { config: Some(config), ..Default::default() };
        std::thread::scope(|scope| {
            let client = &world.client;
            let run = scope.spawn(move || client.run_pod_sandbox(request));
            std::thread::sleep(std::time::Duration::from_millis(delay));
            world.sh("kill -9 $(busybox pidof podwrightd)");
            let _ = run.join().unwrap();
        });
        world.end_daemon(Signal::KILL);
        world.start_daemon();
        let list = world.client.list_pod_sandbox(ListPodSandboxRequest::default()).unwrap();
        for pod_sandbox_id in list.items.into_iter().map(|item| item.id) {
            let stop = StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
            world.client.stop_pod_sandbox(stop).unwrap();
            world.client.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id }).unwrap();
        }
    }
    world.finish();
}

/// The file system that a container sees is mounted nowhere on the host.
#[test]
fn root_file_systems_do_not_show_on_the_host() {
    let world = World::start(Options::default());
    world.pull(BUSYBOX);
    let before = world.sh("cat /proc/self/mountinfo");
    let pod = world.pod("mounts");
    pod.run(container("c", BUSYBOX, &[]));
    let after = world.sh("cat /proc/self/mountinfo");
    let new: Vec<&str> = after.lines().filter(|line| !before.contains(*line)).collect();
    assert!(new.iter().all(|line| !line.contains("overlay")), "{new:?}");
    assert!(new.len() <= 3, "a netns and /dev/shm at most: {new:?}");
    pod.end();
    world.finish();
}
