//! Disks that hang or crawl: a file system is frozen, so that every write to it waits in the kernel, where no signal
//! reaches it. Lists are answered, what runs goes on, kills and exits are told, and afterwards all goes on.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use e2e::cri::*;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::{Pod, container, sandbox, shell};
use e2e::{Options, World, eventually};
use rustix::process::{Pid, Signal, kill_process};
use tonic::Code;

use crate::bad_volume::{lists, prompt};
use crate::prometheus;

/// A world with a directory on a file system of its own.
fn world_with_disk(below: &str) -> World {
    world_of(Options::default(), below)
}

fn world_of(options: Options, below: &str) -> World {
    let mut world = World::without_daemon(options);
    let (dir, image) = (world.path(below), world.path("disk.img"));
    world.sh(&format!(
        "truncate -s 256M {1} && mkfs.ext4 -q {1} && mkdir -p {0} && mount -o loop {1} {0}",
        dir.display(),
        image.display()
    ));
    world.begin();
    world
}

/// A file system that takes no write for as long as this lives. Whoever ends the test, and even its world, ends this
/// first: what waits for the disk cannot be killed.
struct Frozen {
    shell: Child,
    _leash: ChildStdin,
}

impl Frozen {
    fn hang(world: &World, below: &str) -> Self {
        Self::run(world, below, "fsfreeze -f $0 && echo begun && timeout 100 cat; fsfreeze -u $0")
    }

    /// A fifth of the time it works.
    fn crawl(world: &World, below: &str) -> Self {
        let line = "while fsfreeze -f $0 && sleep 0.2; fsfreeze -u $0; do echo begun; \
                    timeout 0.05 cat && exit 0; done";
        Self::run(world, below, line)
    }

    fn run(world: &World, below: &str, line: &str) -> Self {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", world.init())).args(["--mount", "--", "sh", "-c", line]);
        command.arg(world.path(below)).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = command.spawn().expect("nsenter is installed");
        let leash = shell.stdin.take().unwrap();
        let mut first = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert_eq!(first, "begun\n");
        Self { shell, _leash: leash }
    }

    fn end(self) {
        let Self { mut shell, _leash } = self;
        drop(_leash);
        shell.wait().unwrap();
    }
}

/// The database and the layers hang.
#[test]
fn the_root() {
    let world = world_with_disk("root");
    world.pull(BUSYBOX);
    let pod = world.pod("frozen");
    let id = pod.run(container("c", BUSYBOX, &shell("while :; do sleep 0.2; done")));
    let before = lists(&world, &pod);
    let frozen = Frozen::hang(&world, "root");
    assert_eq!(world.exec(&id, "echo runs"), "runs\n");
    let config = sandbox(&world, "waits");
    let request = RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
    let told = world.client.run_pod_sandbox_within(Duration::from_secs(2), request).unwrap_err();
    assert_eq!(told.code(), Code::DeadlineExceeded, "{told}");
    assert!(told.message().contains("record"), "the stage is told: {told}");
    let asked = Instant::now();
    world.stop_container(&id, 0).unwrap();
    assert!(asked.elapsed() < Duration::from_secs(45), "{:?}", asked.elapsed());
    assert_eq!(world.ended(&id).exit_code, 137);
    prompt(before, lists(&world, &pod));
    frozen.end();
    let waited = world.pod_of(config);
    waited.end();
    pod.end();
    world.finish();
}

#[test]
fn the_root_by_turns() {
    let world = world_with_disk("root");
    world.pull(BUSYBOX);
    let pod = world.pod("crawls");
    let before = lists(&world, &pod);
    let crawling = Frozen::crawl(&world, "root");
    std::thread::scope(|scope| {
        let cycle = scope.spawn(|| {
            let start = Instant::now();
            let pod = world.pod("slow");
            let id = pod.run(container("c", BUSYBOX, &shell("exit 3")));
            assert_eq!(world.ended(&id).exit_code, 3);
            pod.end();
            println!("a pod on a disk that crawls took {:?}", start.elapsed());
        });
        prompt(before, lists(&world, &pod));
        cycle.join().unwrap();
    });
    crawling.end();
    pod.end();
    world.finish();
}

/// The daemon dies before the record of a start is on the disk: its successor finds the container running, and does not
/// count again what that logged.
#[test]
fn a_start_that_no_record_tells_of_logged_once() {
    let config = prometheus::config();
    let mut world = world_of(Options { config, ..Default::default() }, "root/db");
    world.pull(BUSYBOX);
    let Pod { id: pod, config, .. } = world.pod("logged");
    let says = container("main", BUSYBOX, &shell("echo told; sleep 10000"));
    let id = Pod { world: &world, id: pod.clone(), config: config.clone() }.create(says);
    let frozen = Frozen::hang(&world, "root/db");
    world.start_container(&id).unwrap();
    let first = prometheus::counted(&world);
    let daemon = world.daemon_pid().and_then(|pid| Pid::from_raw(pid.try_into().unwrap())).unwrap();
    kill_process(daemon, Signal::KILL).unwrap();
    // One of its threads waits in a write, and is gone after it.
    frozen.end();
    world.end_daemon(Signal::KILL);
    world.start_daemon();
    let state = world.container_status(&id).unwrap().state();
    assert_eq!(state, ContainerState::ContainerRunning);
    assert_eq!(prometheus::logged(&world), 0.0);
    Pod { world: &world, id: pod, config }.end();
    assert_eq!(prometheus::logged(&world), 0.0, "of the {first} bytes that were told");
    world.finish();
}

/// The shim's log thread hangs in a write: kills and exits are told all the same.
#[test]
fn the_logs() {
    let world = world_with_disk("logs");
    world.pull(BUSYBOX);
    let config = sandbox(&world, "logs");
    world.sh(&format!("mkdir -p {}", config.log_directory));
    let log = format!("{}/prints.log", config.log_directory);
    let pod = world.pod_of(config);
    let prints =
        pod.run(container("prints", BUSYBOX, &shell("while :; do echo line; sleep 0.01; done")));
    let ends = pod.run(container(
        "ends",
        BUSYBOX,
        &shell("while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 5"),
    ));
    eventually("lines", || world.read(&log).contains("line").then_some(()));
    let frozen = Frozen::hang(&world, "logs");
    let asked = Instant::now();
    world.exec(&ends, "touch /tmp/go");
    assert_eq!(world.ended(&ends).exit_code, 5);
    world.stop_container(&prints, 0).unwrap();
    assert_eq!(world.ended(&prints).exit_code, 137);
    println!("an exit and a kill beside a log that hangs took {:?}", asked.elapsed());
    assert!(asked.elapsed() < Duration::from_secs(60), "{:?}", asked.elapsed());
    frozen.end();
    pod.end();
    world.finish();
}
