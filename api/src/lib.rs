//! Podwright's wire contracts as types: CRI v1, our own calls beside it, containerd's shim
//! interfaces, and what podwright-shim adds to them.
//!
//! Everything here is generated from `proto/`, apart from the names by which services, events
//! and packed messages are known on the wire. There is no logic and no I/O.
//!
//! With the feature `cri` the crate needs tonic; without it, prost alone.

#![forbid(unsafe_code)]

mod any;
#[cfg(feature = "cri")]
pub mod containerd;
#[cfg(feature = "cri")]
pub mod cri;
#[cfg(feature = "cri")]
pub mod node;
#[cfg(feature = "cri")]
pub mod otlp;

pub use any::{NotPacked, pack, unpack};
/// What [`pack`] takes.
pub use prost::Name;

/// CRI and our own interface beside it, described by themselves: an encoded
/// `google.protobuf.FileDescriptorSet`.
#[cfg(feature = "cri")]
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/grpc.bin"));

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/shim.rs"));
}

/// The Task service of a shim. Its versions 2 and 3 share their messages.
pub mod task {
    pub use crate::generated::containerd::task::v3::*;

    /// The service's name before sandboxes.
    pub const SERVICE_V2: &str = "containerd.task.v2.Task";
    /// The service's name since.
    pub const SERVICE_V3: &str = "containerd.task.v3.Task";
}

/// The Sandbox service of a shim.
pub mod sandbox {
    pub use crate::generated::containerd::runtime::sandbox::v1::*;

    /// The service's name.
    pub const SERVICE: &str = "containerd.runtime.sandbox.v1.Sandbox";
}

/// What a shim tells its daemon unasked, and the daemon whoever listens.
pub mod events {
    pub use crate::generated::containerd::events::*;
    pub use crate::generated::containerd::services::events::ttrpc::v1::*;
    pub use crate::generated::containerd::types::Envelope;

    /// The name of the service that takes events.
    pub const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";

    /// The topics under which they are published.
    pub mod topic {
        /// Of [`ContainerCreate`](super::ContainerCreate).
        pub const CONTAINER_CREATE: &str = "/containers/create";
        /// Of [`ContainerDelete`](super::ContainerDelete).
        pub const CONTAINER_DELETE: &str = "/containers/delete";
        /// Of [`TaskCreate`](super::TaskCreate).
        pub const CREATE: &str = "/tasks/create";
        /// Of [`TaskStart`](super::TaskStart).
        pub const START: &str = "/tasks/start";
        /// Of [`TaskOom`](super::TaskOom).
        pub const OOM: &str = "/tasks/oom";
        /// Of [`TaskExit`](super::TaskExit).
        pub const EXIT: &str = "/tasks/exit";
        /// Of [`TaskDelete`](super::TaskDelete).
        pub const DELETE: &str = "/tasks/delete";
        /// Of [`TaskExecAdded`](super::TaskExecAdded).
        pub const EXEC_ADDED: &str = "/tasks/exec-added";
        /// Of [`TaskExecStarted`](super::TaskExecStarted).
        pub const EXEC_STARTED: &str = "/tasks/exec-started";
        /// Of [`TaskPaused`](super::TaskPaused).
        pub const PAUSED: &str = "/tasks/paused";
        /// Of [`TaskResumed`](super::TaskResumed).
        pub const RESUMED: &str = "/tasks/resumed";
        /// Of [`TaskCheckpointed`](super::TaskCheckpointed).
        pub const CHECKPOINTED: &str = "/tasks/checkpointed";
    }
}

/// How a shim is launched.
pub mod bootstrap {
    pub use crate::generated::containerd::runtime::bootstrap::v1::*;
}

/// Values that containerd's interfaces share.
pub mod types {
    pub use crate::generated::containerd::types::*;
    pub use crate::generated::containerd::v1::types::*;
}

/// Options for a shim that drives an OCI runtime.
pub mod runc {
    pub use crate::generated::containerd::runc::v1::*;
}

/// Options for a shim with a configuration file of its own.
pub mod runtimeoptions {
    pub use crate::generated::runtimeoptions::v1::*;
}

/// The payloads of ttrpc's frames.
pub mod ttrpc {
    pub use crate::generated::google::rpc::Status;
    pub use crate::generated::ttrpc::*;
}

/// What podwright-shim understands beyond containerd's interfaces.
pub mod podwright {
    pub use crate::generated::podwright::shim::v1::*;

    /// The name of its own service.
    pub const SERVICE: &str = "podwright.shim.v1.Pod";
}
