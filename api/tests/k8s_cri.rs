//! Our transcription of CRI v1 against an independent one: every message, field, enum value and
//! method of the proto file that the `k8s-cri` crate ships is in ours, with the same number and
//! type, but for the changes that later versions of the interface made.
//!
//! The crate itself is never built (it wants protoc): it is a dependency of a target that does
//! not exist, so cargo pins and fetches its source and does nothing more.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet};

/// What is on the wire differently since: the fact, and what it says now.
const CHANGED: &[(&str, &str)] = &[
    // Environment variables need not be UTF-8.
    ("message runtime.v1.KeyValue field 2", "Optional Bytes value"),
];

/// The methods of the interface at the level we transcribed.
const METHODS: usize = 43;

/// What a set of proto files says of one package on the wire, one entry for each fact.
type Facts = BTreeMap<String, String>;

#[test]
fn everything_in_k8s_cri_is_in_ours_identically() {
    let ours = facts(&ours());
    let mut different = Vec::new();
    for (fact, theirs) in facts(&theirs()) {
        let changed = CHANGED.iter().find(|(changed, _)| *changed == fact);
        let expected = changed.map_or(theirs.as_str(), |(_, now)| now);
        let ours = ours.get(&fact).map_or("missing", String::as_str);
        if ours != expected {
            different.push(format!("{fact}: {expected} became {ours}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn every_listed_change_is_one() {
    let theirs = facts(&theirs());
    for (fact, now) in CHANGED {
        let then = theirs.get(*fact).unwrap_or_else(|| panic!("k8s-cri lacks {fact}"));
        assert_ne!(then, now, "{fact}");
    }
}

#[test]
fn all_methods_are_there() {
    assert_eq!(facts(&ours()).keys().filter(|fact| fact.starts_with("method ")).count(), METHODS);
}

fn ours() -> FileDescriptorSet {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    protox::compile(["cri/v1/service.proto"], [root]).expect("our own proto files")
}

fn theirs() -> FileDescriptorSet {
    let file = k8s_cri().join("proto/v1.proto");
    protox::compile([&file], [file.parent().expect("a directory")]).expect("k8s-cri's proto file")
}

/// Where cargo keeps the source of `k8s-cri`; fetches it the first time.
fn k8s_cri() -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let package = packages.iter().find(|package| package["name"] == "k8s-cri").expect("k8s-cri");
    let manifest = Path::new(package["manifest_path"].as_str().expect("a path"));
    manifest.parent().expect("a directory").to_owned()
}

fn facts(files: &FileDescriptorSet) -> Facts {
    let mut facts = Facts::new();
    for file in files.file.iter().filter(|file| file.package() == "runtime.v1") {
        for message in &file.message_type {
            message_facts(file.package(), message, &mut facts);
        }
        for r#enum in &file.enum_type {
            enum_facts(file.package(), r#enum, &mut facts);
        }
        for service in &file.service {
            for method in &service.method {
                let name =
                    format!("method {}.{}/{}", file.package(), service.name(), method.name());
                let says = format!(
                    "({}{}) returns ({}{})",
                    if method.client_streaming() { "stream " } else { "" },
                    method.input_type(),
                    if method.server_streaming() { "stream " } else { "" },
                    method.output_type(),
                );
                facts.insert(name, says);
            }
        }
    }
    facts
}

fn message_facts(scope: &str, message: &DescriptorProto, facts: &mut Facts) {
    let name = format!("{scope}.{}", message.name());
    let is_map = message.options.as_ref().is_some_and(|options| options.map_entry());
    facts.insert(format!("message {name}"), (if is_map { "map entry" } else { "message" }).into());
    for field in &message.field {
        let kind = if field.type_name().is_empty() {
            format!("{:?}", field.r#type())
        } else {
            field.type_name().to_owned()
        };
        let presence = if field.proto3_optional() { " with presence" } else { "" };
        let oneof = field
            .oneof_index
            .map(|index| format!(" of {}", message.oneof_decl[index as usize].name()))
            .unwrap_or_default();
        facts.insert(
            format!("message {name} field {}", field.number()),
            format!("{:?} {kind} {}{presence}{oneof}", field.label(), field.name()),
        );
    }
    for nested in &message.nested_type {
        message_facts(&name, nested, facts);
    }
    for r#enum in &message.enum_type {
        enum_facts(&name, r#enum, facts);
    }
}

fn enum_facts(scope: &str, r#enum: &EnumDescriptorProto, facts: &mut Facts) {
    let name = format!("{scope}.{}", r#enum.name());
    for value in &r#enum.value {
        facts.insert(format!("enum {name} value {}", value.number()), value.name().to_owned());
    }
}
