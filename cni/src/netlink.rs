//! Talks to the kernel over netlink, synchronously.
//!
//! The kernel handles a request while it is being sent, so its answers are there when [`Socket::call`] reads them:
//! nothing here waits, but for [`Socket::wait`]. A socket belongs to the network namespace of the thread that opened
//! it and works from every other thread too.
//!
//! Messages are put together by hand: what is needed of the protocol is small, and these few lines build faster than
//! a crate of all its types.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

use crate::deadline::Deadline;
use crate::sys;

pub(crate) const NLM_F_REQUEST: u16 = 1;
pub(crate) const NLM_F_ACK: u16 = 4;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
/// Fail if it is there.
pub(crate) const NLM_F_EXCL: u16 = 0x200;
/// Make it if it is not there.
pub(crate) const NLM_F_CREATE: u16 = 0x400;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// An attribute that consists of attributes says so where the kernel wants it said.
pub(crate) const NLA_F_NESTED: u16 = 0x8000;
/// Without the flags for nesting and byte order.
const ATTRIBUTE_TYPE: u16 = 0x3fff;
const HEADER_LEN: usize = 16;
const ATTRIBUTE_HEADER_LEN: usize = 4;
/// Of a header.
const FLAGS_AT: usize = 6;
/// The kernel sends a dump in pieces of at most 32 KiB, to who reads so much at once.
const MAX_READ: usize = 32 << 10;

/// A request: its header, what belongs to its kind, and attributes.
#[derive(Debug, Clone)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    /// Of a kind (`RTM_…`), with what comes before the attributes. An acknowledgement is always asked for, unless
    /// it is a dump.
    pub(crate) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let ack = if flags & NLM_F_DUMP == NLM_F_DUMP { 0 } else { NLM_F_ACK };
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | NLM_F_REQUEST | ack).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(fixed);
        Self(bytes)
    }

    /// Attributes alone, for the value of another.
    pub(crate) fn bare() -> Self {
        Self(Vec::new())
    }

    /// What was put in so far.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// With an attribute.
    pub(crate) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        self.open(kind);
        let start = self.0.len();
        self.0.extend_from_slice(value);
        self.close(start);
        self
    }

    /// With a number.
    pub(crate) fn with_u32(self, kind: u16, value: u32) -> Self {
        self.with(kind, &value.to_ne_bytes())
    }

    /// With a text that ends in a zero.
    pub(crate) fn with_text(self, kind: u16, text: &str) -> Self {
        let mut value = text.as_bytes().to_vec();
        value.push(0);
        self.with(kind, &value)
    }

    /// With an attribute that consists of what `fill` adds.
    pub(crate) fn with_nested(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        self.open(kind);
        let start = self.0.len();
        self = fill(self);
        self.close(start);
        self
    }

    /// With bytes that are no attribute: the head of what is nested.
    pub(crate) fn with_bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// That is answered only if it fails.
    pub(crate) fn quiet(mut self) -> Self {
        let flags = u16_at(&self.0, FLAGS_AT).unwrap_or_default() & !NLM_F_ACK;
        self.0[FLAGS_AT..FLAGS_AT + 2].copy_from_slice(&flags.to_ne_bytes());
        self
    }

    fn open(&mut self, kind: u16) {
        self.0.extend_from_slice(&[0; 2]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
    }

    fn close(&mut self, start: usize) {
        let len = self.0.len() - start + ATTRIBUTE_HEADER_LEN;
        let at = start - ATTRIBUTE_HEADER_LEN;
        // Nothing that is sent from here comes near 64 KiB.
        let len = u16::try_from(len).unwrap_or(u16::MAX);
        self.0[at..at + 2].copy_from_slice(&len.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn seal(&self, sequence: u32, into: &mut Vec<u8>) {
        let start = into.len();
        into.extend_from_slice(&self.0);
        let len = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        into[start..start + 4].copy_from_slice(&len.to_ne_bytes());
        into[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
    }
}

/// What the kernel said to one request: the bodies of its messages, or an error.
pub(crate) type Reply = io::Result<Vec<Vec<u8>>>;

/// A netlink socket.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

impl Socket {
    /// To links, addresses and routes of the calling thread's network namespace.
    pub(crate) fn route() -> io::Result<Self> {
        // No protocol is the number 0, NETLINK_ROUTE.
        Self::open(None)
    }

    pub(crate) fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        // Dumps are then of what was asked for alone. Kernels before 4.20 cannot do it: readers look themselves too.
        let _ = sys::netlink_strict(&fd);
        Ok(Self(fd))
    }

    /// Gets what happens in these groups (`RTNLGRP_…`) from now on.
    pub(crate) fn join(&self, group: u32) -> io::Result<()> {
        sys::netlink_join(&self.0, group)
    }

    /// Makes requests, all in one system call, and gives the reply to each. The kernel goes on after one that fails.
    pub(crate) fn call(&self, messages: &[Message]) -> io::Result<Vec<Reply>> {
        // The kernel takes nothing for an error.
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let mut bytes = Vec::new();
        for (message, sequence) in messages.iter().zip(1..) {
            message.seal(sequence, &mut bytes);
        }
        send(&self.0, &bytes, SendFlags::empty())?;
        let mut replies: Vec<Reply> = messages.iter().map(|_| Ok(Vec::new())).collect();
        let mut open = messages.len();
        while open > 0 {
            let piece = self.read()?;
            for part in parts(&piece) {
                let at = usize::try_from(part.sequence).unwrap_or_default().wrapping_sub(1);
                let Some(reply) = replies.get_mut(at) else { continue };
                match part.kind {
                    NLMSG_DONE | NLMSG_ERROR => {
                        open = open.saturating_sub(1);
                        if let Some(error) = part.error()? {
                            *reply = Err(error);
                        }
                    }
                    _ => {
                        if let Ok(bodies) = reply {
                            bodies.push(part.body.to_vec());
                        }
                    }
                }
            }
        }
        Ok(replies)
    }

    /// One request that is answered with an acknowledgement, or with a message before it.
    pub(crate) fn ask(&self, message: Message) -> Reply {
        self.call(&[message])?.pop().unwrap_or_else(|| Ok(Vec::new()))
    }

    /// Requests of which none may fail; the first failure, and which it was.
    pub(crate) fn all(&self, messages: &[Message]) -> Result<(), (usize, io::Error)> {
        let replies = self.call(messages).map_err(|e| (0, e))?;
        replies
            .into_iter()
            .enumerate()
            .try_for_each(|(at, reply)| reply.map(drop).map_err(|e| (at, e)))
    }

    /// Requests that happen together or not at all: the first and the last of them say so and get no answer, and the
    /// last but one is the only one that is acknowledged.
    pub(crate) fn transact(&self, messages: &[Message]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for (message, sequence) in messages.iter().zip(1..) {
            message.seal(sequence, &mut bytes);
        }
        send(&self.0, &bytes, SendFlags::empty())?;
        let mut acknowledged = false;
        loop {
            let piece = match self.read() {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && acknowledged => return Ok(()),
                other => other?,
            };
            for part in parts(&piece).filter(|part| part.kind == NLMSG_ERROR) {
                match part.error()? {
                    Some(error) => return Err(error),
                    None => acknowledged = true,
                }
            }
        }
    }

    /// Waits until something happens in the groups that were joined; false when the deadline passed or the caller
    /// cancelled first. That more happened than fits is something too.
    pub(crate) fn wait(&self, deadline: &Deadline) -> io::Result<bool> {
        loop {
            if deadline.check().is_err() {
                return Ok(false);
            }
            let mut fds = vec![PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::IN)];
            fds.extend(deadline.cancel_fd().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            let timeout = Timespec::try_from(deadline.left()).ok();
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(e) => return Err(e.into()),
            }
            if fds[0].revents().is_empty() {
                continue;
            }
            match self.read() {
                Ok(_) => return Ok(true),
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => return Ok(true),
                Err(e) => return Err(e),
            }
        }
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let mut piece = vec![0u8; MAX_READ];
        let (_, len) = recv(&self.0, &mut piece[..], RecvFlags::DONTWAIT)?;
        piece.truncate(len);
        Ok(piece)
    }
}

/// One message of what was read.
struct Part<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

impl Part<'_> {
    /// An acknowledgement is an error message of the number 0, and so is the end of a dump.
    fn error(&self) -> io::Result<Option<io::Error>> {
        match self.body.first_chunk().map(|code| i32::from_ne_bytes(*code)) {
            Some(0) => Ok(None),
            Some(code) => Ok(Some(io::Error::from_raw_os_error(code.saturating_neg()))),
            None if self.kind == NLMSG_DONE => Ok(None),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "a short netlink message")),
        }
    }
}

