//! The daemon's modules as a library for the package in `fuzz/`. In every other build it is empty.

#![cfg(fuzzing)]
#![deny(unsafe_code)]
#![allow(dead_code, unused_imports)]

pub mod fuzz;

mod config;
mod container;
mod cri;
mod daemon;
mod error;
mod export;
mod failpoint;
mod host;
mod id;
mod image;
mod leftover;
mod metric;
mod operation;
mod recorder;
mod recover;
mod resource;
mod sandbox;
mod scrape;
mod store;
mod stream;
#[allow(unsafe_code)]
mod sys;
mod systemd;
mod telemetry;
mod trace;
mod watchdog;
