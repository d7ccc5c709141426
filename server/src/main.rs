//! podwrightd: a Kubernetes container runtime.
#![deny(unsafe_code)]
#![allow(dead_code)]
mod config;
mod container;
mod cri;
mod error;
mod host;
mod id;
mod image;
mod operation;
mod sandbox;
mod store;
mod telemetry;
fn main() {}
