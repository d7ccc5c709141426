//! Our own interface beside CRI.

/// What podwrightd tells and does beyond CRI. A method that a server does not implement answers
/// `Unimplemented`.
pub mod v1 {
    pub use generated::*;

    #[allow(missing_docs, missing_debug_implementations, clippy::all, clippy::pedantic)]
    mod generated {
        include!(concat!(env!("OUT_DIR"), "/podwright.v1.rs"));
    }
}
