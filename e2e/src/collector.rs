//! A collector of traces that a test looks into: OTLP over HTTP, in a world's network.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use api::otlp::{ExportTraceServiceRequest, KeyValue, Span, any_value};
use prost::Message;

use crate::world::World;

/// Longest request: some thousand spans.
const MAX_BODY: usize = 16 << 20;

/// The collector. Its thread ends with the test's process.
#[derive(Debug, Clone, Default)]
pub struct Collector {
    requests: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    refuses: Arc<AtomicBool>,
}

impl Collector {
    /// Listens on a port of the world's own loopback.
    pub fn start(world: &World, port: u16) -> Self {
        let listener = world.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).expect("a port");
        let collector = Self::default();
        let serving = collector.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                // Who hangs up in the middle tries again.
                let _ = serving.answer(&socket);
            }
        });
        collector
    }

    /// From now on whether what comes is refused, for good.
    pub fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::SeqCst);
    }

    fn answer(&self, socket: &TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(socket);
        let (mut length, mut line) = (0, String::new());
        let mut head = Vec::new();
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let text = line.trim_end().to_ascii_lowercase();
            if text.is_empty() {
                break;
            }
            if let Some(value) = text.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
            head.push(text);
        }
        assert!(head[0].starts_with("post /v1/traces "), "{head:?}");
        assert!(head.iter().any(|line| line == "content-type: application/x-protobuf"), "{head:?}");
        let mut body = vec![0; MAX_BODY.min(length)];
        reader.read_exact(&mut body)?;
        let status = if self.refuses.load(Ordering::SeqCst) {
            "400 Bad Request"
        } else {
            let request = ExportTraceServiceRequest::decode(&*body).map_err(io::Error::other)?;
            self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request);
            "200 OK"
        };
        let mut socket = socket;
        write!(socket, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")
    }

    /// All spans that came so far.
    pub fn spans(&self) -> Vec<Span> {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let resources = requests.iter().flat_map(|request| &request.resource_spans);
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.iter().cloned()).collect()
    }

    /// What each sender said of itself.
    pub fn senders(&self) -> Vec<Vec<KeyValue>> {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let resources = requests.iter().flat_map(|request| &request.resource_spans);
        resources.map(|sent| sent.resource.clone().unwrap_or_default().attributes).collect()
    }
}

/// The text of an attribute, or its number as one.
pub fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let value = attributes.iter().find(|one| one.key == key)?.value.clone()?.value?;
    Some(match value {
        any_value::Value::StringValue(text) => text,
        any_value::Value::IntValue(number) => number.to_string(),
        any_value::Value::BoolValue(value) => value.to_string(),
    })
}
