//! Images: names, registries, the pull, and what is here.
pub(crate) mod config;
pub(crate) mod digest;
pub(crate) mod error;
pub(crate) mod manifest;
pub(crate) mod platform;
pub(crate) mod reference;
pub(crate) mod registry;
