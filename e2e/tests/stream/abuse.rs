//! Many, much, and ill meant. `PODWRIGHT_FULL=1` takes the whole counts; without it they fit a CI run.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use e2e::image::catalogue::BUSYBOX;
use e2e::pod::{container, shell};
use e2e::spdy::{Frame, SYN_STREAM};
use e2e::stream::{ALL, OUTPUT, Remote, V4};
use e2e::{World, eventually, within};
use sha2::{Digest, Sha256};
use tonic::Code;

use crate::forward::{PROTOCOL, finish, pair};
use crate::world;

fn full(of: usize, usual: usize) -> usize {
    if std::env::var_os("PODWRIGHT_FULL").is_some() { of } else { usual }
}

/// Bytes that do not repeat where buffers end.
fn pattern(length: usize) -> impl Iterator<Item = Vec<u8>> {
    const PART: usize = 48 * 1024 + 7;
    (0..length.div_ceil(PART)).map(move |part| {
        let begin = part * PART;
        (begin..length.min(begin + PART))
            .map(|at| (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0])
            .collect()
    })
}

fn rate(length: usize, took: Duration) -> f64 {
    length as f64 / took.as_secs_f64() / 1e6
}

/// The same bytes through a thread that copies between two sockets, and back.
fn plain_proxy(length: usize) -> f64 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let echo = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut writer = socket.try_clone().unwrap();
        std::io::copy(&mut socket, &mut writer).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut socket = std::net::TcpStream::connect(address).unwrap();
    let mut writer = socket.try_clone().unwrap();
    let start = Instant::now();
    let writing = std::thread::spawn(move || {
        for part in pattern(length) {
            writer.write_all(&part).unwrap();
        }
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut got = 0;
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = socket.read(&mut buffer) {
        got += count;
    }
    assert_eq!(got, length);
    writing.join().unwrap();
    echo.join().unwrap();
    rate(length, start.elapsed())
}

fn digest_of(parts: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut digest = Sha256::new();
    parts.for_each(|part| digest.update(part));
    digest.finalize().to_vec()
}

#[test]
fn much_comes_back_as_it_went() {
    let length = full(1 << 30, 48 << 20);
    let world = world();
    world.pull(BUSYBOX);
    let pod = world.pod("much");
    let id = pod.run(container("c", BUSYBOX, &shell("exec nc -ll -p 7000 -e cat")));
    let sent = digest_of(pattern(length));
    let mut remote = world.remote_exec(&id, &["cat"], ALL);
    let (writer, stdin) = (remote.writer(), remote.stdin.unwrap());
    let start = Instant::now();
    let writing = std::thread::spawn(move || {
        for part in pattern(length) {
            writer.data(stdin, &part, false).unwrap();
        }
        writer.end(stdin).unwrap();
    });
    let (mut digest, mut count) = (Sha256::new(), 0);
    let ended = remote.finish_with(|bytes| {
        digest.update(bytes);
        count += bytes.len();
    });
    writing.join().unwrap();
    let exec = rate(length, start.elapsed());
    assert_eq!((count, ended.code()), (length, Some(0)));
    assert_eq!(digest.finalize().to_vec(), sent);

    eventually("the pod to listen", || {
        world.exec(&id, "netstat -ltn").contains(":7000 ").then_some(())
    });
    let mut spdy = world.spdy(&world.forward_url(&pod.id, &[]).unwrap(), PROTOCOL);
    let forwarded = pair(&spdy, 7000, 0);
    let writer = spdy.writer.clone();
    let start = Instant::now();
    let writing = std::thread::spawn(move || {
        for part in pattern(length) {
            writer.data(forwarded.data, &part, false).unwrap();
        }
        writer.end(forwarded.data).unwrap();
    });
    let (mut digest, mut over) = (Sha256::new(), false);
    while !over {
        match spdy.read().unwrap() {
            Frame::Data { id, bytes, end } if id == forwarded.data => {
                digest.update(&bytes);
                over = end;
            }
            Frame::Data { id, bytes, .. } => {
                assert!(bytes.is_empty(), "{id}: {}", String::from_utf8_lossy(&bytes));
            }
            Frame::Control { .. } => {}
        }
    }
    writing.join().unwrap();
    let forward = rate(length, start.elapsed());
    assert_eq!(digest.finalize().to_vec(), sent);
    let plain = plain_proxy(length);
    println!(
        "MB/s there and back, {} MiB: exec {exec:.0}, port-forward {forward:.0}, a plain TCP echo {plain:.0}",
        length >> 20
    );
    pod.end();
    world.finish();
}

#[test]
fn many_sessions_at_once() {
    let count = full(500, 60);
    let world = world();
    world.pull(BUSYBOX);
    let pod = world.pod("many");
    let id = pod.run(container("c", BUSYBOX, &[]));
    let mut sessions: Vec<Remote> = Vec::new();
    for number in 0..count {
        let mut remote = world.remote_exec(&id, &["cat"], ALL);
        remote.type_in(&format!("session {number}\n"));
        remote.until(&format!("session {number}\n"));
        sessions.push(remote);
    }
    for remote in &sessions {
        remote.end_stdin();
    }
    for remote in sessions {
        assert_eq!(remote.finish().code(), Some(0));
    }
    pod.end();
    world.finish();
}

/// Resident, in KiB.
fn memory(world: &World) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", world.daemon_pid().unwrap())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().split(' ').next().unwrap().parse().unwrap()
}

