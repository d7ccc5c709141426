//! The harness of the black-box tests, the demonstration and the benchmark: real binaries on private roots.
//!
//! A [`World`] is a mount, network and pid namespace of its own with a registry, CNI plugins, a daemon and a
//! client. What happens in it ends with it, however the test ends: its pid 1 leaves when the test's end of a
//! pipe closes, and the kernel takes the rest. [`leak`] compares what a world holds before and after.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "used by the tests of this package alone")]

pub mod bench;
pub mod cgroup;
pub mod channel;
pub mod client;
pub mod collector;
pub mod cosign;
pub mod daemon;
pub mod density;
pub mod disk;
pub mod failpoint;
pub mod hang;
pub mod image;
pub mod kube;
pub mod leak;
pub mod measure;
pub mod peer;
pub mod place;
pub mod pod;
pub mod poll;
pub mod pull_bench;
pub mod registry;
pub mod scripted;
pub mod soak;
pub mod spdy;
pub mod standin;
pub mod stream;
pub mod throttle;
pub mod throughput;
pub mod websocket;
pub mod world;

pub use cgroup::Driver;
pub use client::Client;
pub use poll::{eventually, within};
pub use world::{Options, World};

/// What of containerd's interface is served.
pub use api::containerd;
/// CRI, as the tests speak it.
pub use api::cri::v1 as cri;
/// What podwrightd serves beside CRI.
pub use api::node::v1 as node;
