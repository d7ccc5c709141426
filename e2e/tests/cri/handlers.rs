//! What a handler's configuration makes of its containers.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use e2e::World;
use e2e::cri::*;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::{container, sandbox};
use serde_json::Value;

/// Of the OCI spec that the runtime was given.
fn annotations(world: &World, id: &str) -> Value {
    let request = ContainerStatusRequest { container_id: id.into(), verbose: true };
    let info = world.client.container_status(request).unwrap().info;
    let info: Value = serde_json::from_str(&info["info"]).unwrap();
    info["runtimeSpec"]["annotations"].clone()
}

fn settings(runtime: &str) -> String {
    format!(
        "[handlers.{runtime}]\npod_annotations = ['io.katacontainers.*']\ncontainer_annotations = ['of.container/*']\n\
         rlimits = ['nofile=321:654', 'core=0']\nbase_spec = '/etc/podwright-base.json'\n"
    )
}

fn of_handler(runtime: &'static str) {
    let base = tempfile::NamedTempFile::new().unwrap();
    let spec = serde_json::json!({
        "ociVersion": "1.0.2",
        "annotations": {"of.base": "yes"},
        "mounts": [{"destination": "/of/base", "type": "tmpfs", "source": "tmpfs", "options": ["size=16k"]}],
        "process": {"rlimits": [{"type": "RLIMIT_STACK", "soft": 1_048_576, "hard": 1_048_576}], "cwd": "/of"},
        "linux": {"seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}, "maskedPaths": ["/bin"]},
    });
    std::fs::write(base.path(), spec.to_string()).unwrap();
    let config =
        settings(runtime).replace("/etc/podwright-base.json", base.path().to_str().unwrap());
    let world = World::start(e2e::Options { runtime, config, ..Default::default() });
    world.pull(BUSYBOX);
    let own =
        |list: &[(&str, &str)]| list.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let mut pod = sandbox(&world, "annotated");
    pod.annotations = own(&[("io.katacontainers.x", "of the pod"), ("run.oci.hooks.stdin", "x")]);
    pod.linux.as_mut().unwrap().resources = Some(LinuxContainerResources {
        cpu_shares: 512,
        memory_limit_in_bytes: 1 << 20,
        ..Default::default()
    });
    let pod = world.pod_of(pod);
    let mut config = container("c", BUSYBOX, &[]);
    config.annotations = own(&[("of.container/a", "yes"), ("org.systemd.property.CPUWeight", "1")]);
    let id = pod.run(config);
    let told = annotations(&world, &id);
    for (key, value) in [
        ("io.katacontainers.x", "of the pod"),
        ("of.container/a", "yes"),
        ("of.base", "yes"),
        ("io.kubernetes.cri.container-type", "container"),
        ("io.kubernetes.cri.container-name", "c"),
        ("io.kubernetes.cri.sandbox-id", &pod.id),
        ("io.kubernetes.cri.sandbox-name", "annotated"),
        ("io.kubernetes.cri.sandbox-namespace", "tests"),
        ("io.kubernetes.cri.sandbox-cpu-shares", "512"),
        ("io.kubernetes.cri.sandbox-memory", "1048576"),
    ] {
        assert_eq!(told[key], value, "{key} in {told}");
    }
    for kept_out in ["run.oci.hooks.stdin", "org.systemd.property.CPUWeight"] {
        assert_eq!(told.get(kept_out), None, "{kept_out}");
    }
    let limits = world.exec(&id, "cat /proc/1/limits");
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(limit("Max open files"), ["321", "654"]);
    assert_eq!(limit("Max core file size"), ["0", "0"]);
    assert_eq!(limit("Max stack size"), ["1048576", "1048576"]);
    assert!(world.exec(&id, "cat /proc/self/mounts").contains("tmpfs /of/base "));
    assert_eq!(
        crate::inside(&world, &id, "Seccomp"),
        "0",
        "the base confines nothing and frees nothing"
    );
    assert_eq!(world.exec(&id, "readlink /proc/1/cwd"), "/\n");
    pod.end();
    world.finish();
}

#[test]
fn annotations_limits_and_a_base_on_crun() {
    of_handler("crun");
}

#[test]
fn annotations_limits_and_a_base_on_runc() {
    of_handler("runc");
}

/// Without a word in the configuration, no annotation of a pod's reaches a runtime.
#[test]
fn no_annotation_is_passed_on_unasked() {
    let world = World::start(e2e::Options::default());
    world.pull(BUSYBOX);
    let pod = world.pod("plain");
    let mut config = container("c", BUSYBOX, &[]);
    config.annotations = [("run.oci.keep_original_groups".to_owned(), "1".to_owned())].into();
    let id = pod.create(config);
    let told = annotations(&world, &id);
    let foreign = |key: &&String| {
        let ours = ["run.oci.systemd.subgroup", "org.systemd.property.CollectMode"];
        !key.starts_with("io.kubernetes.cri.") && !ours.contains(&key.as_str())
    };
    assert_eq!(told.as_object().unwrap().keys().filter(foreign).count(), 0, "{told}");
    pod.end();
    world.finish();
}

/// crun does that itself, at every call, unless it finds it done.
#[test]
fn crun_is_executed_where_nobody_can_write_to_it() {
    let world = World::start(e2e::Options { runtime: "crun", ..Default::default() });
    world.pull(BUSYBOX);
    let pod = world.pod("guarded");
    let id = pod.run(container("c", BUSYBOX, &[]));
    let identity = |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    let crun = identity(&world.tool("crun")).unwrap();
    let [shim] = super::memory::shims(&world)[..] else { panic!("one pod has one shim") };
    let descriptors = std::fs::read_dir(format!("/proc/{shim}/fd")).unwrap().flatten();
    let mut paths = descriptors.map(|descriptor| descriptor.path());
    let held = paths.find(|path| identity(path) == Some(crun)).expect("its shim holds crun");
    // Not tried: while it runs anywhere, that is refused for another reason.
    let flags = rustix::fs::statvfs(&held).unwrap().f_flag;
    assert!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY), "{flags:?}");
    assert_eq!(world.try_exec(&id, &["true"], 10).unwrap().exit_code, 0);
    pod.end();
    world.finish();
}
