//! Exec over SPDY.

use e2e::eventually;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::{container, shell};
use e2e::spdy::{Frame, PING, RST_STREAM};
use e2e::stream::{ALL, OUTPUT, Remote, TERMINAL, V4, Wanted};
use tonic::Code;

use crate::{each_runtime, world};

#[test]
fn streams_and_exit_code() {
    each_runtime(|world| {
        world.pull(BUSYBOX);
        let pod = world.pod("exec");
        let id = pod.run(container("c", BUSYBOX, &[]));
        let run = |line, wanted| world.remote_exec(&id, &shell(line), wanted);
        let ended = run("echo out; echo err >&2; exit 3", OUTPUT).finish();
        assert_eq!((&*ended.stdout, &*ended.stderr), (&b"out\n"[..], &b"err\n"[..]));
        assert_eq!(ended.code(), Some(3), "{}", ended.status);
        let ended = run("exit 0", OUTPUT).finish();
        assert_eq!(ended.json()["status"], "Success");
        let missing = world.remote_exec(&id, &["/no/such/program"], OUTPUT).finish();
        assert_eq!(missing.json()["status"], "Failure", "{}", missing.status);
        assert!(missing.status.contains("/no/such/program"), "{}", missing.status);
        // What a client never ends does not hold the session.
        let ended = run("echo done", ALL).finish();
        assert_eq!((ended.out().as_str(), ended.code()), ("done\n", Some(0)));
        pod.end();
    });
}

#[test]
fn the_end_of_input_reaches_the_process() {
    each_runtime(|world| {
        world.pull(BUSYBOX);
        let pod = world.pod("half-close");
        let id = pod.run(container("c", BUSYBOX, &[]));
        let remote = world.remote_exec(&id, &shell("wc -c; echo after"), ALL);
        remote.type_in("hello");
        remote.end_stdin();
        let ended = remote.finish();
        assert_eq!((ended.out().as_str(), ended.code()), ("5\nafter\n", Some(0)));
        pod.end();
    });
}

#[test]
fn a_terminal_with_its_size() {
    each_runtime(|world| {
        world.pull(BUSYBOX);
        let pod = world.pod("terminal");
        let id = pod.run(container("c", BUSYBOX, &[]));
        let mut remote = world.remote_exec(&id, &["sh"], TERMINAL);
        remote.size(123, 45);
        remote.type_in("tty; echo $TERM; while [ \"$(stty size)\" != '45 123' ]; do usleep 10000; done; echo si'zed'\n");
        let seen = remote.until("sized");
        assert!(seen.contains("/dev/pts/") && seen.contains("xterm"), "{seen}");
        remote.size(80, 24);
        remote.type_in("while [ \"$(stty size)\" != '24 80' ]; do usleep 10000; done; echo re'sized'; exit 7\n");
        let ended = remote.finish();
        assert!(ended.out().contains("resized"), "{}", ended.out());
        assert_eq!(ended.code(), Some(7));
        pod.end();
    });
}

#[test]
fn everything_a_terminal_printed_arrives_however_slow_the_client() {
    let world = world();
    world.pull(BUSYBOX);
    let pod = world.pod("slow");
    let id = pod.run(container("c", BUSYBOX, &[]));
    let mut remote = world.remote_exec(&id, &shell("seq 1 200000; exit 4"), TERMINAL);
    remote.until("1000\r\n");
    // Far longer than a process's output is waited for once it does not come.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let ended = remote.finish_with(|_| {});
    assert_eq!(ended.code(), Some(4));
    let mut last = String::new();
    let mut remote = world.remote_exec(&id, &shell("seq 1 200000"), TERMINAL);
    remote.finish_with(|bytes| last.push_str(&String::from_utf8_lossy(bytes)));
    assert!(last.ends_with("199999\r\n200000\r\n"), "{:?}", &last[last.len() - 50..]);
    pod.end();
    world.finish();
}

