//! Commands that need no pod: `-info`, `-v`, `delete` of nothing.

use std::process::{Command, Stdio};

use api::types::RuntimeInfo;
use prost::Message;

use crate::pod::{binary, runtime};

#[test]
fn the_version_and_the_runtime_s_features_are_told() {
    let output = Command::new(binary()).arg("-v").output().expect("run");
    assert!(String::from_utf8_lossy(&output.stdout).contains(env!("CARGO_PKG_VERSION")));
    // Told nothing, it asks the runc on its PATH.
    let others = std::env::var_os("PATH").unwrap_or_default();
    let dirs = runtime().parent().map(Into::into).into_iter().chain(std::env::split_paths(&others));
    let path = std::env::join_paths(dirs).expect("paths without colons");
    let mut info = Command::new(binary());
    info.arg("-info").env("PATH", path).stdin(Stdio::null());
    let output = info.output().expect("run");
    let info = RuntimeInfo::decode(&output.stdout[..]).expect("a message");
    assert_eq!(info.name, "podwright-shim");
    let features = info.features.expect("runc has features").value;
    let features: serde_json::Value = serde_json::from_slice(&features).expect("json");
    assert!(features["ociVersionMax"].is_string());
}

#[test]
fn a_wrong_command_line_is_explained() {
    let output = Command::new(binary()).args(["-id", "a", "launch"]).output().expect("run");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("unknown command"));
}
