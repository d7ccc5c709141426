//! Compiles the wire contracts under `proto/` with protox, so that no protoc is needed.

use std::path::Path;

use prost::Message;

/// Read by shim and server alike: plain messages, over prost alone.
const SHIM: &[&str] = &[
    "containerd/bootstrap.proto",
    "containerd/events.proto",
    "containerd/events_service.proto",
    "containerd/runc.proto",
    "containerd/runtimeoptions.proto",
    "containerd/sandbox.proto",
    "containerd/task.proto",
    "podwright/shim.proto",
    "ttrpc/ttrpc.proto",
];

/// The kubelet's interface and our own beside it: messages, and both halves of the gRPC services.
const GRPC: &[&str] = &["cri/v1/service.proto", "podwright/v1/node.proto"];

/// What a collector of traces takes: messages alone, since they go over plain HTTP.
const OTLP: &[&str] = &["opentelemetry/trace.proto"];

/// What cAdvisor, shims and `ctr` ask a containerd for.
const CONTAINERD: &[&str] = &[
    "containerd/services/containers.proto",
    "containerd/services/content.proto",
    "containerd/services/events.proto",
    "containerd/services/images.proto",
    "containerd/services/introspection.proto",
    "containerd/services/namespaces.proto",
    "containerd/services/tasks.proto",
    "containerd/services/version.proto",
];

/// CRI messages whose entries stay encoded: `src/cri/encoded.rs` is what they are.
const ENCODED: &[&str] = &[
    "ListPodSandboxResponse",
    "ListContainersResponse",
    "StreamPodSandboxesResponse",
    "StreamContainersResponse",
];

/// CRI messages that carry secrets: `src/redact.rs` writes their `Debug`.
const SECRET: &[&str] = &["runtime.v1.AuthConfig", "runtime.v1.KeyValue"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let root = Path::new("proto");

    let shim = protox::compile(SHIM, [root])?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_server(false)
        .btree_map(".")
        .include_file("shim.rs")
        .compile_fds_with_config(shim, named())?;

    if std::env::var_os("CARGO_FEATURE_CRI").is_some() {
        let otlp = protox::compile(OTLP, [root])?;
        tonic_prost_build::configure().compile_fds_with_config(otlp, named())?;
        let grpc = protox::compile(GRPC, [root])?;
        let out = std::env::var_os("OUT_DIR").ok_or("no OUT_DIR")?;
        std::fs::write(Path::new(&out).join("grpc.bin"), grpc.encode_to_vec())?;
        let own = tonic_prost_build::configure()
            .build_transport(false)
            .generate_default_stubs(true)
            .btree_map(".")
            .skip_debug(SECRET);
        let kept = |message: &&str| {
            (format!(".runtime.v1.{message}"), format!("crate::cri::v1::{message}"))
        };
        ENCODED
            .iter()
            .map(kept)
            .fold(own, |own, (message, path)| own.extern_path(message, path))
            .compile_fds_with_config(grpc, named())?;

        let containerd = protox::compile(CONTAINERD, [root])?;
        // Their shared messages are the shims', too.
        let out = Path::new(&out).join("containerd");
        std::fs::create_dir_all(&out)?;
        tonic_prost_build::configure()
            .build_transport(false)
            .btree_map(".")
            .extern_path(".containerd.types", "crate::types")
            .extern_path(".containerd.v1.types", "crate::types")
            .out_dir(out)
            .include_file("services.rs")
            .compile_fds_with_config(containerd, named())?;
    }
    Ok(())
}

/// Messages know their own names, which an `Any` carries on the wire.
fn named() -> tonic_prost_build::Config {
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    config
}