fn descriptors(world: &World) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", world.daemon_pid().unwrap())).unwrap().count()
}

#[test]
fn many_sessions_in_a_row() {
    let count = full(10_000, 150);
    let world = world();
    world.pull(BUSYBOX);
    let pod = world.pod("row");
    let id = pod.run(container("c", BUSYBOX, &[]));
    let one = || assert_eq!(world.remote_exec(&id, &["true"], OUTPUT).finish().code(), Some(0));
    (0..count / 5).for_each(|_| one());
    let settled = |before: usize| {
        within(Duration::from_secs(30), "descriptors to be closed", || {
            (descriptors(&world) <= before).then_some(())
        });
    };
    let (before, held) = (descriptors(&world), memory(&world));
    (0..count).for_each(|_| one());
    settled(before + 4);
    let grown = memory(&world).saturating_sub(held);
    println!("after {count} sessions: {held} KiB and {grown} more");
    assert!(grown < 8 << 10, "{grown} KiB more");
    pod.end();
    world.finish();
}

#[test]
fn a_client_that_does_not_read_costs_little_and_holds_nobody() {
    let world = world();
    world.pull(BUSYBOX);
    let pod = world.pod("unread");
    let id = pod.run(container("c", BUSYBOX, &[]));
    let before = memory(&world);
    let stuck: Vec<Remote> = (0..8).map(|_| world.remote_exec(&id, &["yes"], ALL)).collect();
    for remote in &stuck {
        // Input that nobody takes, beside output that nobody reads.
        remote.type_in(&"x".repeat(40_000));
    }
    for number in 0..20 {
        let line = format!("echo {number}");
        assert_eq!(
            world.remote_exec(&id, &shell(&line), OUTPUT).finish().out(),
            format!("{number}\n")
        );
    }
    let grown = memory(&world).saturating_sub(before);
    assert!(grown < 48 << 10, "{grown} KiB more");
    stuck.iter().for_each(|remote| remote.writer().hang_up());
    eventually("the commands to be gone", || {
        (!world.exec(&id, "ps").contains("yes")).then_some(())
    });
    pod.end();
    world.finish();
}

