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

mod apparmor;
mod bad_archive;
mod bad_disk;
mod bad_frozen;
mod bad_image;
mod bad_plugin;
mod bad_registry;
mod bad_runtime;
mod bad_shim;
mod bad_transfer;
mod bad_volume;
mod bench;
mod capabilities;
mod container;
mod containerd;
mod devices;
mod events;
mod exec;
mod exits;
mod export;
mod fsck;
mod handlers;
mod identity;
mod images;
mod in_process;
mod join;
mod logs;
mod memory;
mod mounts;
mod namespaces;
mod network;
mod node;
mod paths;
mod planted;
mod progress;
mod prometheus;
mod recovery;
mod resources;
mod restart;
mod sandbox;
mod seccomp;
mod selinux;
mod service;
mod stats;
#[macro_use]
mod systemd;
mod traces;
mod unsettled;
mod userns;
mod verify;
mod volumes;

use e2e::World;
use e2e::cri::{ContainerConfig, LinuxContainerSecurityContext};
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

/// A container's security context, to be changed.
fn security(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap()
}

/// A field of a container's first process, from /proc/1/status.
fn inside(world: &World, id: &str, field: &str) -> String {
    of_status(&world.exec(id, "cat /proc/1/status"), field)
}

/// A field of a /proc/<pid>/status.
fn of_status(status: &str, field: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{field} is not in {status}")).trim().to_owned()
}

const NO_SUCH_ID: &str = "00000000000000000000000000000000000000000000000000000000deadbeef";
