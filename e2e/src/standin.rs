//! A registry that does what a test tells it to: it listens in a world's network, and its threads are the test's.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::image::{Image, digest};
use crate::world::World;

/// Between two looks at whether the test is over.
const GLANCE: Duration = Duration::from_millis(5);
/// Between two bytes of a trickle: far below what a registry has to bring.
const DRIP: Duration = Duration::from_millis(50);
/// Longest head of a request.
const MAX_HEAD: usize = 64 << 10;

/// What becomes of the answer to one request for a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trick {
    /// So many bytes of it, and the connection ends.
    Cut(usize),
    /// So many bytes, and nothing more, on a connection that stays.
    Stall(usize),
    /// So many bytes, and then one now and then.
    Trickle(usize),
    /// The blob's byte at this offset is another, if it is in the answer.
    Corrupt(usize),
}

#[derive(Debug, Default)]
struct State {
    manifests: HashMap<String, Vec<u8>>,
    blobs: HashMap<String, Arc<Vec<u8>>>,
    /// By digest, for one request each.
    tricks: HashMap<String, VecDeque<Trick>>,
    always: HashMap<String, Trick>,
    /// A part is answered with the whole.
    whole: bool,
    /// Range headers of requests for blobs; empty where there was none.
    seen: Vec<String>,
}

/// The registry; it ends with its value.
#[derive(Debug)]
pub struct StandIn {
    pub host: String,
    state: Arc<Mutex<State>>,
    over: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl StandIn {
    /// Listens on a port of the world's own loopback.
    pub fn start(world: &World, port: u16) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = world.listen(address).expect("the port is free");
        listener.set_nonblocking(true).expect("a socket can be set");
        let (state, over): (Arc<Mutex<State>>, Arc<AtomicBool>) = Default::default();
        let (shared, ends) = (state.clone(), over.clone());
        let accepting = std::thread::spawn(move || accept(&listener, &shared, &ends));
        Self { host: address.to_string(), state, over, accepting: Some(accepting) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves an image as `name:1`; returns its reference.
    pub fn put(&self, name: &str, image: &Image) -> String {
        let mut state = self.state();
        for blob in image.layers.iter().chain([&image.config]) {
            state.blobs.insert(digest(blob), Arc::new(blob.clone()));
        }
        for reference in ["1".to_owned(), image.digest()] {
            state.manifests.insert(format!("{name}/manifests/{reference}"), image.manifest.clone());
        }
        format!("{}/{name}:1", self.host)
    }

    /// The next request for the blob that has no trick yet is answered so.
    pub fn once(&self, digest: &str, trick: Trick) {
        self.state().tricks.entry(digest.to_owned()).or_default().push_back(trick);
    }

    /// Every request for the blob is answered so.
    pub fn always(&self, digest: &str, trick: Trick) {
        self.state().always.insert(digest.to_owned(), trick);
    }

    /// Parts are no longer served: whoever asks for one gets the whole.
    pub fn serve_wholes(&self) {
        self.state().whole = true;
    }

    /// The Range headers of all requests for blobs so far, empty where there was none.
    pub fn seen(&self) -> Vec<String> {
        self.state().seen.clone()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn accept(listener: &TcpListener, state: &Arc<Mutex<State>>, over: &Arc<AtomicBool>) {
    while !over.load(Ordering::Relaxed) {
        let Ok((stream, _)) = listener.accept() else {
            std::thread::sleep(GLANCE);
            continue;
        };
        let (state, over) = (state.clone(), over.clone());
        // What the client does to the connection is none of our concern.
        std::thread::spawn(move || answer(stream, &state, &over).ok());
    }
}

/// Where a request's answer comes from.
enum Found {
    Manifest(Vec<u8>),
    Blob { blob: Arc<Vec<u8>>, part: Option<Range<usize>>, trick: Option<Trick> },
}

/// One request, one connection.
fn answer(mut stream: TcpStream, state: &Mutex<State>, over: &AtomicBool) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    let head = head(&mut stream)?;
    let path = head.split(' ').nth(1).unwrap_or_default().trim_start_matches("/v2/").to_owned();
    let path = path.split('?').next().unwrap_or_default();
    let range = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("range").then(|| value.trim().to_owned())
    });
    let found = look(&mut state.lock().unwrap_or_else(PoisonError::into_inner), path, range);
    match found {
        None => stream
            .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
        Some(Found::Manifest(bytes)) => {
            let length = bytes.len();
            let kind = crate::image::MANIFEST;
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
            )?;
            stream.write_all(&bytes)
        }
        Some(Found::Blob { blob, part, trick }) => {
            let size = blob.len();
            let Range { start, end } = part.clone().unwrap_or(0..size);
            let (status, of) = match part {
                Some(_) => (
                    "206 Partial Content",
                    format!("Content-Range: bytes {start}-{}/{size}\r\n", end - 1),
                ),
                None => ("200 OK", String::new()),
            };
            let length = end - start;
            write!(
                stream,
                "HTTP/1.1 {status}\r\n{of}Content-Length: {length}\r\nConnection: close\r\n\r\n"
            )?;
            send(&mut stream, &blob[start..end], start, trick, over)
        }
    }
}

fn head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_HEAD {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
        // Who tries TLS first shall soon know better.
        if !head[0].is_ascii_uppercase() {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn look(state: &mut State, path: &str, range: Option<String>) -> Option<Found> {
    if let Some(manifest) = state.manifests.get(path) {
        return Some(Found::Manifest(manifest.clone()));
    }
    let (_, digest) = path.split_once("/blobs/")?;
    let blob = state.blobs.get(digest)?.clone();
    state.seen.push(range.clone().unwrap_or_default());
    let trick = state.tricks.get_mut(digest).and_then(VecDeque::pop_front);
    let trick = trick.or(state.always.get(digest).copied());
    let part = range.filter(|_| !state.whole).and_then(|range| {
        let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
        let end = to.parse().map_or(blob.len(), |last: usize| last + 1).min(blob.len());
        Some(from.parse().ok()?..end)
    });
    Some(Found::Blob { blob, part, trick })
}

fn send(
    stream: &mut TcpStream,
    body: &[u8],
    offset: usize,
    trick: Option<Trick>,
    over: &AtomicBool,
) -> io::Result<()> {
    match trick {
        None => stream.write_all(body),
        Some(Trick::Cut(after)) => stream.write_all(&body[..after.min(body.len())]),
        Some(Trick::Corrupt(at)) => {
            let mut body = body.to_vec();
            if let Some(byte) = at.checked_sub(offset).and_then(|at| body.get_mut(at)) {
                *byte ^= 0xff;
            }
            stream.write_all(&body)
        }
        Some(Trick::Stall(after)) => {
            stream.write_all(&body[..after.min(body.len())])?;
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(DRIP);
            }
            Ok(())
        }
        Some(Trick::Trickle(after)) => {
            let (first, rest) = body.split_at(after.min(body.len()));
            stream.write_all(first)?;
            for byte in rest {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                stream.write_all(&[*byte])?;
                std::thread::sleep(DRIP);
            }
            Ok(())
        }
    }
}
