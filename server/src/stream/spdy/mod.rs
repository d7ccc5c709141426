//! SPDY/3.1 as far as the kubelet and kubectl speak it: streams that the client opens, and no flow control.
//!
//! `frame` and `header` are the protocol: bytes to events and back, without I/O. `connection` moves the bytes of
//! one connection and knows nothing of what its streams are for.
//!
//! The kubelet's library never sends a window update and ignores those it gets, so back-pressure is TCP's alone: a
//! stream that is not read stops the others of its connection once its buffer is full.

pub(super) mod connection;
pub(super) mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub(super) mod header;
