//! A SPDY/3.1 client of the tests' own: plain enough to break every rule with it.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flate2::{Compress, Compression, FlushCompress};

/// Nothing in a test waits longer for a byte.
const PATIENCE: Duration = Duration::from_secs(60);

pub const SYN_STREAM: u16 = 1;
pub const SYN_REPLY: u16 = 2;
pub const RST_STREAM: u16 = 3;
pub const PING: u16 = 6;
pub const GOAWAY: u16 = 7;

/// What the server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Control { kind: u16, payload: Vec<u8> },
    Data { id: u32, bytes: Vec<u8>, end: bool },
}

impl Frame {
    /// The stream that a control frame is about.
    pub fn id(&self) -> u32 {
        match self {
            Self::Data { id, .. } => *id,
            Self::Control { payload, .. } => {
                payload.first_chunk::<4>().map_or(0, |id| u32::from_be_bytes(*id))
            }
        }
    }
}

/// The writing side, which may be shared with another thread.
#[derive(Debug, Clone)]
pub struct Writer {
    socket: Arc<TcpStream>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    headers: Compress,
    next: u32,
}

impl Writer {
    /// Opens a stream with these headers; its number.
    pub fn open(&self, headers: &[(&str, &str)]) -> io::Result<u32> {
        let mut state = self.state.lock().expect("nobody panics with it");
        let id = state.next;
        state.next += 2;
        let block = block(&mut state.headers, headers);
        self.control(SYN_STREAM, &[&id.to_be_bytes()[..], &[0; 6], &block].concat())?;
        Ok(id)
    }

    pub fn data(&self, id: u32, bytes: &[u8], end: bool) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).expect("fits a frame") | u32::from(end) << 24;
        let mut frame = [id.to_be_bytes(), length.to_be_bytes()].concat();
        frame.extend_from_slice(bytes);
        self.raw(&frame)
    }

    pub fn end(&self, id: u32) -> io::Result<()> {
        self.data(id, b"", true)
    }

    pub fn reset(&self, id: u32) -> io::Result<()> {
        self.control(RST_STREAM, &[id.to_be_bytes(), 5_u32.to_be_bytes()].concat())
    }

    pub fn ping(&self, id: u32) -> io::Result<()> {
        self.control(PING, &id.to_be_bytes())
    }

    pub fn control(&self, kind: u16, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).expect("fits a frame");
        let head = [&0x8003_u16.to_be_bytes()[..], &kind.to_be_bytes(), &length.to_be_bytes()];
        self.raw(&[&head.concat()[..], payload].concat())
    }

    pub fn raw(&self, bytes: &[u8]) -> io::Result<()> {
        (&*self.socket).write_all(bytes)
    }

    /// Hangs up, both ways.
    pub fn hang_up(&self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }

    /// Hangs up with a reset instead of an orderly end.
    pub fn abort(self) {
        rustix::net::sockopt::set_socket_linger(&*self.socket, Some(Duration::ZERO))
            .expect("a socket");
    }
}

/// Headers as zlib without the protocol's dictionary, which a reader has to take too.
fn block(deflate: &mut Compress, headers: &[(&str, &str)]) -> Vec<u8> {
    let number = |n: usize| u32::try_from(n).expect("few headers").to_be_bytes();
    let mut plain = number(headers.len()).to_vec();
    for text in headers.iter().flat_map(|(name, value)| [name, value]) {
        plain.extend(number(text.len()));
        plain.extend_from_slice(text.as_bytes());
    }
    let mut out = Vec::with_capacity(plain.len() + 1024);
    deflate.compress_vec(&plain, &mut out, FlushCompress::Sync).expect("zlib compresses");
    out
}

/// A connection after its upgrade.
#[derive(Debug)]
pub struct Spdy {
    pub writer: Writer,
    reader: BufReader<TcpStream>,
}

impl Spdy {
    /// `reader` may hold what came after the upgrade's answer.
    pub fn new(reader: BufReader<TcpStream>) -> Self {
        let socket = reader.get_ref();
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        socket.set_write_timeout(Some(PATIENCE)).expect("a socket");
        socket.set_nodelay(true).expect("a socket");
        let socket = Arc::new(socket.try_clone().expect("a socket can be shared"));
        let headers = Compress::new(Compression::default(), true);
        let state = Arc::new(Mutex::new(State { headers, next: 1 }));
        Self { writer: Writer { socket, state }, reader }
    }

    /// The next frame; an error when the server has hung up.
    pub fn read(&mut self) -> io::Result<Frame> {
        let mut head = [0; 8];
        self.reader.read_exact(&mut head)?;
        let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]);
        let mut bytes = vec![0; usize::try_from(length).expect("24 bits")];
        self.reader.read_exact(&mut bytes)?;
        if first >> 31 == 0 {
            return Ok(Frame::Data { id: first, bytes, end: head[4] & 1 != 0 });
        }
        assert_eq!(first >> 16, 0x8003, "the version is 3");
        Ok(Frame::Control { kind: u16::from_be_bytes([head[2], head[3]]), payload: bytes })
    }

    /// Reads until `wanted`; panics when the server hangs up before.
    pub fn until(&mut self, what: &str, mut wanted: impl FnMut(&Frame) -> bool) -> Frame {
        loop {
            let frame = self.read().unwrap_or_else(|err| panic!("waiting for {what}: {err}"));
            if wanted(&frame) {
                return frame;
            }
        }
    }
}
