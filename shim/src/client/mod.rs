//! The daemon's half of the shim protocol: calls over one shared connection.
//!
//! Each call but `wait` has a time limit. A call that fails because the shim went away says so
//! ([`Error::is_lost`]), which is not the same as the shim refusing ([`Error::Refused`]).
//! Nothing here is spawned: the caller runs the [`Driver`] on a task of its own.

mod address;
mod connection;
mod error;
mod sandbox;
mod task;
mod time;

pub use connection::{Client, Driver, NAMESPACE, connect};
pub use error::{Code, Error, Result};
pub use sandbox::{CreateSandbox, IdMapping, Namespaces, Started};
pub use task::{CreateTask, Exec, Exit, Options, Podwright, State, Status, Stdio, Users};
