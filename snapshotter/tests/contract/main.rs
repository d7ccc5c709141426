//! What the snapshotter promises, on a real kernel. Needs root, and says so without it.

mod mount;
mod private;
