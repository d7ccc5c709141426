//! Pods go on under the daemon of another version, upwards and downwards, whatever became of their shim's program.
//!
//! `./dev upgrade-test [REV]` builds the other version and names its directory in `PODWRIGHT_UPGRADE_FROM`. Without
//! that, copies of this version stand for it.
#![forbid(unsafe_code)]
#![allow(missing_docs)]

use std::path::{Path, PathBuf};

use e2e::cri::*;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::{Pod, container, namespaces, sandbox, shell};
use e2e::{Options, World, eventually, place};
use rustix::process::Signal;

/// What a version is made of.
const PROGRAMS: [&str; 2] = ["podwrightd", "podwright-shim"];
/// Counts as fast as it may be lost.
const COUNTS: &str = "n=0; while :; do echo $n; n=$((n+1)); usleep 10000; done";
/// Ends with 42 once somebody says so.
const WAITS: &str = "while ! [ -e /dev/shm/go ]; do usleep 50000; done; exit 42";

#[test]
fn up_and_back() {
    crossing("other", "this");
}

#[test]
fn down_and_back() {
    crossing("this", "other");
}

/// Pods are made by `first`, driven by `second`, which makes others, and all of them end under `first` again.
fn crossing(first: &str, second: &str) {
    let mut world = World::without_daemon(Options::default());
    let (first, second) = (install(&world, first), install(&world, second));
    world.use_binaries(&first);
    world.begin();
    world.pull(BUSYBOX);
    let mut old = Kept::make(&world, "old", NamespaceMode::Container);
    let mut shared = Kept::make(&world, "shared", NamespaceMode::Pod);

    switch(&mut world, &second, &mut [&mut old, &mut shared]);
    for kept in [&mut old, &mut shared] {
        kept.check(&world);
        kept.add(&world, "again");
    }
    let mut new = Kept::make(&world, "new", NamespaceMode::Container);
    let ends_here = Kept::make(&world, "ends-here", NamespaceMode::Pod);
    ends_here.end(&world);
    let moved = Kept::make(&world, "ends-with-the-first", NamespaceMode::Container);
    let (id, config) = (moved.id.clone(), moved.config.clone());

    switch(&mut world, &first, &mut [&mut old, &mut shared, &mut new]);
    Pod { world: &world, id, config }.end();
    for kept in [&mut old, &mut shared, &mut new] {
        kept.check(&world);
        kept.add(&world, "back");
    }
    for kept in [old, shared, new] {
        kept.end(&world);
    }
    world.finish();
}

/// A copy of a version's programs, of the world's own: they are deleted while they run.
fn install(world: &World, which: &str) -> PathBuf {
    let from = match std::env::var_os("PODWRIGHT_UPGRADE_FROM").filter(|_| which == "other") {
        Some(dir) => PROGRAMS.map(|name| Path::new(&dir).join(name)),
        None => [place::binary(PROGRAMS[0]), place::shim()],
    };
    let to = world.path(&format!("programs-{which}"));
    copy(&from, &to);
    to
}

fn copy(from: &[PathBuf; 2], to: &Path) {
    std::fs::create_dir_all(to).expect("the world's directory");
    for (program, name) in from.iter().zip(PROGRAMS) {
        std::fs::copy(program, to.join(name))
            .unwrap_or_else(|err| panic!("{}: {err}", program.display()));
    }
}

/// Kills the daemon; a container of each pod ends unseen; the programs that run are deleted; the others start.
fn switch(world: &mut World, to: &Path, pods: &mut [&mut Kept]) {
    let from = world.binaries().to_owned();
    let kept = PROGRAMS.map(|name| from.join(format!("{name}.kept")));
    for (name, kept) in PROGRAMS.iter().zip(&kept) {
        std::fs::copy(from.join(name), kept).expect("the world's directory");
    }
    world.end_daemon(Signal::KILL);
    for pod in pods.iter_mut() {
        pod.let_one_end(world);
    }
    for name in PROGRAMS {
        std::fs::remove_file(from.join(name)).expect("the programs that run can be deleted");
    }
    world.use_binaries(to);
    world.start_daemon();
    // Pods that the others made go on with a program that is deleted; those made later have one again.
    copy(&kept, &from);
}

