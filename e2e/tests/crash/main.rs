//! The crash matrix: the daemon dies, or an effect fails, at every point of a pod's life, and nothing comes of it.
//!
//! A scenario drives a pod through its whole life as a kubelet would. It is run once undisturbed, and the trace of
//! the daemon's failpoints tells which points it passes, and how often; there is no list of them here. Then it is run
//! once for each of them: the daemon is killed there, or the work at the point fails, the next daemon starts, and the
//! kubelet goes on. Each time the pod has to come to its end, with every exit told once and right, every log line there,
//! every CNI ADD followed by its DEL and nothing left on the host; and a bystander pod must not have noticed.
//!
//! `PODWRIGHT_MATRIX=full` walks every point in every kind of pod, and every second point after the first.
#![forbid(unsafe_code)]
#![allow(missing_docs)]

mod bystander;
mod exits;
mod kubelet;
mod node;
mod pull;
mod walk;

use walk::{Disturbance, walk};

/// The daemon is killed at each point in turn, and then again with another kill in the recovery that follows.
#[test]
fn killed_at_every_point() {
    walk(Disturbance::Kill);
}

/// The daemon is killed at instants that no point marks: while a plugin, a shim or a runtime works.
#[test]
fn killed_at_any_instant() {
    walk(Disturbance::KillAnytime);
}

/// The work at each point fails, and then again with a kill in the release that follows.
#[test]
fn failed_at_every_point() {
    walk(Disturbance::Fail);
}

/// The ordinary daemon has no failpoints: nothing in it could arm them, or fail at one.
#[test]
fn the_ordinary_daemon_has_no_failpoints() {
    let holds = |program: &str, word: &str| {
        let bytes = std::fs::read(e2e::place::binary(program)).unwrap();
        bytes.windows(word.len()).any(|window| window == word.as_bytes())
    };
    for word in ["PODWRIGHT_FAILPOINTS", "told to fail at"] {
        assert!(holds("podwrightd-failpoints", word), "{word}");
        assert!(!holds("podwrightd", word), "{word}");
    }
}