#[test]
fn what_breaks_the_protocol_ends_its_connection_alone() {
    let world = world();
    world.pull(BUSYBOX);
    let pod = world.pod("broken");
    let id = pod.run(container("c", BUSYBOX, &[]));
    let before = memory(&world);
    let mut bystander = world.remote_exec(&id, &["cat"], ALL);
    bystander.type_in("here\n");
    bystander.until("here\n");
    let bomb = "a".repeat(4 << 20);
    let spoil: [&dyn Fn(&e2e::spdy::Writer); 5] = [
        // A megabyte of headers in a few kilobytes.
        &|writer| drop(writer.open(&[("streamtype", "error"), ("bomb", &bomb)])),
        &|writer| drop(writer.control(SYN_STREAM, &[0; 3])),
        &|writer| drop(writer.control(SYN_STREAM, &[0xff; 64])),
        &|writer| drop(writer.raw(&[0x80, 2, 0, 1, 0, 0, 0, 0])),
        &|writer| drop(writer.raw(&[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff])),
    ];
    for (number, spoil) in spoil.iter().enumerate() {
        let url = world.exec_url(&id, &["sleep", "4242"], ALL).unwrap();
        let mut spdy = world.spdy(&url, V4);
        spoil(&spdy.writer);
        while let Ok(frame) = spdy.read() {
            let good_bye = matches!(frame, Frame::Control { kind: e2e::spdy::GOAWAY, .. });
            assert!(good_bye, "{number}: {frame:?}");
        }
    }
    // Frames for streams that never were, and the same one opened again and again, do no harm.
    let url = world.exec_url(&id, &["cat"], ALL).unwrap();
    let spdy = world.spdy(&url, V4);
    spdy.writer.data(99, b"nobody's", false).unwrap();
    spdy.writer.reset(98).unwrap();
    spdy.writer.control(9, &[0; 8]).unwrap();
    let remote = Remote::open(spdy, ALL, true);
    remote.end_stdin();
    assert_eq!(remote.finish().code(), Some(0));
    bystander.type_in("still\n");
    bystander.until("still\n");
    bystander.end_stdin();
    assert_eq!(bystander.finish().code(), Some(0));
    let grown = memory(&world).saturating_sub(before);
    assert!(grown < 24 << 10, "{grown} KiB more");
    pod.end();
    world.finish();
}

#[test]
fn no_more_tokens_wait_than_are_allowed() {
    let world = world();
    world.pull(BUSYBOX);
    let pod = world.pod("tokens");
    let id = pod.run(container("c", BUSYBOX, &[]));
    let mut urls: Vec<_> =
        (0..1000).map(|_| world.exec_url(&id, &["true"], OUTPUT).unwrap()).collect();
    let refused = world.exec_url(&id, &["true"], OUTPUT).unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let used = urls.pop().unwrap();
    assert_eq!(Remote::open(world.spdy(&used, V4), OUTPUT, true).finish().code(), Some(0));
    world.exec_url(&id, &["true"], OUTPUT).unwrap();
    pod.end();
    world.finish();
}

#[test]
fn a_pod_that_ends_ends_what_leads_into_it() {
    let world = world();
    world.pull(BUSYBOX);
    let pod = world.pod("ends");
    let id = pod.run(container("c", BUSYBOX, &shell("exec nc -ll -p 7000 -e cat")));
    eventually("the pod to listen", || {
        world.exec(&id, "netstat -ltn").contains(":7000 ").then_some(())
    });
    let mut remote = world.remote_exec(&id, &["cat"], ALL);
    remote.type_in("x\n");
    remote.until("x\n");
    let mut spdy = world.spdy(&world.forward_url(&pod.id, &[]).unwrap(), PROTOCOL);
    let forwarded = pair(&spdy, 7000, 0);
    spdy.writer.data(forwarded.data, b"x", false).unwrap();
    spdy.until(
        "the echo",
        |frame| matches!(frame, Frame::Data { id, .. } if *id == forwarded.data),
    );
    pod.stop().unwrap();
    assert_eq!(remote.finish().code(), Some(137));
    finish(&mut spdy, forwarded);
    pod.remove().unwrap();
    world.finish();
}
