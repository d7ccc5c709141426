//! Exec, attach and port-forward over WebSocket.

use std::io::Write;

use e2e::eventually;
use e2e::image::catalogue::{BUSYBOX, WEB};
use e2e::pod::{container, shell};
use e2e::stream::{ALL, OUTPUT, TERMINAL};
use e2e::websocket::Message;
use serde_json::Value;

use crate::world;

const V5: &str = "v5.channel.k8s.io";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn exec_in_every_version() {
    let world = world();
    world.pull(BUSYBOX);
    let pod = world.pod("websocket");
    let id = pod.run(container("c", BUSYBOX, &[]));
    let open = |line, wanted, protocols: &[&str]| {
        let url = world.exec_url(&id, &shell(line), wanted).unwrap();
        world.websocket(&url, protocols)
    };
    for protocol in [V5, "v4.channel.k8s.io", "channel.k8s.io", ""] {
        let offered: &[&str] = if protocol.is_empty() { &[] } else { &[protocol] };
        let mut session = open("echo out; echo err >&2; exit 3", OUTPUT, offered);
        assert_eq!(session.protocol, protocol);
        assert_eq!(session.read().unwrap(), Message::Binary(vec![1]), "an empty message first");
        let channels = session.finish();
        assert_eq!((text(&channels[1]), text(&channels[2])), ("out\n".into(), "err\n".into()));
        if protocol.starts_with('v') {
            let status: Value = serde_json::from_slice(&channels[3]).unwrap();
            assert_eq!(status["details"]["causes"][0]["message"], "3");
        } else {
            assert!(text(&channels[3]).ends_with("exit code 3"), "{}", text(&channels[3]));
        }
    }
    // base64: `hi` and the status.
    let mut session = open("printf hi", OUTPUT, &["v4.base64.channel.k8s.io"]);
    let mut seen = Vec::new();
    while let Ok(message) = session.read() {
        match message {
            Message::Text(text) => seen.push(text),
            _ => break,
        }
    }
    assert_eq!(seen[..2], ["1", "1aGk="]);
    assert!(seen[2].starts_with('3'), "{seen:?}");
    // The end of a single channel.
    let mut session = open("wc -c; echo after", ALL, &[V5]);
    session.binary(b"\x00hello").unwrap();
    session.binary(&[255, 0]).unwrap();
    assert_eq!(text(&session.finish()[1]), "5\nafter\n");
    let mut session = open("stty size; read line; stty size", TERMINAL, &[V5]);
    session.binary(b"\x04{\"Width\":77,\"Height\":11}").unwrap();
    session.binary(b"\x00go\n").unwrap();
    assert!(text(&session.finish()[1]).contains("11 77"));
    pod.end();
    world.finish();
}

#[test]
fn pings_are_answered_and_leaving_kills() {
    let world = world();
    world.pull(BUSYBOX);
    let pod = world.pod("ping");
    let id = pod.run(container("c", BUSYBOX, &[]));
    let url = world.exec_url(&id, &["sleep", "4242"], ALL).unwrap();
    let mut session = world.websocket(&url, &[V5]);
    session.ping(b"there?").unwrap();
    while session.read().unwrap() != Message::Pong(b"there?".to_vec()) {}
    let runs = || world.exec(&id, "ps").contains("sleep 4242");
    eventually("the command to run", || runs().then_some(()));
    session.hang_up();
    eventually("the command to be gone", || (!runs()).then_some(()));
    let line = "while :; do echo on; usleep 100000; done";
    let prints = pod.run(container("prints", BUSYBOX, &shell(line)));
    let attached = world.attach_url(&prints, OUTPUT).unwrap();
    let mut session = world.websocket(&attached, &[V5]);
    while session.read().unwrap() != Message::Binary(b"\x01on\n".to_vec()) {}
    world.stop_container(&prints, 0).unwrap();
    assert!(text(&session.finish()[3]).contains("Success"));
    pod.end();
    world.finish();
}

#[test]
fn ports_as_channels() {
    let world = world();
    world.pull(WEB);
    let pod = world.pod("web");
    let id = pod.run(container("c", WEB, &[]));
    eventually("the pod to listen", || {
        world.exec(&id, "netstat -ltn").contains(":80 ").then_some(())
    });
    let url = world.forward_url(&pod.id, &[81, 80]).unwrap();
    let mut session = world.websocket(&url, &[V5]);
    session.binary(b"\x02GET / HTTP/1.0\r\n\r\n").unwrap();
    session.binary(&[255, 2]).unwrap();
    session.binary(&[255, 0]).unwrap();
    let channels = session.finish();
    let told = |channel: usize| {
        (
            u16::from_le_bytes([channels[channel][0], channels[channel][1]]),
            text(&channels[channel][2..]),
        )
    };
    assert_eq!(told(0), (81, String::new()));
    assert!(told(1).0 == 81 && told(1).1.contains("connect: "), "{:?}", told(1));
    assert!(told(2).0 == 80 && told(2).1.ends_with("hello from podwright\n"), "{:?}", told(2));
    assert_eq!(told(3), (80, String::new()));
    pod.end();
    world.finish();
}

#[test]
fn what_is_refused() {
    let world = world();
    world.pull(BUSYBOX);
    let pod = world.pod("refused");
    let id = pod.run(container("c", BUSYBOX, &[]));
    let status = |extra: &str| {
        let url = world.exec_url(&id, &["true"], OUTPUT).unwrap();
        let (address, path) = e2e::stream::parts(&url);
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{extra}\r\n"
        );
        e2e::stream::request(world.connect(address).unwrap(), &head).unwrap().status
    };
    assert_eq!(status(""), 400);
    assert_eq!(status("Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: eA==\r\n"), 400);
    let handshake = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    assert_eq!(status(&format!("{handshake}Sec-WebSocket-Protocol: v9.channel.k8s.io\r\n")), 403);
    // A head that does not end, and one that is too long.
    let url = world.exec_url(&id, &["true"], OUTPUT).unwrap();
    let (address, _) = e2e::stream::parts(&url);
    let mut socket = world.connect(address).unwrap();
    let long = format!("GET /x HTTP/1.1\r\nA: {}\r\n", "x".repeat(1 << 20));
    let _ = socket.write_all(long.as_bytes());
    let mut answer = Vec::new();
    let _ = std::io::Read::read_to_end(&mut socket, &mut answer);
    assert!(!text(&answer).starts_with("HTTP/1.1 2"), "{}", text(&answer));
    pod.end();
    world.finish();
}
