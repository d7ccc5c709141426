//! What the snapshotter promises, on a real kernel. Needs root, and says so without it.

mod basic;
mod mount;
mod private;
#[allow(dead_code, reason = "hostile archives come next")]
mod store;
#[allow(dead_code, reason = "hostile archives come next")]
mod tar;
