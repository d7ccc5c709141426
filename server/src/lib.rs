//! The daemon's modules as a library for the package in `fuzz/`. In every other build it is empty.

#![deny(unsafe_code)]
#![cfg_attr(fuzzing, allow(dead_code, unused_imports))]

#[cfg(fuzzing)]
pub mod fuzz;

#[cfg(fuzzing)]
mod config;
#[cfg(fuzzing)]
mod container;
#[cfg(fuzzing)]
mod cri;
#[cfg(fuzzing)]
mod daemon;
#[cfg(fuzzing)]
mod error;
#[cfg(fuzzing)]
mod failpoint;
#[cfg(fuzzing)]
mod host;
#[cfg(fuzzing)]
mod id;
#[cfg(fuzzing)]
mod image;
#[cfg(fuzzing)]
mod leftover;
#[cfg(fuzzing)]
mod operation;
#[cfg(fuzzing)]
mod recover;
#[cfg(fuzzing)]
mod resource;
#[cfg(fuzzing)]
mod sandbox;
#[cfg(fuzzing)]
mod store;
#[cfg(fuzzing)]
mod stream;
#[cfg(fuzzing)]
#[allow(unsafe_code)]
mod sys;
#[cfg(fuzzing)]
mod telemetry;
