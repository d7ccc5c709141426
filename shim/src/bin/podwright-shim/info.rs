//! `-info`: which OCI runtime stands behind the shim, and what it can do.

use std::io::{self, Read, Write};
use std::process::{Command, Stdio};

use api::runc;
use api::types::{RuntimeInfo, RuntimeRequest, RuntimeVersion};
use prost::Message;
use prost_types::Any;

const MAX_INPUT: u64 = 4 << 20;
const MAX_FEATURES: u64 = 4 << 20;
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// Prints a `RuntimeInfo`.
pub(crate) fn run() -> Result<(), String> {
    let mut input = Vec::new();
    let _ = io::stdin().take(MAX_INPUT).read_to_end(&mut input);
    let options = options(&input);
    let binary = options.map_or_else(String::new, |options| options.binary_name);
    let binary = if binary.is_empty() { "runc".to_owned() } else { binary };
    let info = RuntimeInfo {
        name: "podwright-shim".into(),
        version: Some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").into(),
            revision: String::new(),
        }),
        options: None,
        features: features(&binary).map(|value| Any { type_url: FEATURES.into(), value }),
        annotations: Default::default(),
    };
    io::stdout().write_all(&info.encode_to_vec()).map_err(|error| error.to_string())
}

/// Daemons send a request around the options, or the options alone.
fn options(input: &[u8]) -> Option<runc::Options> {
    let wrapped = RuntimeRequest::decode(input).ok().and_then(|request| request.options);
    let bare = || Any::decode(input).ok();
    wrapped.or_else(bare).and_then(|any| api::unpack(&any).ok())
}

fn features(binary: &str) -> Option<Vec<u8>> {
    let mut child = Command::new(binary)
        .arg("features")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut text = Vec::new();
    child.stdout.take()?.take(MAX_FEATURES).read_to_end(&mut text).ok()?;
    child.wait().ok()?.success().then_some(text)
}
