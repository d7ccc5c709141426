//! WebSocket (RFC 6455): exec and attach as numbered channels, port-forward as such or as a tunnel for SPDY.
//!
//! `channel` is the transport of the first two, `tunnel` of the third. The framing itself is tungstenite's.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use http::header::{
    SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
};
use http::{HeaderMap, HeaderValue};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::channel::{CHUNK, Message, Output, input, messages};
use super::conversation::{self, Limits};
use super::forward;
use super::report::Version;
use super::session::{self, Client, Remote};
use super::upgrade::Connection;
use crate::sandbox::Sandbox;

mod channel;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod tunnel;

use channel::{Coding, Read, read, write};
pub(super) use tunnel::Tunnel;

/// Of one message from a client; they send some ten KiB at a time.
const MAX_MESSAGE: usize = 1 << 20;
/// The one version of the protocol that is in use.
const VERSION: &str = "13";

/// How a connection's streams are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Channels {
        version: Version,
        coding: Coding,
        /// Whether the end of a single channel can be told.
        closes: bool,
    },
    /// A byte stream in which SPDY is spoken.
    Tunnel,
}

const fn channels(version: Version, coding: Coding, closes: bool) -> Protocol {
    Protocol::Channels { version, coding, closes }
}

/// By the names that clients offer; the last is for those who offer none.
const REMOTE: [(&str, Protocol); 6] = [
    ("v5.channel.k8s.io", channels(Version::V4, Coding::Binary, true)),
    ("v4.channel.k8s.io", channels(Version::V4, Coding::Binary, false)),
    ("v4.base64.channel.k8s.io", channels(Version::V4, Coding::Base64, false)),
    ("channel.k8s.io", channels(Version::V1, Coding::Binary, false)),
    ("base64.channel.k8s.io", channels(Version::V1, Coding::Base64, false)),
    ("", channels(Version::V1, Coding::Binary, false)),
];
const FORWARD: [(&str, Protocol); 5] = [
    ("SPDY/3.1+portforward.k8s.io", Protocol::Tunnel),
    ("v5.channel.k8s.io", channels(Version::V4, Coding::Binary, true)),
    ("v4.channel.k8s.io", channels(Version::V4, Coding::Binary, false)),
    ("v4.base64.channel.k8s.io", channels(Version::V4, Coding::Base64, false)),
    ("", channels(Version::V4, Coding::Binary, false)),
];

/// Whether a request can become a connection, and what is said on it then.
#[derive(Debug)]
pub(super) struct Agreed {
    pub name: &'static str,
    pub protocol: Protocol,
    accept: String,
}

/// Why a request cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disagreed {
    /// It is no WebSocket handshake.
    Malformed,
    /// None of its protocols is spoken here.
    Protocol,
}

/// Takes the first of the client's protocols that we speak.
pub(super) fn agree(
    headers: &HeaderMap,
    offered: &[String],
    forward: bool,
) -> Result<Agreed, Disagreed> {
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or(Disagreed::Malformed)?;
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != VERSION) {
        return Err(Disagreed::Malformed);
    }
    let known: &[(&str, Protocol)] = if forward { &FORWARD } else { &REMOTE };
    let named = |name: &str| known.iter().find(|(known, _)| *known == name).copied();
    let (name, protocol) = match offered {
        [] => named(""),
        offered => offered.iter().find_map(|name| named(name)),
    }
    .ok_or(Disagreed::Protocol)?;
    Ok(Agreed { name, protocol, accept: derive_accept_key(key.as_bytes()) })
}

impl Agreed {
    /// What the answer says beside the upgrade.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        if let Ok(accept) = HeaderValue::from_str(&self.accept) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
        if !self.name.is_empty() {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(self.name));
        }
    }
}

/// The connection after its upgrade.
pub(super) async fn stream(connection: Connection, buffered: Bytes) -> WebSocketStream<Connection> {
    let config = WebSocketConfig::default()
        .read_buffer_size(CHUNK)
        .write_buffer_size(0)
        .max_write_buffer_size(4 * MAX_MESSAGE)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    WebSocketStream::from_partially_read(connection, buffered.into(), Role::Server, Some(config))
        .await
}

