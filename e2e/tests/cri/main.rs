//! CRI from outside: each call with its error paths, on each runtime, and nothing left behind after it.
//!
//! Each test has a world of its own: a daemon, a registry and a network that nothing else sees.
#![forbid(unsafe_code)]
#![allow(missing_docs)]

/// A test on crun and on runc, with the leak check at its end.
macro_rules! on_each_runtime {
    ($($(#[$attribute:meta])* fn $name:ident($world:ident) $body:block)+) => {
        $(
            $(#[$attribute])*
            mod $name {
                #[allow(unused_imports)]
                use super::*;

                fn on(runtime: &'static str) {
                    let world = e2e::World::start(e2e::Options { runtime, ..Default::default() });
                    body(&world);
                    world.finish();
                }

                fn body($world: &e2e::World) $body

                #[test]
                fn crun() {
                    on("crun");
                }

                #[test]
                fn runc() {
                    on("runc");
                }
            }
        )+
    };
}

mod bad_disk;
mod bad_frozen;
mod bad_image;
mod bad_plugin;
mod bad_registry;
mod bad_runtime;
mod bad_shim;
mod bad_volume;
mod container;
mod exec;
mod exits;
mod fsck;
mod images;
mod join;
mod logs;
mod network;
mod node;
mod planted;
mod recovery;
mod resources;
mod restart;
mod sandbox;
mod volumes;

use tonic::{Code, Status};

/// The code of an expected failure.
fn code<T: std::fmt::Debug>(result: &Result<T, Status>) -> Code {
    result.as_ref().expect_err("this has to fail").code()
}

/// An expected failure: its code, and a part of what it says.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: &Result<T, Status>, with: Code, saying: &str) {
    let status = result.as_ref().expect_err("this has to fail");
    assert_eq!(status.code(), with, "{status}");
    assert!(status.message().contains(saying), "{:?} does not say {saying:?}", status.message());
}

const NO_SUCH_ID: &str = "00000000000000000000000000000000000000000000000000000000deadbeef";
