//! Containers: what they were asked to be, what they are, and each verb on them.
pub(crate) mod config;
pub(crate) mod facts;
pub(crate) mod place;
pub(crate) mod signal;
pub(crate) mod spec;
pub(crate) mod state;
