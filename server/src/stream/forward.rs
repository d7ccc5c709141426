//! Port-forward over SPDY: each connection of the client's is a pair of streams, one for data and one for errors.
//!
//! The pairs of a connection are independent: one that fails says so on its error stream and leaves the others. Each
//! direction of a pair ends by itself, as the two of a TCP connection do.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::channel::{CHUNK, Input, Output};
use super::spdy::connection::Opened;
use crate::sandbox::{Sandbox, dial};

/// The one protocol.
pub(super) const PROTOCOL: &str = "portforward.k8s.io";

/// What pairs two streams.
type RequestId = String;

/// Streams that wait for their other half.
#[derive(Default)]
struct Half {
    port: u16,
    data: Option<Opened>,
    error: Option<Opened>,
}

enum Done {
    Forwarded,
    /// Time is up for this half, if it is one still.
    Waited(RequestId),
}

/// Serves pairs until the client leaves. The halves of one have to come within `creation` of one another.
pub(super) async fn serve(
    sandbox: Arc<Sandbox>,
    mut opened: mpsc::Receiver<Opened>,
    gone: CancellationToken,
    creation: Duration,
) {
    let mut halves: HashMap<RequestId, Half> = HashMap::new();
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = gone.cancelled() => return,
            stream = opened.recv() => {
                let Some(stream) = stream else { return };
                let Some((id, port, is_error)) = parse(&stream) else {
                    stream.output.refuse().await;
                    continue;
                };
                stream.output.accept().await;
                let is_new = !halves.contains_key(&id);
                let half = halves.entry(id.clone()).or_default();
                let place = if is_error { &mut half.error } else { &mut half.data };
                if let Some(before) = place.replace(stream) {
                    before.output.reset().await;
                }
                half.port = port;
                if half.data.is_some() && half.error.is_some() {
                    let half = halves.remove(&id).unwrap_or_default();
                    running.push(futures_util::future::Either::Left(forward(sandbox.clone(), half)));
                } else if is_new {
                    running.push(futures_util::future::Either::Right(async move {
                        tokio::time::sleep(creation).await;
                        Done::Waited(id)
                    }));
                }
            }
            Some(done) = running.next() => {
                if let Done::Waited(id) = done
                    && let Some(half) = halves.remove(&id)
                {
                    give_up(half).await;
                }
            }
        }
    }
}

/// The pair, the port and the half of a new stream; `None` where its headers are not what they must be.
fn parse(stream: &Opened) -> Option<(RequestId, u16, bool)> {
    let is_error = match stream.headers.get("streamtype")? {
        "error" => true,
        "data" => false,
        _ => return None,
    };
    let port = stream.headers.get("port")?.parse().ok().filter(|port| *port > 0)?;
    let id = match stream.headers.get("requestid") {
        Some(id) => id.to_owned(),
        // Old clients open the error stream, and the data stream right after it.
        None if is_error => stream.id.to_string(),
        None => stream.id.checked_sub(2)?.to_string(),
    };
    Some((id, port, is_error))
}

async fn give_up(half: Half) {
    if let Some(error) = half.error {
        let text = format!("the data stream for port {} was never opened", half.port);
        error.output.send(text.into()).await.ok();
        error.output.end().await;
    }
    if let Some(data) = half.data {
        data.output.reset().await;
    }
}

async fn forward(sandbox: Arc<Sandbox>, half: Half) -> Done {
    if let Half { port, data: Some(data), error: Some(error) } = half {
        connect(&sandbox, port, data.input, data.output, error.output).await;
    }
    Done::Forwarded
}

/// Carries one connection. Why it could not be made, or broke, goes to `error`.
pub(super) async fn connect(
    sandbox: &Sandbox,
    port: u16,
    input: Input,
    output: Output,
    error: Output,
) {
    let dialled = tokio::select! {
        dialled = dial::dial(sandbox, port) => dialled.map_err(|err| err.to_string()),
        () = output.was_reset() => return error.end().await,
    };
    let failed = match dialled {
        Ok(socket) => carry(socket, input, &output, &error).await,
        Err(reason) => Err(reason),
    };
    if let Err(reason) = failed {
        let text = format!("error forwarding port {port} to pod {}, uid : {reason}", sandbox.id());
        error.send(text.into()).await.ok();
        error.end().await;
        output.reset().await;
    }
}

/// Copies until both directions have ended, or the connection broke.
async fn carry(
    socket: TcpStream,
    input: Input,
    output: &Output,
    error: &Output,
) -> Result<(), String> {
    let (from_pod, to_pod) = socket.into_split();
    let both = async {
        let mut to_pod = pin!(send(input, to_pod));
        let mut from_pod = pin!(async {
            receive(from_pod, output).await?;
            // Old clients wait for this before they end their own side.
            output.clone().end().await;
            error.clone().end().await;
            Ok(())
        });
        tokio::select! {
            () = &mut to_pod => from_pod.await,
            // A broken connection ends both directions at once.
            read = &mut from_pod => {
                read?;
                to_pod.await;
                Ok(())
            }
        }
    };
    tokio::select! {
        carried = both => carried,
        () = output.was_reset() => {
            error.clone().end().await;
            Ok(())
        }
    }
}

async fn send(mut input: Input, mut to_pod: OwnedWriteHalf) {
    while let Some(chunk) = input.next().await {
        if to_pod.write_all(&chunk.bytes).await.is_err() {
            // The pod takes no more; what it still says is another matter.
            while input.next().await.is_some() {}
            return;
        }
    }
    to_pod.shutdown().await.ok();
}

async fn receive(mut from_pod: OwnedReadHalf, output: &Output) -> Result<(), String> {
    loop {
        let mut bytes = BytesMut::with_capacity(CHUNK);
        match from_pod.read_buf(&mut bytes).await {
            Ok(0) => return Ok(()),
            Ok(_) if output.send(bytes.freeze()).await.is_err() => return Ok(()),
            Ok(_) => {}
            Err(err) => return Err(err.to_string()),
        }
    }
}
