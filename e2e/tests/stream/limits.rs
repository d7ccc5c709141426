//! Each limit of the streaming server, hit.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use e2e::image::catalogue::BUSYBOX;
use e2e::pod::{container, shell};
use e2e::spdy::{Frame, RST_STREAM, SYN_REPLY};
use e2e::stream::{ALL, OUTPUT, Remote, V4, parts};
use e2e::{Options, World, eventually, within};

use crate::forward::{PROTOCOL, finish, pair};
use crate::world;

/// Streams of one connection.
const MAX_STREAMS: usize = 512;

fn configured(streaming: &str) -> World {
    let config = format!("[streaming]\n{streaming}\n");
    World::start(Options { config, ..Default::default() })
}

#[test]
fn an_idle_session_ends_and_a_busy_one_does_not() {
    const IDLE: Duration = Duration::from_secs(4);
    let world = configured("idle_timeout_seconds = 4");
    world.pull(BUSYBOX);
    let pod = world.pod("idle");
    let id = pod.run(container("c", BUSYBOX, &shell("exec nc -ll -p 7000 -e cat")));
    let mut busy = world.remote_exec(&id, &["cat"], ALL);
    let mut idle = world.remote_exec(&id, &["sleep", "4242"], ALL);
    let mut forward = world.spdy(&world.forward_url(&pod.id, &[]).unwrap(), PROTOCOL);
    let mut socket = world.websocket(&world.exec_url(&id, &["sleep", "4343"], ALL).unwrap(), &[]);
    let begun = Instant::now();
    while begun.elapsed() < IDLE + Duration::from_secs(1) {
        busy.type_in("x\n");
        busy.until("x\n");
        std::thread::sleep(Duration::from_millis(50));
    }
    // Each returns once the server has hung up, and what an idle client has started is gone.
    idle.finish_with(|_| {});
    while forward.read().is_ok() {}
    socket.finish();
    eventually("the commands to be gone", || {
        let ps = world.exec(&id, "ps");
        (!ps.contains("sleep 4242") && !ps.contains("sleep 4343")).then_some(())
    });
    busy.end_stdin();
    assert_eq!(busy.finish().code(), Some(0));
    pod.end();
    world.finish();
}

#[test]
fn streams_have_to_be_opened_in_time() {
    let world = configured("creation_timeout_seconds = 1");
    world.pull(BUSYBOX);
    let pod = world.pod("creation");
    let id = pod.run(container("c", BUSYBOX, &[]));
    // Of five streams one.
    let mut spdy = world.spdy(&world.exec_url(&id, &["sleep", "4242"], ALL).unwrap(), V4);
    spdy.writer.open(&[("streamtype", "error")]).unwrap();
    while spdy.read().is_ok() {}
    assert!(!world.exec(&id, "ps").contains("sleep 4242"));
    // Of a pair the half that can be told.
    let mut spdy = world.spdy(&world.forward_url(&pod.id, &[]).unwrap(), PROTOCOL);
    let headers = [("streamtype", "error"), ("port", "80"), ("requestid", "0")];
    let error = spdy.writer.open(&headers).unwrap();
    let told = spdy.until(
        "a reason",
        |frame| matches!(frame, Frame::Data { id, bytes, .. } if *id == error && !bytes.is_empty()),
    );
    let Frame::Data { bytes, .. } = told else { unreachable!("it was waited for") };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert_eq!(text, "the data stream for port 80 was never opened");
    // The connection goes on.
    let refused = pair(&spdy, 80, 1);
    assert!(finish(&mut spdy, refused).1.contains("connect: "));
    pod.end();
    world.finish();
}

