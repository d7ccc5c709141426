//! Layers to root file systems.
//!
//! [`mount`] turns the description of a root file system into a mount. It stands alone: with the
//! feature `unpack` off it is all this crate has, which is what a statically linked shim needs.

#![forbid(unsafe_code)]

mod error;
pub mod mount;

pub use error::{Error, Result};
