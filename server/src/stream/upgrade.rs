//! A client's connection: plain or under TLS, and what a session has of it after the upgrade.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// After how long without a word the kernel asks whether the client is still there, and how often it does.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;
/// How often it is looked whether a client hung up, while nothing is read from it.
const LOOK: Duration = Duration::from_millis(500);

/// The bytes of a connection.
#[derive(Debug)]
pub(super) enum Connection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    /// Settings that every connection gets.
    pub(super) fn settle(socket: &TcpStream) -> io::Result<()> {
        socket.set_nodelay(true)?;
        sockopt::set_socket_keepalive(socket, true)?;
        sockopt::set_tcp_keepidle(socket, KEEPALIVE)?;
        sockopt::set_tcp_keepintvl(socket, KEEPALIVE_INTERVAL)?;
        Ok(sockopt::set_tcp_keepcnt(socket, KEEPALIVE_PROBES)?)
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(context, parts),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// What a session gets.
#[derive(Debug)]
pub(super) struct Taken {
    pub connection: Connection,
    /// What the client sent before it had our answer.
    pub buffered: Bytes,
    pub hangup: Hangup,
}

/// Takes the connection out of hyper's hands.
pub(super) fn take(upgraded: Upgraded) -> io::Result<Taken> {
    let parts = upgraded
        .downcast::<TokioIo<Connection>>()
        .map_err(|_| io::Error::other("an upgrade of another connection"))?;
    let connection = parts.io.into_inner();
    let hangup = Hangup(connection.socket().as_fd().try_clone_to_owned()?);
    Ok(Taken { connection, buffered: parts.read_buf, hangup })
}

/// Tells when a client has hung up, also while what it sent before that is not read.
#[derive(Debug)]
pub(super) struct Hangup(OwnedFd);

impl Hangup {
    /// Resolves then.
    pub(super) async fn happened(&self) {
        while !self.is_true() {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn is_true(&self) -> bool {
        let mut poll = [PollFd::new(&self.0, PollFlags::RDHUP)];
        let asked = rustix::event::poll(&mut poll, Some(&Timespec::default()));
        asked.is_ok_and(|ready| ready > 0)
    }
}