/// The channels of exec and attach.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// Runs an exec or attach session.
pub(super) async fn remote(
    stream: WebSocketStream<Connection>,
    limits: Limits,
    remote: Remote,
    (version, coding, closes): (Version, Coding, bool),
    drain: std::time::Duration,
) {
    let (sender, receiver) = messages();
    let (stdin, typed) = input();
    let (resize, sizes) = input();
    let mut feeders: Vec<_> = (0..=RESIZE).map(|_| None).collect();
    let mut place = |channel: u8, wanted, feeder| {
        feeders[usize::from(channel)] = Some(feeder).filter(|_| wanted);
    };
    place(STDIN, remote.stdin, stdin);
    place(RESIZE, remote.terminal, resize);
    let output = |channel: u8, wanted: bool| wanted.then(|| new_output(channel, &sender));
    let client = Client {
        version,
        stdin: remote.stdin.then_some(typed),
        stdout: output(STDOUT, remote.stdout),
        stderr: output(STDERR, remote.stderr),
        resize: remote.terminal.then_some(sizes),
        error: new_output(ERROR, &sender),
        gone: limits.gone.clone(),
    };
    drop(sender);
    let (to, from) = stream.split();
    let reading = read(from, Read { feeders, coding, closes, activity: limits.activity.clone() });
    let writing = write(to, receiver, coding, false, limits.activity.clone());
    let work = async {
        // By this clients know that the session is up.
        let first = client.stdout.as_ref().or(client.stderr.as_ref()).unwrap_or(&client.error);
        first.send(Bytes::new()).await.ok();
        session::run(remote, client, drain).await;
    };
    conversation::run(limits, reading, writing, work).await;
}

/// Runs a port-forward session: one connection for each of the request's ports, data on channel 2n and errors on 2n+1.
pub(super) async fn forward(
    stream: WebSocketStream<Connection>,
    limits: Limits,
    (sandbox, ports): (Arc<Sandbox>, Vec<u16>),
    (coding, closes): (Coding, bool),
) {
    let (sender, receiver) = messages();
    let (mut feeders, mut connections) = (Vec::new(), Vec::new());
    for (port, data) in ports.into_iter().zip((0..u8::MAX - 1).step_by(2)) {
        let (feeder, input) = input();
        feeders.extend([Some(feeder), None]);
        let (output, error) = (new_output(data, &sender), new_output(data + 1, &sender));
        connections.push((port, input, output, error));
    }
    drop(sender);
    let (to, from) = stream.split();
    let reading = read(from, Read { feeders, coding, closes, activity: limits.activity.clone() });
    let writing = write(to, receiver, coding, closes, limits.activity.clone());
    let work = join_all(connections.into_iter().map(|(port, input, output, error)| {
        let sandbox = sandbox.clone();
        async move {
            let port_told = Bytes::copy_from_slice(&port.to_le_bytes());
            output.send(port_told.clone()).await.ok();
            error.send(port_told).await.ok();
            forward::connect(&sandbox, port, input, output, error).await;
        }
    }));
    let gone = limits.gone.clone();
    let work = async {
        tokio::select! {
            _ = work => {}
            () = gone.cancelled() => {}
        }
    };
    conversation::run(limits, reading, writing, work).await;
}

/// A channel is never reset by a client.
fn new_output(channel: u8, to: &mpsc::Sender<Message>) -> Output {
    Output::new(channel.into(), to.clone()).0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        // The example of RFC 6455, section 1.3.
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers
    }

    #[test]
    fn the_client_s_first_choice_that_is_known_counts() {
        let offered = ["v9.channel.k8s.io", "v4.channel.k8s.io", "v5.channel.k8s.io"];
        let agreed = agree(&headers(), &offered.map(str::to_owned), false).unwrap();
        assert_eq!(agreed.name, "v4.channel.k8s.io");
        assert_eq!(agreed.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(agree(&headers(), &[], false).unwrap().name, "");
        let tunnel = ["SPDY/3.1+portforward.k8s.io".to_owned()];
        assert_eq!(agree(&headers(), &tunnel, true).unwrap().protocol, Protocol::Tunnel);
        assert_eq!(agree(&headers(), &tunnel, false).unwrap_err(), Disagreed::Protocol);
        assert_eq!(agree(&HeaderMap::new(), &[], false).unwrap_err(), Disagreed::Malformed);
    }
}
