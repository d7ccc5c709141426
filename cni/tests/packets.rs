//! Packets take the way that the rules say: in by the host's ports, out with the host's address.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cni::{Attachment, Network, PortMapping, netns};
use support::{Node, PATIENCE, eventually, soon};

const HOST: &str = "192.0.2.1";
const OUTSIDE: &str = "192.0.2.2";
/// How long an answer may take before the question is asked again.
const ANSWER: Duration = Duration::from_millis(500);

/// A second machine, on a link with the node. It knows no way to the pods.
fn outside(node: &Node) -> PathBuf {
    let path = node.netns("outside");
    netns::create(&path).unwrap();
    let ip = |args: String| {
        assert!(Command::new("ip").args(args.split(' ')).status().unwrap().success(), "{args}");
    };
    // `ip` takes a namespace by a file, so long as that is of a process.
    node.run(|| {
        ip("link add name up0 type veth peer name up1".to_owned());
        ip(format!("addr add {HOST}/24 dev up0"));
        ip("link set up0 up".to_owned());
        let file = std::fs::File::open(&path).unwrap();
        let pid = std::process::id();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        ip(format!("link set up1 netns /proc/{pid}/fd/{fd}"));
    });
    netns::run_in(&path, || {
        ip(format!("addr add {OUTSIDE}/24 dev up1"));
        ip("link set up1 up".to_owned());
    })
    .unwrap();
    path
}

fn mapped(mut pod: Attachment, host: u16, container: u16, protocol: &str) -> Attachment {
    pod.capabilities.port_mappings = vec![PortMapping {
        host_port: host,
        container_port: container,
        protocol: protocol.into(),
        host_ip: String::new(),
    }];
    pod
}

fn at(addr: &str, port: u16) -> SocketAddr {
    (addr.parse::<IpAddr>().unwrap(), port).into()
}

/// Listens at `listen` in one namespace, dials from another, and gives who dialled as the listener sees it.
fn seen(server: &Path, listen: SocketAddr, client: &Path, dial: SocketAddr) -> IpAddr {
    // The one before may be open for a moment more, in a process that another test is starting.
    let made = std::cell::OnceCell::new();
    eventually("the port is free", || {
        match netns::run_in(server, || TcpListener::bind(listen)).unwrap() {
            Err(e) if e.kind() == ErrorKind::AddrInUse => false,
            bound => made.set(bound.unwrap()).is_ok(),
        }
    });
    let listener = made.into_inner().unwrap();
    let accepting = std::thread::spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        stream.write_all(b"hello").unwrap();
        peer.ip()
    });
    let text = netns::run_in(client, || {
        let mut stream = TcpStream::connect_timeout(&dial, PATIENCE)
            .unwrap_or_else(|e| panic!("dial {dial} for {listen}: {e}"));
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    assert_eq!(text.unwrap(), "hello");
    accepting.join().unwrap()
}

#[test]
fn a_port_of_the_host_leads_in_and_the_way_out_is_masqueraded() {
    let node = Node::in_process();
    let outside = outside(&node);
    // Where the kernel filters what is bridged, a pod reaches itself only by a port that sends back.
    let list = String::from_utf8(node.bridge().bytes().to_vec()).unwrap();
    let list = list.replace("\"isDefaultGateway\"", "\"hairpinMode\":true,\"isDefaultGateway\"");
    let network = Network::parse(list.as_bytes()).unwrap();
    let pod = mapped(node.pod("pod1"), 18080, 80, "tcp");
    let result = node.run(|| node.runtime.add(&network, &pod, &soon())).unwrap();
    let ip = result.addresses("eth0")[0];
    let inside = pod.netns.clone().unwrap();
    let peer = seen(&inside, (ip, 80).into(), &outside, at(HOST, 18080));
    assert_eq!(peer.to_string(), OUTSIDE, "who comes in is seen as who it is");
    let peer = seen(&outside, at(OUTSIDE, 7000), &inside, at(OUTSIDE, 7000));
    assert_eq!(peer.to_string(), HOST, "who goes out is seen as the host");
    // A pod reaches itself by the host's port, and the host its pod by the loopback.
    let gateway = seen(&inside, (ip, 80).into(), &inside, at(HOST, 18080));
    assert_eq!(gateway.to_string(), "10.77.0.1");
    seen(&inside, (ip, 80).into(), &node.netns("host"), at("127.0.0.1", 18080));
    node.run(|| node.runtime.del(&network, &pod, &soon())).unwrap();
    for id in ["pod1", "outside"] {
        node.remove_netns(id);
    }
    node.assert_clean();
}

#[test]
fn datagrams_that_went_astray_find_the_pod_when_it_comes() {
    let node = Node::in_process();
    let outside = outside(&node);
    let network = node.bridge();
    let other = mapped(node.pod("pod1"), 18081, 80, "tcp");
    node.run(|| node.runtime.add(&network, &other, &soon())).unwrap();
    let client = netns::run_in(&outside, || UdpSocket::bind((OUTSIDE, 0))).unwrap().unwrap();
    client.set_read_timeout(Some(ANSWER)).unwrap();
    // The kernel remembers that these go to the node itself, where nobody listens.
    client.send_to(b"lost", (HOST, 1053)).unwrap();
    let pod = mapped(node.pod("pod2"), 1053, 53, "udp");
    let result = node.run(|| node.runtime.add(&network, &pod, &soon())).unwrap();
    let listen = (result.addresses("eth0")[0], 53);
    let server = netns::run_in(pod.netns.as_ref().unwrap(), || UdpSocket::bind(listen));
    let server = server.unwrap().unwrap();
    server.set_read_timeout(Some(ANSWER)).unwrap();
    // The socket that was remembered, so the same flow.
    eventually("no datagram reached the pod", || {
        let _ = client.send_to(b"found", (HOST, 1053));
        let mut buffer = [0; 16];
        server
            .recv_from(&mut buffer)
            .is_ok_and(|(len, peer)| buffer[..len] == *b"found" && peer.ip().to_string() == OUTSIDE)
    });
    for pod in [&other, &pod] {
        node.run(|| node.runtime.del(&network, pod, &soon())).unwrap();
    }
    for id in ["pod1", "pod2", "outside"] {
        node.remove_netns(id);
    }
    node.assert_clean();
}

#[test]
fn all_of_it_on_the_older_kind_of_tables() {
    support::tables::all_on(cni::Engine::Legacy, "all_of_it_on_the_older_kind_of_tables");
}
