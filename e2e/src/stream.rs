//! Exec, attach and port-forward as a client of the URLs that CRI answers.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;
use tonic::Status;

use crate::cri::{AttachRequest, ExecRequest, PortForwardRequest};
use crate::spdy::{Frame, Spdy, Writer};
use crate::world::World;

pub const V4: &str = "v4.channel.k8s.io";

/// The streams that a session has.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

pub const OUTPUT: Wanted = Wanted { tty: false, stdin: false, stdout: true, stderr: true };
pub const ALL: Wanted = Wanted { tty: false, stdin: true, stdout: true, stderr: true };
pub const TERMINAL: Wanted = Wanted { tty: true, stdin: true, stdout: true, stderr: false };

/// An answer's status line and headers, and the connection behind them.
#[derive(Debug)]
pub struct Answered {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub connection: BufReader<TcpStream>,
}

/// `http://address/path` in its parts.
pub fn parts(url: &str) -> (SocketAddr, &str) {
    let rest = url.strip_prefix("http://").expect("plain HTTP");
    let (authority, _) = rest.split_once('/').expect("a path");
    (authority.parse().expect("an address"), &rest[authority.len()..])
}

/// Sends a request head and reads the answer's.
pub fn request(mut socket: TcpStream, head: &str) -> io::Result<Answered> {
    socket.set_read_timeout(Some(std::time::Duration::from_secs(60)))?;
    socket.write_all(head.as_bytes())?;
    let mut connection = BufReader::new(socket);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if connection.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let status = lines.first().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let headers = lines.iter().skip(1).filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
    Ok(Answered { status: status.unwrap_or(0), headers: headers.collect(), connection })
}

impl World {
    pub fn exec_url(&self, id: &str, command: &[&str], wanted: Wanted) -> Result<String, Status> {
        let Wanted { tty, stdin, stdout, stderr } = wanted;
        let cmd = command.iter().map(ToString::to_string).collect();
        let request = ExecRequest { container_id: id.into(), cmd, tty, stdin, stdout, stderr };
        self.client.exec(request).map(|answer| answer.url)
    }

    pub fn attach_url(&self, id: &str, wanted: Wanted) -> Result<String, Status> {
        let Wanted { tty, stdin, stdout, stderr } = wanted;
        let request = AttachRequest { container_id: id.into(), stdin, tty, stdout, stderr };
        self.client.attach(request).map(|answer| answer.url)
    }

    pub fn forward_url(&self, pod: &str, ports: &[i32]) -> Result<String, Status> {
        let request = PortForwardRequest { pod_sandbox_id: pod.into(), port: ports.to_vec() };
        self.client.port_forward(request).map(|answer| answer.url)
    }

    /// Asks for an upgrade to SPDY.
    pub fn dial(&self, url: &str, protocols: &[&str]) -> io::Result<Answered> {
        let (address, path) = parts(url);
        let protocols: String = protocols
            .iter()
            .map(|protocol| format!("X-Stream-Protocol-Version: {protocol}\r\n"))
            .collect();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n{protocols}\r\n"
        );
        request(self.connect(address)?, &head)
    }

    /// A SPDY connection of that protocol.
    pub fn spdy(&self, url: &str, protocol: &str) -> Spdy {
        let answered = self.dial(url, &[protocol]).expect("the streaming server answers");
        assert_eq!(answered.status, 101, "{:?}", answered.headers);
        assert_eq!(answered.headers["connection"].to_lowercase(), "upgrade");
        assert_eq!(answered.headers["upgrade"], "SPDY/3.1");
        assert_eq!(answered.headers["x-stream-protocol-version"], protocol);
        Spdy::new(answered.connection)
    }

    /// A command with its streams open.
    pub fn remote_exec(&self, id: &str, command: &[&str], wanted: Wanted) -> Remote {
        let url = self.exec_url(id, command, wanted).expect("Exec");
        Remote::open(self.spdy(&url, V4), wanted, true)
    }

    pub fn remote_attach(&self, id: &str, wanted: Wanted) -> Remote {
        let url = self.attach_url(id, wanted).expect("Attach");
        Remote::open(self.spdy(&url, V4), wanted, true)
    }
}

/// An exec or attach session.
#[derive(Debug)]
pub struct Remote {
    pub spdy: Spdy,
    pub error: u32,
    pub stdin: Option<u32>,
    pub stdout: Option<u32>,
    pub stderr: Option<u32>,
    pub resize: Option<u32>,
}

/// What a session came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// What the error stream said.
    pub status: String,
}

impl Ended {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.status).unwrap_or_else(|err| panic!("{:?}: {err}", self.status))
    }

    /// As clients take it out of the status.
    pub fn code(&self) -> Option<i32> {
        let status = self.json();
        if status["status"] == "Success" {
            return Some(0);
        }
        let causes = status["details"]["causes"].as_array()?;
        let cause = causes.iter().find(|cause| cause["reason"] == "ExitCode")?;
        cause["message"].as_str()?.parse().ok()
    }

    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

impl Remote {
    /// Opens the streams in the order in which kubectl does.
    pub fn open(spdy: Spdy, wanted: Wanted, resizes: bool) -> Self {
        let open = |kind, really: bool| {
            really.then(|| spdy.writer.open(&[("streamtype", kind)]).expect("the server reads"))
        };
        Self {
            error: open("error", true).expect("always"),
            stdin: open("stdin", wanted.stdin),
            stdout: open("stdout", wanted.stdout),
            stderr: open("stderr", wanted.stderr),
            resize: open("resize", wanted.tty && resizes),
            spdy,
        }
    }

    pub fn writer(&self) -> Writer {
        self.spdy.writer.clone()
    }

    pub fn type_in(&self, text: &str) {
        let stdin = self.stdin.expect("a session with stdin");
        self.spdy.writer.data(stdin, text.as_bytes(), false).expect("the server reads");
    }

    pub fn end_stdin(&self) {
        self.spdy.writer.end(self.stdin.expect("a session with stdin")).expect("the server reads");
    }

    pub fn size(&self, width: u16, height: u16) {
        let resize = self.resize.expect("a session with a terminal");
        let text = format!("{{\"Width\":{width},\"Height\":{height}}}\n");
        self.spdy.writer.data(resize, text.as_bytes(), false).expect("the server reads");
    }

    /// Reads standard output until it holds `text`; what came until then.
    pub fn until(&mut self, text: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(text) {
            let frame =
                self.spdy.read().unwrap_or_else(|err| panic!("{text:?} after {seen:?}: {err}"));
            if let Frame::Data { id, bytes, .. } = frame
                && Some(id) == self.stdout
            {
                seen.push_str(&String::from_utf8_lossy(&bytes));
            }
        }
        seen
    }

    /// Everything until the server has ended the session.
    pub fn finish(mut self) -> Ended {
        self.finish_with(|_| {})
    }

    /// The same; standard output goes to `out` as it comes.
    pub fn finish_with(&mut self, mut out: impl FnMut(&[u8])) -> Ended {
        let mut ended = Ended::default();
        while let Ok(frame) = self.spdy.read() {
            let Frame::Data { id, bytes, .. } = frame else { continue };
            if Some(id) == self.stdout {
                out(&bytes);
                if ended.stdout.len() < 1 << 20 {
                    ended.stdout.extend_from_slice(&bytes);
                }
            } else if Some(id) == self.stderr {
                ended.stderr.extend_from_slice(&bytes);
            } else if id == self.error {
                ended.status.push_str(&String::from_utf8_lossy(&bytes));
            }
        }
        ended
    }
}