fn parts(mut bytes: &[u8]) -> impl Iterator<Item = Part<'_>> {
    std::iter::from_fn(move || {
        let len = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let (kind, sequence) = (u16_at(bytes, 4)?, u32_at(bytes, 8)?);
        let body = bytes.get(HEADER_LEN..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Part { kind, sequence, body })
    })
}

/// The attributes behind the first `fixed` bytes of a message's body, or of an attribute's value.
pub(crate) fn attributes(body: &[u8], fixed: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(fixed..).unwrap_or_default();
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & ATTRIBUTE_TYPE;
        let value = rest.get(ATTRIBUTE_HEADER_LEN..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_ne_bytes(*b))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_ne_bytes(*b))
}

/// A value that is a text, with or without its zero.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_comes_out() {
        let message = Message::new(16, 0, &[7; 16])
            .with_text(3, "eth0")
            .with_nested(18, |inner| inner.with_u32(1, 9).with(2, &[1]));
        let mut bytes = Vec::new();
        message.seal(5, &mut bytes);
        assert_eq!(bytes.len() % 4, 0);
        let all: Vec<_> = parts(&bytes).collect();
        assert_eq!((all.len(), all[0].kind, all[0].sequence), (1, 16, 5));
        let found: Vec<_> = attributes(all[0].body, 16).collect();
        assert_eq!((found[0].0, text(found[0].1).as_str()), (3, "eth0"));
        let inner: Vec<_> = attributes(found[1].1, 0).collect();
        assert_eq!(inner, [(1, &9u32.to_ne_bytes()[..]), (2, &[1][..])]);
    }

    #[test]
    fn answers_are_read_with_care() {
        let part = |body| Part { kind: NLMSG_ERROR, sequence: 1, body };
        assert!(part(&[0; 20]).error().unwrap().is_none());
        let refused = (-1i32).to_ne_bytes();
        assert_eq!(part(&refused).error().unwrap().unwrap().raw_os_error(), Some(1));
        let least = i32::MIN.to_ne_bytes();
        assert!(part(&least).error().unwrap().is_some());
        assert!(part(&[0; 3]).error().is_err());
        for len in 0..16 {
            assert_eq!(parts(&vec![0xff; len]).count(), 0);
            assert_eq!(attributes(&vec![0xff; len], 4).count(), 0);
        }
        assert_eq!(parts(&[0; 64]).count(), 0, "a length of 0 ends it");
        assert_eq!(attributes(&[0; 64], 0).count(), 0);
    }
}
