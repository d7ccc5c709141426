//! podwrightd: a Kubernetes container runtime.
#![deny(unsafe_code)]
mod container;
mod id;
mod sandbox;
fn main() {}