#[test]
fn a_client_that_leaves_takes_its_command_with_it() {
    each_runtime(|world| {
        world.pull(BUSYBOX);
        let pod = world.pod("leaves");
        let id = pod.run(container("c", BUSYBOX, &[]));
        let runs = |what: &str| world.exec(&id, "ps").contains(what);
        let leave: [fn(Remote); 4] = [
            |remote| remote.writer().hang_up(),
            |remote| remote.writer().abort(),
            |remote| remote.writer().control(e2e::spdy::GOAWAY, &[0; 8]).unwrap(),
            // In the middle of a frame.
            |remote| {
                remote.writer().raw(&[0, 0, 0, 3, 0, 0, 0xff, 0xff, 1]).unwrap();
                remote.writer().hang_up();
            },
        ];
        for leave in leave {
            let line = "sleep 4242 & echo begun; sleep 4343; true";
            let mut remote = world.remote_exec(&id, &shell(line), ALL);
            remote.until("begun");
            eventually("both to run", || (runs("sleep 4242") && runs("sleep 4343")).then_some(()));
            leave(remote);
            eventually("the command to be gone", || {
                (!runs("sleep 4242") && !runs("sleep 4343")).then_some(())
            });
        }
        pod.end();
    });
}

#[test]
fn a_client_that_leaves_at_once_leaves_no_command() {
    each_runtime(|world| {
        world.pull(BUSYBOX);
        let pod = world.pod("at-once");
        let id = pod.run(container("c", BUSYBOX, &[]));
        // Somewhere in the middle of the start.
        for pause in 0..12 {
            let remote = world.remote_exec(&id, &["sleep", "4242"], ALL);
            std::thread::sleep(std::time::Duration::from_millis(4 * pause));
            remote.writer().control(e2e::spdy::GOAWAY, &[0; 8]).unwrap();
        }
        let exec = format!("find {} -path '*/exec/*'", world.path("state").display());
        eventually("the sessions to be over", || world.sh(&exec).is_empty().then_some(()));
        assert!(!world.exec(&id, "ps").contains("sleep 4242"), "{}", world.exec(&id, "ps"));
        pod.end();
    });
}

#[test]
fn what_forks_faster_than_it_is_killed_dies_with_its_session() {
    let world = world();
    world.pull(BUSYBOX);
    let pod = world.pod("forks");
    let id = pod.run(container("c", BUSYBOX, &[]));
    for _ in 0..2 {
        // Each generation lives just long enough to start the next.
        let line = "f() { f & }; echo begun; for i in $(seq 20); do f; done; sleep 4343";
        let mut remote = world.remote_exec(&id, &shell(line), ALL);
        remote.until("begun");
        remote.writer().hang_up();
        eventually("all generations to be gone", || {
            (!world.exec(&id, "ps").contains("f() {")).then_some(())
        });
    }
    pod.end();
    world.finish();
}

#[test]
fn a_client_that_leaves_while_nobody_reads_it() {
    let world = world();
    world.pull(BUSYBOX);
    let pod = world.pod("full");
    let id = pod.run(container("c", BUSYBOX, &[]));
    let remote = world.remote_exec(&id, &["sleep", "4242"], ALL);
    let (writer, stdin) = (remote.writer(), remote.stdin.unwrap());
    // More than all buffers on the way; the process reads none of it.
    let filling =
        std::thread::spawn(move || while writer.data(stdin, &[0; 1 << 16], false).is_ok() {});
    eventually("the command to run", || world.exec(&id, "ps").contains("sleep 4242").then_some(()));
    let mut polls = 0;
    eventually("the buffers to fill", || {
        polls += 1;
        (polls > 100).then_some(())
    });
    remote.writer().hang_up();
    filling.join().unwrap();
    drop(remote);
    eventually("the command to be gone", || {
        (!world.exec(&id, "ps").contains("sleep 4242")).then_some(())
    });
    pod.end();
    world.finish();
}

#[test]
fn a_child_that_keeps_the_output_does_not_hold_the_session() {
    let world = world();
    world.pull(BUSYBOX);
    let pod = world.pod("daemonised");
    let id = pod.run(container("c", BUSYBOX, &[]));
    let start = std::time::Instant::now();
    let ended = world.remote_exec(&id, &shell("sleep 500 & echo started"), OUTPUT).finish();
    assert_eq!((ended.out().as_str(), ended.code()), ("started\n", Some(0)));
    // One that goes on printing does not either.
    let ended = world.remote_exec(&id, &shell("yes & echo started"), OUTPUT).finish();
    assert_eq!(ended.code(), Some(0));
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    pod.end();
    world.finish();
}

