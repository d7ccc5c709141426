//! One client of the shim.
//!
//! Requests run side by side and are answered as they finish. What a client sends and does not
//! fetch is bounded: so many calls in flight, so many bytes of answers not yet taken.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use api::ttrpc::{Request, Response, Status};
use prost::Message;
use rustix::io::Errno;
use shim::frame::{self, Decoder, Frame, Kind};

use super::dispatch;
use super::failure::Failure;
use crate::pod::Pod;
use crate::reactor::{self, Once, Source};

/// Calls of one client that may be under way; every `Wait` of a container is one of them.
const MAX_CALLS: usize = 4096;
/// Answers that a client leaves unread before it is cut off.
const MAX_UNREAD: usize = 8 << 20;
const READ_SIZE: usize = 4096;

pub(crate) struct Connection {
    socket: Source,
    unsent: RefCell<Vec<u8>>,
    sending: Cell<bool>,
    calls: Cell<usize>,
    /// Set when the client is gone; calls that only wait then end too.
    pub(crate) closed: Once<()>,
}

/// Serves a client until it goes away.
pub(crate) async fn serve(socket: OwnedFd, pod: Rc<Pod>) {
    let Ok(socket) = Source::new(socket) else { return };
    let connection = Rc::new(Connection {
        socket,
        unsent: RefCell::default(),
        sending: Cell::new(false),
        calls: Cell::new(0),
        closed: Once::default(),
    });
    connection.receive(&pod).await;
    connection.closed.set(());
}

impl Connection {
    async fn receive(self: &Rc<Self>, pod: &Rc<Pod>) {
        let mut decoder = Decoder::default();
        loop {
            let mut bytes = [0; READ_SIZE];
            let read = self.socket.read_with(|fd| rustix::io::read(fd, &mut bytes)).await;
            let Ok(count @ 1..) = read else { return };
            decoder.push(&bytes[..count]);
            loop {
                match decoder.next_frame() {
                    Ok(Some(frame)) => self.accept(pod, &frame),
                    Ok(None) => break,
                    Err(error) => {
                        eprintln!("closing a connection: {error}");
                        return;
                    }
                }
            }
            if self.closed.is_set() {
                return;
            }
        }
    }

    fn accept(self: &Rc<Self>, pod: &Rc<Pod>, frame: &Frame) {
        // Streams and whatever is newer than we are have no receiver here.
        if frame.kind != Kind::Request {
            return;
        }
        let request = match Request::decode(&frame.payload[..]) {
            Ok(request) => request,
            Err(error) => {
                return self.answer(frame.stream, Err(Failure::invalid(error)));
            }
        };
        if self.calls.get() >= MAX_CALLS {
            return self.answer(frame.stream, Err(Failure::exhausted("too many calls at once")));
        }
        self.calls.set(self.calls.get() + 1);
        let (this, pod, stream) = (Rc::clone(self), Rc::clone(pod), frame.stream);
        reactor::spawn(async move {
            let outcome = dispatch::call(&pod, &this, &request).await;
            this.answer(stream, outcome);
            this.calls.set(this.calls.get() - 1);
            if pod.over.get() {
                reactor::stop();
            }
        });
    }

    fn answer(self: &Rc<Self>, stream: u32, outcome: Result<Vec<u8>, Failure>) {
        let response = match outcome {
            Ok(payload) => Response { status: None, payload },
            Err(Failure { code, message }) => Response {
                status: Some(Status { code, message, ..Status::default() }),
                payload: Vec::new(),
            },
        };
        match frame::encode(stream, Kind::Response, &response) {
            Ok(bytes) => self.send(&bytes),
            Err(error) => self.answer(stream, Err(Failure::exhausted(error))),
        }
    }

    /// Sends at once what the socket takes, and the rest when it can.
    fn send(self: &Rc<Self>, bytes: &[u8]) {
        if self.closed.is_set() {
            return;
        }
        if self.unsent.borrow().len() + bytes.len() > MAX_UNREAD {
            eprintln!("closing a connection: its client does not read");
            let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
            return self.closed.set(());
        }
        self.unsent.borrow_mut().extend_from_slice(bytes);
        if !self.sending.get() && self.push().is_err_and(|error| error == Errno::AGAIN) {
            self.sending.set(true);
            let this = Rc::clone(self);
            reactor::spawn(async move {
                let _ = this.socket.write_with(|_| this.push()).await;
                this.sending.set(false);
            });
        }
    }

    fn push(&self) -> rustix::io::Result<()> {
        let mut unsent = self.unsent.borrow_mut();
        while !unsent.is_empty() {
            // A write to a client that is gone: EPIPE, as Rust ignores SIGPIPE from the start.
            let count = rustix::io::write(&self.socket, &unsent)?;
            unsent.drain(..count);
        }
        *unsent = Vec::new();
        Ok(())
    }
}