/// Whether anything comes within a moment.
fn answers(socket: &mut TcpStream, moment: Duration) -> bool {
    socket.set_read_timeout(Some(moment)).unwrap();
    match socket.read(&mut [0; 1]) {
        Ok(count) => count == 1,
        Err(err) => {
            assert!(matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{err}");
            false
        }
    }
}

#[test]
fn more_connections_than_are_allowed_wait() {
    let world = configured("max_connections = 4");
    world.pull(BUSYBOX);
    let pod = world.pod("connections");
    let id = pod.run(container("c", BUSYBOX, &[]));
    let mut sessions: Vec<Remote> = (0..4)
        .map(|_| {
            let mut remote = world.remote_exec(&id, &["cat"], ALL);
            remote.type_in("x\n");
            remote.until("x\n");
            remote
        })
        .collect();
    let url = world.exec_url(&id, &["true"], OUTPUT).unwrap();
    let (address, path) = parts(&url);
    let mut fifth = world.connect(address).unwrap();
    write!(fifth, "POST {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(!answers(&mut fifth, Duration::from_millis(700)));
    let leaves = sessions.pop().unwrap();
    leaves.end_stdin();
    assert_eq!(leaves.finish().code(), Some(0));
    assert!(answers(&mut fifth, Duration::from_secs(30)));
    for remote in sessions {
        remote.end_stdin();
        assert_eq!(remote.finish().code(), Some(0));
    }
    pod.end();
    world.finish();
}

#[test]
fn more_streams_than_are_allowed_are_refused() {
    let world = world();
    let pod = world.pod("streams");
    let mut spdy = world.spdy(&world.forward_url(&pod.id, &[]).unwrap(), PROTOCOL);
    let writer = spdy.writer.clone();
    const MORE: usize = 20;
    let opening = std::thread::spawn(move || {
        for number in 0..MAX_STREAMS + MORE {
            let number = number.to_string();
            writer
                .open(&[("streamtype", "error"), ("port", "80"), ("requestid", &number)])
                .unwrap();
        }
    });
    let (mut taken, mut refused) = (0, 0);
    while taken + refused < MAX_STREAMS + MORE {
        match spdy.read().unwrap() {
            Frame::Control { kind: SYN_REPLY, .. } => taken += 1,
            Frame::Control { kind: RST_STREAM, .. } => refused += 1,
            Frame::Control { .. } | Frame::Data { .. } => {}
        }
    }
    opening.join().unwrap();
    assert_eq!((taken, refused), (MAX_STREAMS, MORE));
    pod.end();
    world.finish();
}

#[test]
fn heads_and_messages_that_are_too_large() {
    let world = world();
    world.pull(BUSYBOX);
    let pod = world.pod("large");
    let id = pod.run(container("c", BUSYBOX, &[]));
    let many: String = (0..100).map(|number| format!("X-{number}: y\r\n")).collect();
    for more in [many, format!("X: {}\r\n", "y".repeat(20 << 10))] {
        let url = world.exec_url(&id, &["true"], OUTPUT).unwrap();
        let (address, path) = parts(&url);
        let mut socket = world.connect(address).unwrap();
        let _ = write!(socket, "POST {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n");
        let mut answer = String::new();
        let _ = socket.read_to_string(&mut answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    // One message beyond a megabyte ends its connection and the command.
    let url = world.exec_url(&id, &["sleep", "4242"], ALL).unwrap();
    let mut socket = world.websocket(&url, &["v5.channel.k8s.io"]);
    let _ = socket.binary(&vec![0; (1 << 20) + 1]);
    socket.finish();
    eventually("the command to be gone", || {
        (!world.exec(&id, "ps").contains("sleep 4242")).then_some(())
    });
    pod.end();
    world.finish();
}

#[test]
fn who_does_not_say_what_it_wants_is_let_go() {
    let world = configured("tls = false");
    let pod = world.pod("silent");
    let url = world.forward_url(&pod.id, &[]).unwrap();
    let (address, path) = parts(&url);
    let silent = world.connect(address).unwrap();
    let mut half = world.connect(address).unwrap();
    write!(half, "POST {path} HTTP/1.1\r\nHos").unwrap();
    for mut socket in [silent, half] {
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{answer:?}");
    }
    pod.end();
    world.finish();
}

#[test]
fn what_nobody_reads_is_buffered_up_to_a_limit() {
    /// The server's buffers, and what two sockets and a FIFO hold at most.
    const MAX: usize = 24 << 20;
    let world = world();
    world.pull(BUSYBOX);
    let pod = world.pod("buffers");
    let id = pod.run(container("c", BUSYBOX, &[]));
    let remote = world.remote_exec(&id, &["sleep", "4242"], ALL);
    let (writer, stdin) = (remote.writer(), remote.stdin.unwrap());
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = sent.clone();
    let filling = std::thread::spawn(move || {
        while writer.data(stdin, &[0; 1 << 16], false).is_ok() {
            counted.fetch_add(1 << 16, std::sync::atomic::Ordering::Relaxed);
        }
    });
    let mut before = (0, Instant::now());
    within(Duration::from_secs(40), "the client to be stopped", || {
        let now = sent.load(std::sync::atomic::Ordering::Relaxed);
        assert!(now < MAX, "{now} bytes were taken");
        if now != before.0 {
            before = (now, Instant::now());
        }
        (now > 0 && before.1.elapsed() > Duration::from_secs(2)).then_some(())
    });
    remote.writer().hang_up();
    filling.join().unwrap();
    pod.end();
    world.finish();
}
