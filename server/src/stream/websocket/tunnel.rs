//! A byte stream in binary messages, whose boundaries mean nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;

use super::super::upgrade::Connection;
use super::channel::good_bye;

/// The stream. It ends with the connection's close.
#[derive(Debug)]
pub(in super::super) struct Tunnel {
    stream: WebSocketStream<Connection>,
    /// What is left of the last message.
    read: Bytes,
    said_good_bye: bool,
}

impl Tunnel {
    pub(in super::super) fn new(stream: WebSocketStream<Connection>) -> Self {
        Self { stream, read: Bytes::new(), said_good_bye: false }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.read.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_next(context)) {
                Some(Ok(Frame::Binary(bytes))) => self.read = bytes,
                Some(Ok(Frame::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(_)) => {}
                Some(Err(err)) => return Poll::Ready(Err(io::Error::other(err))),
            }
        }
        let count = self.read.len().min(buffer.remaining());
        buffer.put_slice(&self.read[..count]);
        self.read.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.stream).poll_ready(context)).map_err(io::Error::other)?;
        let frame = Frame::Binary(Bytes::copy_from_slice(bytes));
        Pin::new(&mut self.stream).start_send(frame).map_err(io::Error::other)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context).map_err(io::Error::other)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.said_good_bye {
            ready!(Pin::new(&mut self.stream).poll_ready(context)).map_err(io::Error::other)?;
            Pin::new(&mut self.stream).start_send(good_bye()).map_err(io::Error::other)?;
            self.said_good_bye = true;
        }
        Pin::new(&mut self.stream).poll_close(context).map_err(io::Error::other)
    }
}
