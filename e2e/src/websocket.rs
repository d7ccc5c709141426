//! A WebSocket client of the tests' own, as plain as that for SPDY.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;

use crate::stream::{parts, request};
use crate::world::World;

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The server's messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Text(String),
    Binary(Vec<u8>),
    Pong(Vec<u8>),
    Close,
}

/// A connection after its upgrade.
#[derive(Debug)]
pub struct WebSocket {
    reader: BufReader<TcpStream>,
    /// The protocol that the server chose.
    pub protocol: String,
}

impl WebSocket {
    pub fn binary(&self, bytes: &[u8]) -> io::Result<()> {
        self.send(BINARY, bytes)
    }

    pub fn text(&self, text: &str) -> io::Result<()> {
        self.send(TEXT, text.as_bytes())
    }

    pub fn ping(&self, bytes: &[u8]) -> io::Result<()> {
        self.send(PING, bytes)
    }

    pub fn hang_up(&self) {
        let _ = self.reader.get_ref().shutdown(std::net::Shutdown::Both);
    }

    /// One whole message; clients mask theirs.
    fn send(&self, kind: u8, bytes: &[u8]) -> io::Result<()> {
        const MASK: [u8; 4] = [1, 2, 3, 4];
        let mut frame = vec![0x80 | kind];
        match u16::try_from(bytes.len()) {
            Ok(short @ ..126) => frame.push(0x80 | u8::try_from(short).expect("below 126")),
            Ok(middle) => {
                frame.push(0x80 | 126);
                frame.extend(middle.to_be_bytes());
            }
            Err(_) => {
                frame.push(0x80 | 127);
                frame.extend((bytes.len() as u64).to_be_bytes());
            }
        }
        frame.extend(MASK);
        frame.extend(bytes.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        let mut socket = self.reader.get_ref();
        socket.write_all(&frame)
    }

    /// The next message; an error when the server has hung up.
    pub fn read(&mut self) -> io::Result<Message> {
        let mut head = [0; 2];
        self.reader.read_exact(&mut head)?;
        assert!(head[0] & 0x80 != 0, "the server sends whole messages");
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.reader.read_exact(&mut length)?;
                u64::from(u16::from_be_bytes(length))
            }
            127 => {
                let mut length = [0; 8];
                self.reader.read_exact(&mut length)?;
                u64::from_be_bytes(length)
            }
            short => short.into(),
        };
        let mut bytes = vec![0; usize::try_from(length).expect("fits memory")];
        self.reader.read_exact(&mut bytes)?;
        Ok(match head[0] & 0xf {
            TEXT => Message::Text(String::from_utf8(bytes).expect("text")),
            BINARY => Message::Binary(bytes),
            PONG => Message::Pong(bytes),
            CLOSE => {
                // 1000; kubectl takes every other for a failure.
                assert_eq!(bytes.get(..2), Some(&[3, 232][..]), "a close without its code");
                Message::Close
            }
            other => panic!("opcode {other}"),
        })
    }

    /// All that comes on each channel until the server closes.
    pub fn finish(&mut self) -> Vec<Vec<u8>> {
        let mut channels = vec![Vec::new(); 256];
        loop {
            match self.read() {
                Ok(Message::Binary(bytes)) => {
                    channels[usize::from(bytes[0])].extend_from_slice(&bytes[1..]);
                }
                Ok(Message::Close) | Err(_) => return channels,
                Ok(_) => {}
            }
        }
    }
}

impl World {
    /// A WebSocket connection of the first of those protocols that the server speaks.
    pub fn websocket(&self, url: &str, protocols: &[&str]) -> WebSocket {
        let (address, path) = parts(url);
        let offered = match protocols {
            [] => String::new(),
            some => format!("Sec-WebSocket-Protocol: {}\r\n", some.join(", ")),
        };
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{offered}\r\n"
        );
        let answered = request(self.connect(address).expect("it listens"), &head).expect("HTTP");
        assert_eq!(answered.status, 101, "{:?}", answered.headers);
        assert_eq!(answered.headers["connection"].to_lowercase(), "upgrade");
        assert_eq!(answered.headers["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let protocol = answered.headers.get("sec-websocket-protocol").cloned().unwrap_or_default();
        WebSocket { reader: answered.connection, protocol }
    }
}
