//! Starting shims, and cleaning up after them.
//!
//! A shim's `start` command makes the shim and prints its address; its `delete` command ends
//! what a dead shim has left. Both are programs of others for all we know: each gets a time
//! limit, what they print is capped, and a hung one is killed with its process group.

mod command;
mod output;
mod resolve;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::bootstrap::{BootstrapParams, Extension, LogLevel};
use api::task::DeleteResponse;
use prost::Message;

pub use output::{Bootstrap, Protocol};
pub use resolve::{binary_name, resolve};

use crate::client::{NAMESPACE, Options};

/// Which shim is to do something, and where.
#[derive(Debug, Clone)]
pub struct Shim<'a> {
    /// The program (see [`resolve()`]).
    pub binary: &'a Path,
    /// The sandbox or container it is for.
    pub id: &'a str,
    /// Its bundle: the directory it runs in.
    pub bundle: &'a Path,
    /// The daemon's gRPC socket, for shims that call back; may be empty.
    pub address: &'a str,
    /// The daemon's ttrpc socket, where shims send events; empty: none.
    pub events: &'a str,
    /// The program that can publish events for old shims; may be empty.
    pub publish_binary: &'a Path,
    /// Whether the shim should say more.
    pub debug: bool,
}

/// Why a shim's command did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such program.
    #[error("no shim for runtime {name:?}: looked for {wanted} beside the daemon and on PATH")]
    Unresolved {
        /// The runtime's name as configured.
        name: String,
        /// The program's name.
        wanted: String,
    },
    /// The runtime's name is not of the form `io.containerd.<name>.<version>`.
    #[error("invalid runtime name {0:?}")]
    InvalidName(String),
    /// The program could not be run.
    #[error("run {binary}")]
    Spawn {
        /// The program.
        binary: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It took too long and was killed.
    #[error("{binary} {verb} took longer than {limit:?}")]
    Deadline {
        /// The program.
        binary: PathBuf,
        /// Its command.
        verb: &'static str,
        /// What it was granted.
        limit: Duration,
    },
    /// It ended badly; what it said.
    #[error("{binary} {verb}: {said}")]
    Failed {
        /// The program.
        binary: PathBuf,
        /// Its command.
        verb: &'static str,
        /// The end of its error output, or its exit status.
        said: String,
    },
    /// It ended well, but what it printed makes no sense.
    #[error("{binary} {verb} printed {what}")]
    Malformed {
        /// The program.
        binary: PathBuf,
        /// Its command.
        verb: &'static str,
        /// What it printed.
        what: String,
    },
}

/// Starts a shim.
pub async fn start(
    shim: &Shim<'_>,
    options: &Options,
    limit: Duration,
) -> Result<Bootstrap, Error> {
    let params = BootstrapParams {
        instance_id: shim.id.into(),
        namespace: NAMESPACE.into(),
        log_level: if shim.debug { LogLevel::Debug } else { LogLevel::Info }.into(),
        containerd_version: env!("CARGO_PKG_VERSION").into(),
        containerd_ttrpc_address: shim.events.into(),
        containerd_grpc_address: shim.address.into(),
        containerd_binary: shim.publish_binary.to_string_lossy().into_owned(),
        extensions: options
            .clone()
            .pack()
            .map(|value| Extension { value: Some(value) })
            .into_iter()
            .collect(),
        socket_dir: None,
    };
    let printed = command::run(shim, "start", params.encode_to_vec(), limit).await?;
    Bootstrap::parse(&printed).ok_or_else(|| Error::Malformed {
        binary: shim.binary.to_owned(),
        verb: "start",
        what: format!("{:?}", String::from_utf8_lossy(&printed)),
    })
}

/// Ends what a dead shim has left behind; returns the exit status it reports.
pub async fn delete(shim: &Shim<'_>, limit: Duration) -> Result<u32, Error> {
    let printed = command::run(shim, "delete", Vec::new(), limit).await?;
    let answer = DeleteResponse::decode(&printed[..]).map_err(|error| Error::Malformed {
        binary: shim.binary.to_owned(),
        verb: "delete",
        what: error.to_string(),
    })?;
    Ok(answer.exit_status)
}
