//! Events, for daemons that listen to them (containerd; ours asks by Wait instead).
//!
//! In order, one at a time, each tried a few times. A daemon that is away for longer misses
//! them: it asks for the state when it is back.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use api::events::{self, Envelope, ForwardRequest};
use api::ttrpc::{KeyValue, Request, Response};
use prost::{Message, Name};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use shim::frame::{self, Decoder, Kind};

use crate::reactor::{self, Source};
use crate::task::timestamp;

const MAX_QUEUED: usize = 512;
const TRIES: u32 = 5;
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(1);

/// Sends events to a daemon, or nowhere.
pub(crate) struct Publisher(Option<Rc<Queue>>);

struct Queue {
    path: String,
    namespace: String,
    waiting: RefCell<VecDeque<Vec<u8>>>,
    sending: Cell<bool>,
    lost: Cell<u64>,
}

impl Publisher {
    /// `address` is a unix socket's; empty means that nobody listens.
    pub(crate) fn new(address: &str, namespace: &str) -> Self {
        let path = address.strip_prefix("unix://").unwrap_or(address);
        let queue = Queue {
            path: path.to_owned(),
            namespace: namespace.to_owned(),
            waiting: RefCell::default(),
            sending: Cell::new(false),
            lost: Cell::new(0),
        };
        Self((!path.is_empty()).then(|| Rc::new(queue)))
    }

    /// Queues an event.
    pub(crate) fn publish<M: Name>(&self, topic: &str, event: impl FnOnce() -> M) {
        let Some(queue) = &self.0 else { return };
        let envelope = Envelope {
            timestamp: Some(timestamp(SystemTime::now())),
            namespace: queue.namespace.clone(),
            topic: topic.to_owned(),
            event: Some(api::pack(&event())),
        };
        let payload = ForwardRequest { envelope: Some(envelope) }.encode_to_vec();
        let mut waiting = queue.waiting.borrow_mut();
        if waiting.len() >= MAX_QUEUED {
            waiting.pop_front();
            queue.lost.set(queue.lost.get() + 1);
        }
        waiting.push_back(payload);
        if !queue.sending.replace(true) {
            reactor::spawn(send(Rc::clone(queue)));
        }
    }
}

async fn send(queue: Rc<Queue>) {
    loop {
        let next = queue.waiting.borrow_mut().pop_front();
        let Some(payload) = next else { break };
        for attempt in 1.. {
            match reactor::within(PATIENCE, forward(&queue, &payload)).await {
                Some(Ok(())) => break,
                _ if attempt < TRIES => reactor::sleep(PAUSE).await,
                outcome => {
                    let error = outcome.and_then(Result::err);
                    let lost = queue.lost.replace(0) + 1;
                    eprintln!("{lost} events lost: {error:?}");
                    break;
                }
            }
        }
    }
    queue.sending.set(false);
}

async fn forward(queue: &Queue, payload: &[u8]) -> io::Result<()> {
    let request = Request {
        service: events::SERVICE.into(),
        method: "Forward".into(),
        payload: payload.to_vec(),
        timeout_nano: i64::try_from(PATIENCE.as_nanos()).unwrap_or(0),
        metadata: vec![KeyValue {
            key: "containerd-namespace-ttrpc".into(),
            value: queue.namespace.clone(),
        }],
    };
    let bytes = frame::encode(1, Kind::Request, &request).map_err(io::Error::other)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(&*queue.path)?)?;
    let socket = Source::new(socket)?;
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let count = socket.write_with(|fd| rustix::io::write(fd, rest)).await?;
        rest = &rest[count..];
    }
    let mut decoder = Decoder::default();
    loop {
        let mut bytes = [0; 512];
        match socket.read_with(|fd| rustix::io::read(fd, &mut bytes)).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => decoder.push(&bytes[..count]),
        }
        if let Some(frame) = decoder.next_frame().map_err(io::Error::other)? {
            let response = Response::decode(&frame.payload[..])?;
            return match response.status {
                Some(status) if status.code != 0 => Err(io::Error::other(status.message)),
                _ => Ok(()),
            };
        }
    }
}
