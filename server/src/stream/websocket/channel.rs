//! Numbered channels: each message is a channel's number and bytes for it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message as Frame, Utf8Bytes};

use super::super::channel::{Activity, Feeder, Message, Room};
use super::super::upgrade::Connection;

/// In place of a channel's number: what follows is the number of a channel that has ended.
const CLOSE: u8 = 255;

/// How a message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Coding {
    Binary,
    /// The number as a digit, the rest in base64.
    Base64,
}

impl Coding {
    pub(super) fn encode(self, channel: u8, bytes: &[u8]) -> Frame {
        match self {
            Self::Binary => Frame::Binary([&[channel], bytes].concat().into()),
            Self::Base64 => {
                let mut text = channel.to_string();
                STANDARD.encode_string(bytes, &mut text);
                Frame::Text(text.into())
            }
        }
    }

    /// The channel and its bytes; `None` where it is no message of ours.
    pub(super) fn decode(self, frame: Frame) -> Option<(u8, Bytes)> {
        let mut bytes: Bytes = match frame {
            Frame::Binary(bytes) => bytes,
            Frame::Text(text) => text.into(),
            _ => return None,
        };
        let channel = *bytes.first()?;
        match self {
            Self::Binary => {
                let rest = bytes.split_off(1);
                Some((channel, rest))
            }
            Self::Base64 => {
                let channel = channel.checked_sub(b'0').filter(|digit| *digit < 10)?;
                Some((channel, STANDARD.decode(&bytes[1..]).ok()?.into()))
            }
        }
    }
}

/// What reading needs beside the connection.
#[derive(Debug)]
pub(super) struct Read {
    /// By channel; those that a client may not write to have none.
    pub feeders: Vec<Option<Feeder>>,
    pub coding: Coding,
    pub closes: bool,
    pub activity: Activity,
}

/// Reads until the client closes or breaks the protocol. Pings are answered by the stream itself.
pub(super) async fn read(mut from: SplitStream<WebSocketStream<Connection>>, mut reading: Read) {
    let room = Room::default();
    while let Some(Ok(frame)) = from.next().await {
        reading.activity.seen();
        if frame.is_close() {
            return;
        }
        let Some((channel, bytes)) = reading.coding.decode(frame) else { continue };
        if channel == CLOSE && reading.closes {
            if let Some(feeder) =
                bytes.first().and_then(|one| reading.feeders.get_mut(usize::from(*one)))
            {
                *feeder = None;
            }
        } else if let Some(Some(feeder)) = reading.feeders.get(usize::from(channel)) {
            feeder.push(&room, bytes).await;
        }
    }
}

/// Writes until all outputs are gone, then closes. `tells_ends`: of single channels too.
pub(super) async fn write(
    mut to: SplitSink<WebSocketStream<Connection>, Frame>,
    mut messages: mpsc::Receiver<Message>,
    coding: Coding,
    tells_ends: bool,
    activity: Activity,
) {
    while let Some(message) = messages.recv().await {
        let frame = match message {
            Message::Data(id, bytes) => coding.encode(channel(id), &bytes),
            Message::End(id) | Message::Reset { id, .. } if tells_ends => {
                coding.encode(CLOSE, &[channel(id)])
            }
            Message::End(_) | Message::Reset { .. } | Message::Accept(_) | Message::Pong(_) => {
                continue;
            }
        };
        // Sent one by one: what waits here has left the bounded queue.
        if to.send(frame).await.is_err() {
            return;
        }
        activity.seen();
    }
    // Clients take a close without a reason for a failure.
    to.send(good_bye()).await.ok();
    to.close().await.ok();
}

/// A close that is as it should be.
pub(super) fn good_bye() -> Frame {
    Frame::Close(Some(CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() }))
}

/// Outputs were made from channels.
fn channel(id: u32) -> u8 {
    u8::try_from(id).unwrap_or(CLOSE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_look_as_clients_expect_them() {
        assert_eq!(Coding::Binary.encode(1, b"hi"), Frame::Binary(Bytes::from_static(b"\x01hi")));
        assert_eq!(Coding::Base64.encode(1, b"hi"), Frame::Text("1aGk=".into()));
        let none = [
            (Coding::Binary, Frame::Binary(Bytes::new())),
            (Coding::Base64, Frame::Text("xaGk=".into())),
            (Coding::Base64, Frame::Text("1a".into())),
            (Coding::Binary, Frame::Ping(Bytes::from_static(b"1"))),
        ];
        for (coding, frame) in none {
            assert_eq!(coding.decode(frame), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(channel in 0_u8..10, bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            for coding in [Coding::Binary, Coding::Base64] {
                let read = coding.decode(coding.encode(channel, &bytes));
                prop_assert_eq!(read, Some((channel, bytes.clone().into())));
            }
        }
    }
}
