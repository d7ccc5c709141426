//! One SPDY connection: its streams as inputs and outputs.
//!
//! Reading and writing are two futures that a session runs beside its own work. Reading ends when the client is
//! gone or breaks the protocol; writing ends when all outputs are gone, with a GOAWAY.

use std::collections::HashMap;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::super::channel::{
    Activity, CHUNK, Feeder, Input, Message, Output, Room, Watched, input,
};
use super::frame::{self, Decoder, Event, Reason, Violation};
use super::header::{Deflater, Headers};

/// Streams of one connection at a time; a port-forward's connections take two each.
const MAX_STREAMS: usize = 512;
/// New streams that wait for the session to look at them.
const MAX_OPENED: usize = 16;

/// A stream that the client has opened, neither taken nor refused yet.
#[derive(Debug)]
pub(crate) struct Opened {
    pub id: u32,
    pub headers: Headers,
    pub input: Input,
    pub output: Output,
}

/// New streams, for the transport and the session.
pub(crate) fn opened() -> (mpsc::Sender<Opened>, mpsc::Receiver<Opened>) {
    mpsc::channel(MAX_OPENED)
}

/// What reading needs beside the connection.
#[derive(Debug)]
pub(crate) struct Reading {
    pub opened: mpsc::Sender<Opened>,
    /// Only the session itself keeps the connection's writing alive.
    pub messages: mpsc::WeakSender<Message>,
    pub activity: Activity,
}

struct Stream {
    /// `None` once the client has ended its side.
    feeder: Option<Feeder>,
    output: Watched,
}

/// A stream lives until the client has ended its side and the session let go of its own.
struct Streams {
    table: HashMap<u32, Stream>,
    last: u32,
    room: Room,
}

/// Reads until the client says that it leaves, or is gone, or breaks the protocol. `buffered` came with the upgrade.
pub(crate) async fn read<R: AsyncRead + Unpin>(
    mut from: R,
    buffered: Bytes,
    reading: Reading,
) -> Result<(), Violation> {
    let mut decoder = Decoder::default();
    let mut bytes = BytesMut::from(&buffered[..]);
    let mut streams = Streams { table: HashMap::new(), last: 0, room: Room::default() };
    loop {
        while let Some(event) = decoder.next(&mut bytes)? {
            if matches!(event, Event::GoAway) {
                return Ok(());
            }
            streams.take(event, &reading).await;
        }
        bytes.reserve(CHUNK);
        match from.read_buf(&mut bytes).await {
            Ok(1..) => reading.activity.seen(),
            Ok(0) | Err(_) => return Ok(()),
        }
    }
}

impl Streams {
    async fn take(&mut self, event: Event, reading: &Reading) {
        match event {
            Event::Open { id, end, headers } => self.open(id, end, headers, reading).await,
            Event::Data { id, bytes, end } => {
                if let Some(stream) = self.table.get_mut(&id) {
                    if let Some(feeder) = &stream.feeder {
                        feeder.push(&self.room, bytes).await;
                    }
                    if end {
                        stream.feeder = None;
                    }
                }
            }
            Event::Reset { id } => {
                if let Some(stream) = self.table.remove(&id) {
                    stream.output.reset();
                }
            }
            // An odd number is the client's own ping; an even one would answer ours, and we send none.
            Event::Ping { id } if id % 2 == 1 => {
                if let Some(messages) = reading.messages.upgrade() {
                    messages.send(Message::Pong(id)).await.ok();
                }
            }
            Event::Ping { .. } | Event::GoAway | Event::Other => {}
        }
    }

    async fn open(&mut self, id: u32, end: bool, headers: Headers, reading: &Reading) {
        let Some(messages) = reading.messages.upgrade() else { return };
        // A client's streams are odd and count up.
        let fits = id % 2 == 1 && id > self.last;
        if fits {
            self.last = id;
        }
        if fits && self.table.len() >= MAX_STREAMS {
            self.forget_ended();
        }
        if !fits || self.table.len() >= MAX_STREAMS {
            messages.send(Message::Reset { id, refused: true }).await.ok();
            return;
        }
        let (feeder, input) = input();
        let (output, watched) = Output::new(id, messages.clone());
        let feeder = (!end).then_some(feeder);
        self.table.insert(id, Stream { feeder, output: watched });
        // A session that wants no more streams has dropped its end.
        if let Err(unread) = reading.opened.send(Opened { id, headers, input, output }).await {
            unread.0.output.refuse().await;
            self.table.remove(&id);
        }
    }

    /// Drops the streams that both sides have ended.
    fn forget_ended(&mut self) {
        self.table.retain(|_, stream| {
            stream.output.is_held()
                || stream.feeder.as_ref().is_some_and(|feeder| !feeder.is_closed())
        });
    }
}

/// Writes until all outputs are gone, then says good-bye. An error means that the client is gone.
pub(crate) async fn write<W: AsyncWrite + Unpin>(
    mut to: W,
    mut messages: mpsc::Receiver<Message>,
    activity: Activity,
) -> std::io::Result<()> {
    let (mut headers, mut last) = (Deflater::default(), 0);
    while let Some(message) = messages.recv().await {
        match message {
            Message::Data(id, bytes) => data(&mut to, id, bytes).await?,
            Message::Accept(id) => {
                last = last.max(id);
                to.write_all(&frame::reply(id, &mut headers)).await?;
            }
            Message::End(id) => to.write_all(&frame::data_head(id, 0, true)).await?,
            Message::Reset { id, refused } => {
                let reason = if refused { Reason::Refused } else { Reason::Cancel };
                to.write_all(&frame::reset(id, reason)).await?;
            }
            Message::Pong(id) => to.write_all(&frame::ping(id)).await?,
        }
        if messages.is_empty() {
            to.flush().await?;
        }
        activity.seen();
    }
    to.write_all(&frame::go_away(last)).await?;
    to.flush().await?;
    to.shutdown().await
}

async fn data<W: AsyncWrite + Unpin>(to: &mut W, id: u32, mut bytes: Bytes) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let part = bytes.split_to(bytes.len().min(frame::MAX_DATA));
        let head = frame::data_head(id, part.len(), false);
        if to.is_write_vectored() {
            to.write_all_buf(&mut Buf::chain(&head[..], part)).await?;
        } else {
            // One packet, one TLS record, one message, rather than two.
            to.write_all(&[&head[..], &part].concat()).await?;
        }
    }
    Ok(())
}
