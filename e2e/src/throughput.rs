//! How fast bytes go there and back: through exec, through port-forward, and through a plain proxy to the same server.
//!
//! One generator for all of them, which only writes a buffer that is ready and reads into another.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Instant;

use crate::image::catalogue::BUSYBOX;
use crate::pod::{container, shell};
use crate::poll::eventually;
use crate::spdy::{Frame, Spdy};
use crate::stream::ALL;
use crate::world::World;

const PORT: u16 = 7000;
/// What clients write at a time.
const PART: usize = 32 << 10;
const PARTS: usize = 32;

/// In megabytes a second.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    pub exec: f64,
    pub forward: f64,
    /// A thread for each direction between two sockets.
    pub proxy: f64,
    /// Without anything between.
    pub direct: f64,
}

/// Sends so many bytes to a `cat` in each way. Needs busybox pulled.
pub fn measure(world: &World, length: usize) -> Rates {
    let pod = world.pod("throughput");
    let line = format!("exec nc -ll -p {PORT} -e cat");
    let id = pod.run(container("c", BUSYBOX, &shell(&line)));
    eventually("the pod to listen", || {
        world.exec(&id, "netstat -ltn").contains(&format!(":{PORT} ")).then_some(())
    });
    let server = SocketAddr::new(pod.ip().parse().expect("an address"), PORT);
    let remote = world.remote_exec(&id, &["cat"], ALL);
    let (stdin, stdout) = (remote.stdin.expect("wanted"), remote.stdout.expect("wanted"));
    let exec = framed(remote.spdy, stdin, stdout, length);
    let url = world.forward_url(&pod.id, &[]).expect("PortForward");
    let spdy = world.spdy(&url, "portforward.k8s.io");
    let open = |kind| {
        let headers = [("streamtype", kind), ("port", "7000"), ("requestid", "0")];
        spdy.writer.open(&headers).expect("the server reads")
    };
    let (error, data) = (open("error"), open("data"));
    spdy.writer.end(error).expect("the server reads");
    let forward = framed(spdy, data, data, length);
    let proxy = plain(through_proxy(world.connect(server).expect("it listens")), length);
    let direct = plain(world.connect(server).expect("it listens"), length);
    pod.end();
    Rates { exec, forward, proxy, direct }
}

fn rate(length: usize, start: Instant) -> f64 {
    length as f64 / start.elapsed().as_secs_f64() / 1e6
}

/// Frames of one stream there, of another back.
fn framed(mut spdy: Spdy, to: u32, from: u32, length: usize) -> f64 {
    let head = [to.to_be_bytes(), (PART as u32).to_be_bytes()].concat();
    let burst = [head, vec![7; PART]].concat().repeat(PARTS);
    let writer = spdy.writer.clone();
    let start = Instant::now();
    let writing = std::thread::spawn(move || {
        for _ in 0..length / (PART * PARTS) {
            writer.raw(&burst).expect("the server reads");
        }
        writer.end(to).expect("the server reads");
    });
    let mut count = 0;
    while count < length {
        if let Frame::Data { id, bytes, .. } = spdy.read().expect("the server answers")
            && id == from
        {
            count += bytes.len();
        }
    }
    writing.join().expect("writing does not panic");
    rate(length, start)
}

fn plain(mut socket: TcpStream, length: usize) -> f64 {
    let mut writer = socket.try_clone().expect("a socket can be shared");
    let start = Instant::now();
    let writing = std::thread::spawn(move || {
        let burst = vec![7; PART * PARTS];
        for _ in 0..length / burst.len() {
            writer.write_all(&burst).expect("the server reads");
        }
        writer.shutdown(Shutdown::Write).expect("a socket");
    });
    let (mut count, mut buffer) = (0, vec![0; PART * PARTS]);
    while count < length {
        let more = socket.read(&mut buffer).expect("the server answers");
        assert_ne!(more, 0, "it ended after {count} bytes");
        count += more;
    }
    writing.join().expect("writing does not panic");
    rate(length, start)
}

/// A connection to a proxy to that server.
fn through_proxy(server: TcpStream) -> TcpStream {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let client = TcpStream::connect(listener.local_addr().expect("it listens"));
    let (accepted, _) = listener.accept().expect("it was dialled");
    let copy = |mut from: TcpStream, mut to: TcpStream| {
        std::thread::spawn(move || {
            let mut buffer = vec![0; PART];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                if to.write_all(&buffer[..count]).is_err() {
                    return;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
        });
    };
    let shared = |socket: &TcpStream| socket.try_clone().expect("a socket can be shared");
    copy(shared(&accepted), shared(&server));
    copy(server, accepted);
    client.expect("it listens")
}