#[test]
fn earlier_versions_of_the_protocol() {
    let world = world();
    world.pull(BUSYBOX);
    let pod = world.pod("versions");
    let id = pod.run(container("c", BUSYBOX, &[]));
    for (version, resizes) in
        [("channel.k8s.io", false), ("v2.channel.k8s.io", false), ("v3.channel.k8s.io", true)]
    {
        let run = |line, wanted: Wanted| {
            let url = world.exec_url(&id, &shell(line), wanted).unwrap();
            Remote::open(world.spdy(&url, version), wanted, resizes)
        };
        let ended = run("echo out; exit 3", OUTPUT).finish();
        assert_eq!(ended.out(), "out\n");
        assert!(ended.status.ends_with("exit code 3"), "{}", ended.status);
        assert_eq!(run("true", OUTPUT).finish().status, "");
        let remote = run("read line; echo got $line", TERMINAL);
        remote.type_in("x\n");
        assert!(remote.finish().out().contains("got x"));
    }
    // The client's order counts, over several headers or in one.
    let url = world.exec_url(&id, &shell("true"), OUTPUT).unwrap();
    let answered = world.dial(&url, &["v9.channel.k8s.io, v3.channel.k8s.io", V4]).unwrap();
    assert_eq!(answered.headers["x-stream-protocol-version"], "v3.channel.k8s.io");
    drop(answered);
    pod.end();
    world.finish();
}

#[test]
fn what_is_refused() {
    let world = world();
    world.pull(BUSYBOX);
    let pod = world.pod("refused");
    let id = pod.run(container("c", BUSYBOX, &[]));
    let none = Wanted { tty: false, stdin: false, stdout: false, stderr: false };
    let code = |wanted| world.exec_url(&id, &["true"], wanted).unwrap_err().code();
    assert_eq!(code(none), Code::InvalidArgument);
    assert_eq!(code(Wanted { tty: true, ..OUTPUT }), Code::InvalidArgument);
    let created = pod.create(container("created", BUSYBOX, &[]));
    let refused = world.exec_url(&created, &["true"], OUTPUT).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let refused = world.exec_url("deadbeef", &["true"], OUTPUT).unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);

    let url = || world.exec_url(&id, &["true"], OUTPUT).unwrap();
    let status = |url: &str, protocols: &[&str]| world.dial(url, protocols).unwrap().status;
    let used = url();
    let session = Remote::open(world.spdy(&used, V4), OUTPUT, true);
    assert_eq!(status(&used, &[V4]), 404, "a token is used once");
    assert_eq!(session.finish().code(), Some(0));
    assert_eq!(status(&url().replace("/exec/", "/attach/"), &[V4]), 404);
    assert_eq!(status(&format!("{}x", url()), &[V4]), 404);
    assert_eq!(status(&url(), &[]), 400);
    let answered = world.dial(&url(), &["v9.channel.k8s.io"]).unwrap();
    assert_eq!(answered.status, 403);
    assert!(answered.headers.contains_key("x-accepted-stream-protocol-versions"));
    pod.end();
    world.finish();
}

#[test]
fn streams_of_another_kind_are_reset_and_pings_answered() {
    let world = world();
    world.pull(BUSYBOX);
    let pod = world.pod("odd");
    let id = pod.run(container("c", BUSYBOX, &[]));
    let url = world.exec_url(&id, &["cat"], ALL).unwrap();
    let mut spdy = world.spdy(&url, V4);
    let odd = spdy.writer.open(&[("streamtype", "what")]).unwrap();
    let reset =
        spdy.until("a reset", |frame| matches!(frame, Frame::Control { kind: RST_STREAM, .. }));
    assert_eq!(reset.id(), odd);
    spdy.writer.ping(77).unwrap();
    let pong = spdy.until("a ping", |frame| matches!(frame, Frame::Control { kind: PING, .. }));
    assert_eq!(pong.id(), 77);
    let remote = Remote::open(spdy, ALL, true);
    remote.type_in("back");
    remote.end_stdin();
    let ended = remote.finish();
    assert_eq!((ended.out().as_str(), ended.code()), ("back", Some(0)));
    pod.end();
    world.finish();
}
