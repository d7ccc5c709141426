//! Commands that need no pod: `-info`, `-v`, `delete` of nothing.

use std::process::{Command, Stdio};

use api::types::RuntimeInfo;
use prost::Message;

use crate::pod::binary;

#[test]
fn the_version_and_the_runtime_s_features_are_told() {
    let output = Command::new(binary()).arg("-v").output().expect("run");
    assert!(String::from_utf8_lossy(&output.stdout).contains(env!("CARGO_PKG_VERSION")));
    let output = Command::new(binary()).arg("-info").stdin(Stdio::null()).output().expect("run");
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
