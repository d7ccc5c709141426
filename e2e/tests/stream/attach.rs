//! Attach: the container's own streams, shared by those who look on.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use e2e::cri::ContainerConfig;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::{container, shell};
use e2e::stream::{ALL, OUTPUT, TERMINAL, Wanted};
use e2e::{World, eventually, within};

use crate::{each_runtime, world};

const INPUT: Wanted = Wanted { tty: false, stdin: true, stdout: false, stderr: false };

/// Answers each line of its input.
fn echo(name: &str) -> ContainerConfig {
    let line =
        "echo history; while read line; do echo err $line >&2; echo out $line; done; echo over";
    ContainerConfig { stdin: true, ..container(name, BUSYBOX, &shell(line)) }
}

/// Waits until the one shim serves so many sessions.
fn attached(world: &World, count: usize) {
    let line = "ls -l /proc/$(busybox pidof podwright-shim)/fd";
    eventually("the sessions to begin", || {
        (world.sh(line).matches("/leash").count() == count).then_some(())
    });
}

#[test]
fn several_look_on_and_type_and_see_the_end() {
    each_runtime(|world| {
        world.pull(BUSYBOX);
        let pod = world.pod("attach");
        let id = pod.run(echo("c"));
        eventually("the first line", || pod.log("c").contains("history").then_some(()));
        let mut first = world.remote_attach(&id, ALL);
        first.type_in("one\n");
        assert_eq!(first.until("out one\n"), "out one\n", "no history");
        let mut second = world.remote_attach(&id, ALL);
        second.type_in("two\n");
        assert_eq!(second.until("out two\n"), "out two\n");
        assert_eq!(first.until("out two\n"), "out two\n");
        // The end of one session's input is not the container's.
        second.end_stdin();
        first.type_in("three\n");
        first.until("out three\n");
        world.stop_container(&id, 0).unwrap();
        assert_eq!(first.finish().json()["status"], "Success");
        let ended = second.finish();
        assert_eq!(ended.json()["status"], "Success");
        assert!(ended.stderr.ends_with(b"err three\n"), "{:?}", ended.stderr);
        let log = pod.log("c");
        for text in
            ["stdout F out one", "stderr F err one", "stdout F out two", "stdout F out three"]
        {
            assert!(log.contains(text), "{text}: {log}");
        }
        pod.end();
    });
}

#[test]
fn stdin_once_ends_with_its_first_session() {
    let world = world();
    world.pull(BUSYBOX);
    let pod = world.pod("once");
    let half_closed = pod.run(ContainerConfig { stdin_once: true, ..echo("half-closed") });
    let session = world.remote_attach(&half_closed, ALL);
    session.type_in("one\n");
    session.end_stdin();
    let ended = session.finish();
    assert_eq!((ended.out().as_str(), ended.code()), ("out one\nover\n", Some(0)));
    assert_eq!(world.ended(&half_closed).exit_code, 0);
    let left = pod.run(ContainerConfig { stdin_once: true, ..echo("left") });
    let mut session = world.remote_attach(&left, ALL);
    session.type_in("one\n");
    session.until("out one\n");
    session.writer().hang_up();
    assert_eq!(world.ended(&left).exit_code, 0);
    // Without it, input stays open for the next.
    let stays = pod.run(echo("stays"));
    for word in ["one", "two"] {
        let mut session = world.remote_attach(&stays, ALL);
        session.type_in(&format!("{word}\n"));
        session.until(&format!("out {word}\n"));
        session.writer().hang_up();
    }
    pod.end();
    world.finish();
}

#[test]
fn a_terminal() {
    each_runtime(|world| {
        world.pull(BUSYBOX);
        let pod = world.pod("terminal");
        let config = container("c", BUSYBOX, &["sh"]);
        let id = pod.run(ContainerConfig { stdin: true, tty: true, ..config });
        let mut session = world.remote_attach(&id, TERMINAL);
        session.size(101, 33);
        session.type_in(
            "while [ \"$(stty size)\" != '33 101' ]; do usleep 10000; done; echo si'zed'\n",
        );
        session.until("sized");
        session.type_in("exit 3\n");
        assert_eq!(session.finish().json()["status"], "Success");
        assert_eq!(world.ended(&id).exit_code, 3);
        assert!(pod.log("c").contains("sized"));
        pod.end();
    });
}

#[test]
fn a_container_without_a_log_or_without_input() {
    let world = world();
    world.pull(BUSYBOX);
    let pod = world.pod("bare");
    let id = pod.run(ContainerConfig { log_path: String::new(), ..echo("unlogged") });
    let mut session = world.remote_attach(&id, ALL);
    session.type_in("seen\n");
    session.until("out seen\n");
    world.stop_container(&id, 0).unwrap();
    assert_eq!(session.finish().json()["status"], "Success");
    let deaf =
        pod.run(container("deaf", BUSYBOX, &shell("while :; do echo on; usleep 100000; done")));
    let mut session = world.remote_attach(&deaf, ALL);
    session.type_in("nobody reads this");
    session.until("on\non\n");
    let only_types = world.remote_attach(&deaf, INPUT);
    only_types.type_in("x");
    attached(&world, 2);
    world.stop_container(&deaf, 0).unwrap();
    assert_eq!(only_types.finish().json()["status"], "Success");
    assert_eq!(session.finish().json()["status"], "Success");
    pod.end();
    world.finish();
}