/// A pod, and what is to become of its containers.
struct Kept {
    id: String,
    config: PodSandboxConfig,
    ip: String,
    /// Logs and runs from the beginning.
    running: String,
    /// Waits to be told to end.
    waiting: Option<String>,
    /// It has ended, unseen.
    ended: Vec<String>,
    created: Option<String>,
    count: usize,
}

impl Kept {
    fn make(world: &World, name: &str, pid: NamespaceMode) -> Self {
        let mut config = sandbox(world, name);
        let security = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
        security.expect("a security context").namespace_options =
            Some(namespaces(NamespaceMode::Pod, pid));
        let pod = world.pod_of(config);
        let running = pod.run(container("running", BUSYBOX, &shell(COUNTS)));
        let waiting = pod.run(container("waiting-0", BUSYBOX, &shell(WAITS)));
        let created = pod.create(container("created", BUSYBOX, &[]));
        Self {
            ip: pod.ip(),
            id: pod.id.clone(),
            config: pod.config.clone(),
            running,
            waiting: Some(waiting),
            ended: Vec::new(),
            created: Some(created),
            count: 0,
        }
    }

    fn pod<'w>(&self, world: &'w World) -> Pod<'w> {
        Pod { world, id: self.id.clone(), config: self.config.clone() }
    }

    /// In the pod's /dev/shm, which its containers share.
    fn go(&self, world: &World) -> PathBuf {
        world.seen(world.path(&format!("state/pods/{}/shm/go", self.id)))
    }

    fn let_one_end(&mut self, world: &World) {
        let record = world.seen(world.path(&format!("state/pods/{}/ctr", self.id)));
        let waiting = self.waiting.take().expect("one waits");
        std::fs::write(self.go(world), "").expect("the pod's shm");
        let exit = record.join(&waiting).join("exit.json");
        eventually("the shim to write the exit down", || exit.exists().then_some(()));
        std::fs::remove_file(self.go(world)).expect("the pod's shm");
        self.ended.push(waiting);
    }

    /// Everything is as it was, and what happened meanwhile is known.
    fn check(&mut self, world: &World) {
        let status = world.sandbox_status(&self.id).expect("PodSandboxStatus");
        assert_eq!(status.state(), PodSandboxState::SandboxReady, "{}", self.id);
        assert_eq!(self.pod(world).ip(), self.ip);
        for ended in &self.ended {
            let status = world.ended(ended);
            assert_eq!((status.exit_code, status.reason.as_str()), (42, "Error"));
        }
        assert_eq!(world.exec(&self.running, "echo driven"), "driven\n");
        if let Some(created) = self.created.take() {
            world.start_container(&created).expect("StartContainer of one that was created before");
            world.stop_container(&created, 0).expect("StopContainer");
            assert_eq!(world.ended(&created).exit_code, 137);
        }
        self.check_log(world);
    }

    fn check_log(&self, world: &World) {
        let lines = || self.pod(world).log("running").lines().count();
        let before = lines();
        eventually("the log to go on", || (lines() > before).then_some(()));
        for (number, line) in self.pod(world).log("running").lines().enumerate() {
            assert!(line.ends_with(&format!(" F {number}")), "a line is lost or torn: {line}");
        }
    }

    /// New containers in a pod of another version.
    fn add(&mut self, world: &World, name: &str) {
        let pod = self.pod(world);
        let short = pod.run(container(&format!("short-{name}"), BUSYBOX, &shell("exit 5")));
        assert_eq!(world.ended(&short).exit_code, 5);
        world.remove_container(&short).expect("RemoveContainer");
        self.count += 1;
        let name = format!("waiting-{}", self.count);
        self.waiting = Some(pod.run(container(&name, BUSYBOX, &shell(WAITS))));
        self.created =
            Some(pod.create(container(&format!("created-{}", self.count), BUSYBOX, &[])));
    }

    fn end(self, world: &World) {
        world.stop_container(&self.running, 1).expect("StopContainer");
        assert_eq!(world.ended(&self.running).state(), ContainerState::ContainerExited);
        self.pod(world).end();
    }
}
