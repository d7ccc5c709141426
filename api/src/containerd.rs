//! The part of containerd's gRPC interface that only reads: what cAdvisor, shims and `ctr` ask for.

#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::pedantic
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/containerd/services.rs"));
}

macro_rules! services {
    ($($(#[$doc:meta])* $name:ident;)+) => {
        $($(#[$doc])*
        pub mod $name {
            pub use super::generated::containerd::services::$name::v1::*;
        })+
    };
}

services! {
    /// What was asked for.
    containers;
    /// Bytes by digest.
    content;
    /// What happens.
    events;
    /// Names of images.
    images;
    /// Which containerd it is.
    introspection;
    /// What keeps clients apart.
    namespaces;
    /// What runs.
    tasks;
    /// Who answers.
    version;
}

/// The header that names the namespace of a call.
pub const NAMESPACE: &str = "containerd-namespace";

/// The type URL of an OCI spec, as JSON, in an `Any`.
pub const SPEC: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
