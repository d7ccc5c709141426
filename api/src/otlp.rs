//! OpenTelemetry's traces, as a collector takes them.

pub use generated::*;

#[allow(missing_docs, missing_debug_implementations, clippy::all, clippy::pedantic)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/opentelemetry.proto.v1.rs"));
}
