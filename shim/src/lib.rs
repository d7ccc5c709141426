//! How a daemon drives shims, and what both sides share.
//!
//! * [`launch`]: starts a shim of any kind (`start`), cleans up after a dead one (`delete`)
//! * [`client`]: talks to it: tasks, sandbox, and what only podwright-shim understands
//! * [`record`]: what a shim leaves on disk when a container exits
//! * [`frame`], [`mounts`]: the wire, for both sides
//! * [`sys`]: a system call that both make
//!
//! The program `podwright-shim` is built from this package too, without the feature `client`.

#![deny(unsafe_code)]

#[cfg(feature = "client")]
pub mod client;
pub mod frame;
#[cfg(feature = "client")]
pub mod launch;
pub mod mounts;
pub mod record;
#[allow(unsafe_code, reason = "nothing else is in there")]
pub mod sys;
