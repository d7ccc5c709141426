//! The protocol edge: the only module that names `api` and `tonic`. Parses requests into checked values, runs
//! operations, and turns results back into messages.

mod from_proto;
pub(crate) mod image;
mod in_flight;
mod signal;
mod status;