#[test]
fn a_viewer_that_does_not_read_holds_nobody() {
    let world = world();
    world.pull(BUSYBOX);
    let pod = world.pod("slow");
    let line = "read go; seq 1 3000000; echo over; sleep 1000";
    let id = pod.run(ContainerConfig { stdin: true, ..container("c", BUSYBOX, &shell(line)) });
    let mut stuck = world.remote_attach(&id, OUTPUT);
    attached(&world, 1);
    let mut typist = world.remote_attach(&id, INPUT);
    typist.type_in("go\n");
    // 23 MB, of which the viewer reads nothing.
    within(std::time::Duration::from_secs(180), "the whole log", || {
        pod.log("c").ends_with("stdout F over\n").then_some(())
    });
    let log = pod.log("c");
    assert_eq!(log.lines().count(), 3_000_001);
    let ended = stuck.finish_with(|_| {});
    assert_eq!(ended.json()["status"], "Failure");
    assert!(ended.status.contains("faster than it was read"), "{}", ended.status);
    world.stop_container(&id, 0).unwrap();
    assert_eq!(typist.finish_with(|_| {}).json()["status"], "Success");
    pod.end();
    world.finish();
}

#[test]
fn leaving_leaves_the_container_and_nothing_of_the_session() {
    let world = world();
    world.pull(BUSYBOX);
    let pod = world.pod("leave");
    // Silent: nothing is ever written to a viewer that has gone.
    let id = pod.run(ContainerConfig { stdin: true, ..container("c", BUSYBOX, &["cat"]) });
    let shim = world.sh("busybox pidof podwright-shim").trim().to_owned();
    let descriptors = || world.sh(&format!("ls /proc/{shim}/fd | wc -l")).trim().to_owned();
    let mut first = world.remote_attach(&id, ALL);
    first.type_in("x\n");
    first.until("x\n");
    first.writer().hang_up();
    drop(first);
    // The log thread and its buffers are there now.
    eventually("the session to be gone", || {
        world
            .sh(&format!("find {} -path '*attach/*' | wc -l", world.path("state").display()))
            .starts_with('0')
            .then_some(())
    });
    let before = eventually("few descriptors", || {
        let now = descriptors();
        (now == descriptors()).then_some(now)
    });
    for _ in 0..20 {
        let session = world.remote_attach(&id, ALL);
        session.writer().hang_up();
    }
    eventually("the descriptors of the sessions to be gone", || {
        (descriptors() == before).then_some(())
    });
    assert!(world.exec(&id, "ps").contains("cat"));
    pod.end();
    world.finish();
}

#[test]
fn a_daemon_that_is_killed_ends_its_sessions_and_no_other_input() {
    let mut world = world();
    world.pull(BUSYBOX);
    let pod = world.pod("killed");
    let (pod_id, pod_config) = (pod.id.clone(), pod.config.clone());
    let once = |name| ContainerConfig { stdin_once: true, ..echo(name) };
    let [held, free] = ["held", "free"].map(|name| pod.run(once(name)));
    let mut session = world.remote_attach(&held, ALL);
    session.type_in("one\n");
    session.until("out one\n");
    let dirs = format!("find {} -path '*/attach/*'", world.path("state").display());
    assert_ne!(world.sh(&dirs), "");
    world.end_daemon(rustix::process::Signal::KILL);
    session.finish();
    world.start_daemon();
    // Its first session is over, and with it its input.
    assert_eq!(world.ended(&held).exit_code, 0);
    eventually("what viewers had to be swept", || world.sh(&dirs).is_empty().then_some(()));
    let session = world.remote_attach(&free, ALL);
    session.type_in("two\n");
    session.end_stdin();
    let ended = session.finish();
    assert_eq!((ended.out().as_str(), ended.code()), ("out two\nover\n", Some(0)));
    assert_eq!(world.ended(&free).exit_code, 0);
    e2e::pod::Pod { world: &world, id: pod_id, config: pod_config }.end();
    world.finish();
}

#[test]
fn with_the_command() {
    let world = world();
    world.pull(BUSYBOX);
    let pod = world.pod("command");
    let id = pod.run(echo("c"));
    let mut child = world
        .command(e2e::place::binary("podwright"))
        .arg("--socket")
        .arg(world.path("state/podwright.sock"))
        .args(["attach", "-i", &id])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut typing = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    writeln!(typing, "one").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "out one");
    world.stop_container(&id, 0).unwrap();
    drop(typing);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b"err one\n"[..]));
    pod.end();
    world.finish();
}
