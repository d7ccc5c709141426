//! Who looks on while output is read.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;

use super::channel::{Answer, Shared};
use super::line::Stream;

/// Pipes that copies of output go to. A pipe that is full, or whose reader has gone, is closed at once.
#[derive(Default)]
pub(super) struct Viewers(HashMap<u64, Viewer>);

struct Viewer {
    log: u64,
    stream: Stream,
    pipe: OwnedFd,
    /// Answered when this ends: `WouldBlock` if the viewer did not keep up.
    ended: u64,
}

impl Viewers {
    /// `key` is the pipe's in the epoll, which tells when its reader has gone.
    pub(super) fn insert(&mut self, key: u64, log: u64, stream: Stream, pipe: OwnedFd, ended: u64) {
        self.0.insert(key, Viewer { log, stream, pipe, ended });
    }

    pub(super) fn show(&mut self, log: u64, stream: Stream, bytes: &[u8], shared: &Shared) {
        if self.0.is_empty() {
            return;
        }
        self.0.retain(|_, viewer| {
            if viewer.log != log || viewer.stream != stream {
                return true;
            }
            let answer: Answer = match rustix::io::write(&viewer.pipe, bytes) {
                Ok(count) if count == bytes.len() => return true,
                Ok(_) | Err(rustix::io::Errno::AGAIN) => Err(io::ErrorKind::WouldBlock.into()),
                Err(_) => Ok(()),
            };
            shared.answer(viewer.ended, answer);
            false
        });
    }

    /// The reader of that pipe has gone.
    pub(super) fn end(&mut self, key: u64, shared: &Shared) {
        if let Some(viewer) = self.0.remove(&key) {
            shared.answer(viewer.ended, Ok(()));
        }
    }

    /// The log is over.
    pub(super) fn end_all(&mut self, log: u64, shared: &Shared) {
        self.0.retain(|_, viewer| {
            let stays = viewer.log != log;
            if !stays {
                shared.answer(viewer.ended, Ok(()));
            }
            stays
        });
    }
}
