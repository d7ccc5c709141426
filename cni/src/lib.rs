//! Pod networks through CNI plugins: the runtime's half of the CNI specification, versions 0.3.0 to 1.1.0.
//!
//! A [`ConfigSet`] finds the node's [`Network`] in a directory of configurations, a [`Watcher`] says when
//! to look again, and a [`Runtime`] executes its chain of plugins for one [`Attachment`] (a container id
//! and an interface name). [`netns`] makes and removes the network namespaces that attachments live in.
//!
//! Everything is synchronous and blocks the calling thread, at most until its [`Deadline`]. Plugins, and
//! whatever they print, are not trusted: their output is capped, they inherit no descriptor and only a
//! few variables of the environment, and one that hangs is killed together with its process group.
//!
//! The crate keeps no state in memory. What it keeps on disk is libcni's result cache, in libcni's layout,
//! so that other tools and other runtimes on the node can read it, and beside it links to the programs of a packet
//! filter that the node's `iptables` no longer stands for. It never decides *whether* a pod gets a
//! network, never retries, and never releases what an ADD that failed may have allocated: the caller, who
//! keeps the durable record, calls [`Runtime::del`] for that.

#![deny(unsafe_code)]

mod address;
mod attachment;
mod cache;
mod confdir;
mod config;
mod deadline;
mod detour;
mod engine;
mod error;
mod lease;
mod link;
mod native;
mod netlink;
pub mod netns;
mod plugin;
mod process;
mod result;
mod runtime;
#[allow(unsafe_code)]
mod sys;
mod version;
mod watch;

pub use attachment::{Attachment, Bandwidth, Capabilities, Dns, IpRange, PortMapping};
pub use cache::CachedAttachment;
pub use confdir::{ConfigSet, FileError};
pub use config::{Network, Plugin};
pub use deadline::{Cancel, Deadline};
pub use engine::{Engine, Engines};
pub use error::{Answer, Error, Result, Verb};
pub use result::{CniResult, Interface, Ip, IpNet, ResultDns, Route};
pub use runtime::Runtime;
pub use version::SpecVersion;
pub use watch::Watcher;
