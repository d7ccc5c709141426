//! Storage of others that hangs: volumes and log directories on a file system that never answers.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use e2e::cri::*;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::{Pod, container, sandbox, shell};
use e2e::{Options, World, eventually};
use tonic::Code;

/// A file system in a world that hangs whoever touches it.
struct Hung<'w> {
    world: &'w World,
    server: Child,
    dir: String,
}

impl<'w> Hung<'w> {
    fn mount(world: &'w World) -> Self {
        let dir = world.path("hung").display().to_string();
        std::fs::create_dir(&dir).unwrap();
        let fixture = e2e::place::binary("fixture");
        let mut command = world.command(fixture);
        let mut server =
            command.args(["hang", &dir]).stdout(Stdio::piped()).spawn().expect("nsenter runs");
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { world, server, dir }
    }

    /// Whoever waits is told that nobody is there.
    fn end(mut self) {
        self.world.sh("kill -KILL $(busybox ps | grep '[f]ixture hang' | cut -c1-5)");
        self.server.wait().unwrap();
        self.world.sh(&format!("umount -l {}", self.dir));
    }
}

fn with_volume(name: &str, host_path: &str) -> ContainerConfig {
    let mut config = container(name, BUSYBOX, &[]);
    config.mounts = vec![Mount {
        container_path: "/data".into(),
        host_path: host_path.into(),
        ..Default::default()
    }];
    config
}

fn create_within(
    pod: &Pod<'_>,
    deadline: Duration,
    config: ContainerConfig,
) -> Result<CreateContainerResponse, tonic::Status> {
    let request = CreateContainerRequest {
        pod_sandbox_id: pod.id.clone(),
        config: Some(config),
        sandbox_config: Some(pod.config.clone()),
    };
    pod.world.client.timed(deadline, request, |channel, request| async move {
        runtime_service_client::RuntimeServiceClient::new(channel).create_container(request).await
    })
}

/// The one in the middle of a hundred, each of lists and statuses.
pub(crate) fn lists(world: &World, pod: &Pod<'_>) -> Duration {
    const ROUNDS: usize = 100;
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        world.client.list_pod_sandbox(ListPodSandboxRequest::default()).unwrap();
        world.client.list_containers(ListContainersRequest::default()).unwrap();
        world.sandbox_status(&pod.id).unwrap();
        world.client.status(StatusRequest::default()).unwrap();
        took.push(start.elapsed() / 4);
    }
    took.sort();
    let (p50, p99) = (took[ROUNDS / 2], took[ROUNDS - 2]);
    println!("lists and statuses: p50 {p50:?}, p99 {p99:?}");
    p50
}

/// That lists went on as `before`. What waits for somebody who hangs takes seconds; on a busy machine a few take long
/// all the same, so it is the usual one that counts.
pub(crate) fn prompt(before: Duration, now: Duration) {
    assert!(now < Duration::from_millis(50).max(before * 5), "{now:?} after {before:?}");
}

/// More creates hang than there are threads in any pool; everybody else goes on.
#[test]
fn volumes_that_hang() {
    const HANGING: usize = 80;
    let world = World::start(Options::default());
    world.pull(BUSYBOX);
    let (pod, other) = (world.pod("hangs"), world.pod("other"));
    let before = lists(&world, &pod);
    let hung = Hung::mount(&world);
    std::thread::scope(|scope| {
        let hanging: Vec<_> = (0..HANGING)
            .map(|number| {
                let config = with_volume(&format!("c{number}"), &format!("{}/v{number}", hung.dir));
                let pod = &pod;
                scope.spawn(move || create_within(pod, Duration::from_secs(100), config))
            })
            .collect();
        eventually("all of them to hang", || {
            let threads =
                world.sh("cat /proc/$(busybox pidof podwrightd)/task/*/comm | grep -c apart; true");
            (threads.trim().parse::<usize>().unwrap() >= HANGING).then_some(())
        });
        let start = Instant::now();
        let id = other.run(container("c", BUSYBOX, &[]));
        assert_eq!(world.exec(&id, "echo fine"), "fine\n");
        world.stop_container(&id, 0).unwrap();
        world.pod("third").end();
        println!("a container and a pod beside them took {:?}", start.elapsed());
        prompt(before, lists(&world, &pod));
        for one in hanging {
            let told = one.join().unwrap().unwrap_err();
            assert!(told.message().contains("/hung/v"), "{told}");
            assert!(told.message().contains("has not answered for"), "{told}");
        }
    });
    let path = format!("{}/v1", hung.dir);
    let start = Instant::now();
    let status = create_within(&pod, Duration::from_secs(2), with_volume("late", &path));
    let status = status.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("volumes"), "the stage is told: {status}");
    // A pod that is ended does not wait for its volume.
    pod.end();
    assert!(start.elapsed() < Duration::from_secs(50), "{:?}", start.elapsed());
    other.end();
    hung.end();
    world.finish();
}

/// It hangs only once the runtime mounts it: a start that can be cancelled, and is killed with its runtime.
#[test]
fn a_volume_that_hangs_once_it_is_mounted() {
    let world = World::start(Options::default());
    world.pull(BUSYBOX);
    let (pod, other) = (world.pod("hangs"), world.pod("other"));
    let path = world.path("hung");
    let below = path.join("volume");
    std::fs::create_dir_all(&below).unwrap();
    let id = pod.create(with_volume("c", below.to_str().unwrap()));
    std::fs::remove_dir_all(&path).unwrap();
    let hung = Hung::mount(&world);
    std::thread::scope(|scope| {
        let start = scope.spawn(|| world.start_container(&id));
        eventually("the runtime to hang", || world.sh("busybox ps").contains("crun").then_some(()));
        let id = other.run(container("c", BUSYBOX, &[]));
        world.exec(&id, "true");
        let asked = Instant::now();
        // Where the kernel does not let the runtime die, this is told, and works once it does.
        if let Err(status) = pod.stop() {
            println!("the stop says {status}");
        }
        assert!(asked.elapsed() < Duration::from_secs(58), "{:?}", asked.elapsed());
        start.join().unwrap().unwrap_err();
        lists(&world, &pod);
    });
    hung.end();
    pod.end();
    other.end();
    world.finish();
}

/// A container that cannot have its log does not start, and whoever waits for it is told or can give up.
#[test]
fn a_log_directory_that_hangs() {
    let world = World::start(Options::default());
    world.pull(BUSYBOX);
    let other = world.pod("other");
    let path = world.path("hung");
    let mut config = sandbox(&world, "log-hangs");
    config.log_directory = path.join("pod").display().to_string();
    std::fs::create_dir_all(&config.log_directory).unwrap();
    let pod = world.pod_of(config);
    let early = pod.create(container("early", BUSYBOX, &[]));
    std::fs::remove_dir_all(&path).unwrap();
    let hung = Hung::mount(&world);
    let told = pod.try_create(container("c", BUSYBOX, &[])).unwrap_err();
    assert!(told.message().contains(&format!("log directory {}", hung.dir)), "{told}");
    assert!(told.message().contains("has not answered for"), "{told}");
    std::thread::scope(|scope| {
        let start = scope.spawn(|| world.start_container(&early));
        let id = other.run(container("c", BUSYBOX, &shell("echo hi; exit 3")));
        assert_eq!(world.ended(&id).exit_code, 3);
        let asked = Instant::now();
        world.stop_container(&early, 10).unwrap();
        start.join().unwrap().unwrap_err();
        assert!(asked.elapsed() < Duration::from_secs(50), "{:?}", asked.elapsed());
    });
    pod.stop().unwrap();
    hung.end();
    pod.end();
    other.end();
    world.finish();
}
