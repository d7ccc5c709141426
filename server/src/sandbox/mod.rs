//! Pod sandboxes.
pub(crate) mod config;
pub(crate) mod state;
