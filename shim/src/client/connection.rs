//! One ttrpc connection, shared by any number of calls.
//!
//! [`connect`] returns a [`Client`] and a [`Driver`]. The driver is a future that moves the
//! bytes; it runs for as long as the connection lives, on a task of the caller's. A call that is
//! given up (its future dropped) leaves nothing behind.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use api::ttrpc::{KeyValue, Request, Response};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};

use super::address;
use super::error::{Code, Error, Result};
use crate::frame::{self, Decoder, Kind};

/// Requests that wait for the socket; a caller beyond waits with them.
const QUEUE: usize = 64;
const READ_SIZE: usize = 16 * 1024;
/// The metadata key by which shims learn containerd's namespace.
const NAMESPACE_KEY: &str = "containerd-namespace-ttrpc";
/// The namespace of everything that CRI makes.
pub const NAMESPACE: &str = "k8s.io";

/// A connection to a shim. Clones share it.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    outgoing: mpsc::Sender<Vec<u8>>,
    lost: watch::Receiver<bool>,
}

struct Shared {
    pending: Mutex<HashMap<u32, oneshot::Sender<Response>>>,
    next: AtomicU32,
    /// Whether the shim knows only version 2 of the Task service.
    pub(super) task_v2: AtomicBool,
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, HashMap<u32, oneshot::Sender<Response>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Moves the bytes of a [`Client`]; ends when the connection does, or when the last client and
/// all its calls are gone.
pub struct Driver(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(context)
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Driver")
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({} pending)", self.shared.pending().len())
    }
}

/// Connects to a shim's address, as its `start` has printed it.
pub async fn connect(address: &str, limit: Duration) -> Result<(Client, Driver)> {
    let failed = |source| Error::Connect { address: address.to_owned(), source };
    let stream = tokio::time::timeout(limit, address::connect(address))
        .await
        .map_err(|_| failed(std::io::ErrorKind::TimedOut.into()))?
        .map_err(failed)?;
    Ok(drive(stream))
}

fn drive(stream: UnixStream) -> (Client, Driver) {
    let shared = Arc::new(Shared {
        pending: Mutex::default(),
        next: AtomicU32::new(1),
        task_v2: AtomicBool::new(false),
    });
    let (outgoing, queued) = mpsc::channel(QUEUE);
    let (ended, lost) = watch::channel(false);
    let (read, write) = stream.into_split();
    let table = Arc::clone(&shared);
    let ending = Ending { shared: table, ended };
    let driver = Box::pin(async move {
        tokio::select! {
            () = receive(read, &ending.shared) => {}
            () = send(write, queued) => {}
        }
    });
    (Client { shared, outgoing, lost }, Driver(driver))
}

/// The end of a connection, also when its driver is dropped: calls learn that no answer will
/// come.
struct Ending {
    shared: Arc<Shared>,
    ended: watch::Sender<bool>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.ended.send(true);
        self.shared.pending().clear();
    }
}

async fn send(mut socket: OwnedWriteHalf, mut queued: mpsc::Receiver<Vec<u8>>) {
    while let Some(bytes) = queued.recv().await {
        if socket.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn receive(mut socket: OwnedReadHalf, shared: &Shared) {
    let mut decoder = Decoder::default();
    let mut bytes = vec![0; READ_SIZE];
    loop {
        let Ok(count @ 1..) = socket.read(&mut bytes).await else { return };
        decoder.push(&bytes[..count]);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) if frame.kind == Kind::Response => {
                    let Some(waiting) = shared.pending().remove(&frame.stream) else { continue };
                    // An undecodable answer ends that call: its sender is dropped.
                    if let Ok(response) = Response::decode(&frame.payload[..]) {
                        let _ = waiting.send(response);
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

/// Takes a call off the books, however it ends.
struct Pending<'a> {
    shared: &'a Shared,
    stream: u32,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.shared.pending().remove(&self.stream);
    }
}

impl Client {
    /// Calls a method and waits for its answer, for ever if `limit` is `None`.
    pub async fn call<Q: Message, A: Message + Default>(
        &self,
        service: &str,
        method: &'static str,
        request: &Q,
        limit: Option<Duration>,
    ) -> Result<A> {
        let Some(limit) = limit else {
            return self.exchange(service, method, request, 0).await;
        };
        let nanoseconds = i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX);
        tokio::time::timeout(limit, self.exchange(service, method, request, nanoseconds))
            .await
            .map_err(|_| Error::Deadline { method, limit })?
    }

    async fn exchange<Q: Message, A: Message + Default>(
        &self,
        service: &str,
        method: &'static str,
        request: &Q,
        timeout_nano: i64,
    ) -> Result<A> {
        let stream = self.shared.next.fetch_add(2, Ordering::Relaxed);
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload: request.encode_to_vec(),
            timeout_nano,
            metadata: vec![KeyValue { key: NAMESPACE_KEY.into(), value: NAMESPACE.into() }],
        };
        let bytes = frame::encode(stream, Kind::Request, &request)
            .map_err(|error| Error::Malformed { method, what: error.to_string() })?;
        let (answer, answered) = oneshot::channel();
        self.shared.pending().insert(stream, answer);
        let _pending = Pending { shared: &self.shared, stream };
        self.outgoing.send(bytes).await.map_err(|_| Error::Lost { method })?;
        // The driver may have cleared the table before this call was in it.
        if *self.lost.borrow() {
            return Err(Error::Lost { method });
        }
        let response = answered.await.map_err(|_| Error::Lost { method })?;
        if let Some(status) = response.status.filter(|status| status.code != 0) {
            let code = Code::from_number(status.code);
            return Err(Error::Refused { method, code, message: status.message });
        }
        A::decode(&response.payload[..])
            .map_err(|error| Error::Malformed { method, what: error.to_string() })
    }

    /// Calls a method of the Task service, in whichever version the shim speaks.
    pub(super) async fn task_call<Q: Message, A: Message + Default>(
        &self,
        method: &'static str,
        request: &Q,
        limit: Option<Duration>,
    ) -> Result<A> {
        if !self.shared.task_v2.load(Ordering::Relaxed) {
            match self.call(api::task::SERVICE_V3, method, request, limit).await {
                Err(error) if error.is_unimplemented() => {}
                other => return other,
            }
        }
        let answer = self.call(api::task::SERVICE_V2, method, request, limit).await;
        // Only a success tells that it was the service which was unknown, not the method.
        if answer.is_ok() {
            self.shared.task_v2.store(true, Ordering::Relaxed);
        }
        answer
    }

    /// Resolves when the connection is lost.
    pub async fn lost(&self) {
        let mut lost = self.lost.clone();
        // An error means that the driver is gone without a word, which is the same.
        let _ = lost.wait_for(|lost| *lost).await;
    }
}
