//! What the snapshotter promises, on a real kernel. Needs root, and says so without it.

mod archive;
mod basic;
mod gnu;
mod hostile;
mod lean;
mod mount;
mod private;
mod property;
mod snapshots;
mod store;
mod tar;
mod verify;
