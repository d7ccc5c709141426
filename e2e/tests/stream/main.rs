//! Exec, attach and port-forward from outside: every protocol, real clients, and those who mean ill.
#![forbid(unsafe_code)]
#![allow(missing_docs)]

mod abuse;
mod attach;
mod exec;
mod forward;
mod kubectl;
mod limits;
mod tls;
mod websocket;

use e2e::{Options, World};

/// A world on crun unless the test is about runtimes.
fn world() -> World {
    World::start(Options::default())
}

fn each_runtime(test: impl Fn(&World)) {
    for runtime in ["crun", "runc"] {
        let world = World::start(Options { runtime, ..Default::default() });
        test(&world);
        world.finish();
    }
}
