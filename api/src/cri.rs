//! The kubelet's interface.

/// CRI v1, at the level of Kubernetes 1.36 with what 1.37 adds. A method that a server does not
/// implement answers `Unimplemented`.
pub mod v1 {
    pub use super::encoded::*;
    pub use generated::*;

    #[allow(missing_docs, missing_debug_implementations, clippy::all, clippy::pedantic)]
    mod generated {
        include!(concat!(env!("OUT_DIR"), "/runtime.v1.rs"));
    }
}

mod encoded;
mod redact;
