//! Devices: those of the request, and those that CDI describes.

use std::path::Path;

use e2e::World;
use e2e::cri::*;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::container;
use serde_json::{Value, json};
use tonic::Code;

use crate::refused;

fn device(host: &str, target: &str, permissions: &str) -> Device {
    Device {
        host_path: host.into(),
        container_path: target.into(),
        permissions: permissions.into(),
    }
}

fn with(name: &str, devices: Vec<Device>) -> ContainerConfig {
    ContainerConfig { devices, ..container(name, BUSYBOX, &[]) }
}

fn as_user(mut config: ContainerConfig, user: i64, group: i64) -> ContainerConfig {
    let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    context.run_as_user = Some(Int64Value { value: user });
    context.run_as_group = Some(Int64Value { value: group });
    config
}

/// Nodes beside the host's, so that their owner and number are known.
fn nodes(world: &World) -> String {
    let dir = world.path("nodes").display().to_string();
    world.sh(&format!(
        "mkdir -p {dir}/more && mknod -m 660 {dir}/full c 1 7 && mknod -m 666 {dir}/more/zero c 1 5 && \
         chown 12:34 {dir}/full {dir}/more/zero && touch {dir}/more/file && ln -s full {dir}/link"
    ));
    dir
}

on_each_runtime! {
    fn nodes_and_directories_with_their_permissions(world) {
        world.pull(BUSYBOX);
        let dir = nodes(world);
        let pod = world.pod("devices");
        // Not one that every container may use; kernels differ in what they have.
        let some = ["/dev/fuse", "/dev/hwrng"].into_iter().find(|path| Path::new(path).exists());
        let id = pod.run(with("c", vec![
            device(&format!("{dir}/link"), "/dev/as-full", "rw"),
            device(&dir, "/dev/all/", "rwm"),
            device(some.expect("a device"), "/dev/only-read", "r"),
        ]));
        let sh = |line: &str| world.exec(&id, line);
        assert_eq!(sh("stat -c '%F %t:%T %a %u:%g' /dev/as-full"), "character special file 1:7 660 12:34\n");
        assert_eq!(sh("stat -c '%t:%T %u:%g' /dev/all/full /dev/all/more/zero"), "1:7 12:34\n1:5 12:34\n");
        assert_eq!(sh("ls /dev/all/more"), "zero\n", "what is no device is left out");
        assert!(sh("echo x 2>&1 >/dev/as-full || true").contains("No space left"));
        // The cgroup lets it be read, not written.
        assert_eq!(sh("sh -c ': </dev/only-read' && echo opened"), "opened\n");
        assert!(sh("sh -c ': >>/dev/only-read' 2>&1 || true").contains("Operation not permitted"));
        let not_asked = "busybox mknod /tmp/kmsg c 1 11 && head -c1 /tmp/kmsg 2>&1 || true";
        assert!(sh(not_asked).contains("Operation not permitted"));
        for (wrong, says) in [
            (device(&format!("{dir}/more/file"), "/dev/x", "rw"), "is no device"),
            (device(&format!("{dir}/none"), "/dev/x", "rw"), "No such file"),
            (device("/dev/null", "/dev/x", "rwx"), "permissions"),
            (device("/dev/null", "dev/x", "rw"), "container_path"),
        ] {
            refused(&pod.try_create(with("wrong", vec![wrong])), Code::InvalidArgument, says);
        }
        pod.end();
    }

    fn cdi_devices_bring_all_that_their_vendor_says(world) {
        world.pull(BUSYBOX);
        let dir = nodes(world);
        let proof = world.path("hook").display().to_string();
        world.sh(&format!("mkdir -p {dir}/lib && echo library >{dir}/lib/vendor.so"));
        let cdi = json!({
            "cdiVersion": "0.6.0", "kind": "vendor.com/gpu",
            "containerEdits": {
                "env": ["VENDOR=here"],
                "mounts": [{"hostPath": format!("{dir}/lib"), "containerPath": "/usr/lib/vendor",
                            "options": ["ro", "nosuid", "bind"]}],
            },
            "devices": [{"name": "0", "containerEdits": {
                "env": ["GPU=zero"],
                "deviceNodes": [{"path": "/dev/gpu0", "hostPath": format!("{dir}/full"), "permissions": "rw"}],
                "additionalGids": [4242],
                "hooks": [{"hookName": "createRuntime", "path": "/bin/sh",
                           "args": ["sh", "-c", format!("cat >{proof}")]}],
            }}],
        });
        write(world, "cdi/a/vendor.json", &cdi);
        let pod = world.pod("cdi");
        let mut config = as_user(container("c", BUSYBOX, &[]), 1000, 1000);
        config.cdi_devices = vec![CdiDevice { name: "vendor.com/gpu=0".into() }];
        config.annotations.insert("cdi.k8s.io/plugin_x".into(), "vendor.com/gpu=0".into());
        config.envs.push(KeyValue { key: "GPU".into(), value: "overwritten".into() });
        let id = pod.run(config);
        let sh = |line: &str| world.exec(&id, line);
        assert_eq!(sh("env | grep -E '^(GPU|VENDOR)' | sort"), "GPU=zero\nVENDOR=here\n");
        assert_eq!(sh("stat -c '%t:%T %u:%g' /dev/gpu0"), "1:7 1000:1000\n");
        assert!(sh("echo x 2>&1 >/dev/gpu0 || true").contains("No space left"), "its cgroup has it");
        assert_eq!(sh("cat /usr/lib/vendor/vendor.so"), "library\n");
        assert!(sh("grep ' /usr/lib/vendor ' /proc/self/mountinfo").contains(" ro,nosuid"));
        assert!(sh("grep Groups /proc/self/status").contains("4242"));
        assert!(world.read(&proof).contains(&id), "the hook was given the container's state");
        pod.end();
    }
}

fn write(world: &World, name: &str, cdi: &Value) {
    let path = world.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, cdi.to_string()).unwrap();
}

/// Where the world of [`on_each_runtime`] looks too.
fn gpu(kind: &str, env: &str) -> Value {
    json!({"cdiVersion": "0.5.0", "kind": kind, "devices": [{"name": "0", "containerEdits": {"env": [env]}}]})
}

#[test]
fn cdi_files_are_read_as_they_change() {
    let world = World::start(e2e::Options::default());
    world.pull(BUSYBOX);
    let pod = world.pod("cdi");
    let made = |name: &str, device: &str| {
        let mut config = container(name, BUSYBOX, &[]);
        config.annotations.insert("cdi.k8s.io/plugin".into(), device.into());
        pod.try_create(config)
    };
    refused(
        &made("a", "vendor.com/new=0"),
        Code::InvalidArgument,
        "there is no device vendor.com/new=0",
    );
    write(&world, "cdi/a/new.json", &gpu("vendor.com/new", "FROM=first"));
    let from = |name: &str| {
        let id = made(name, "vendor.com/new=0").unwrap();
        world.start_container(&id).unwrap();
        world.exec(&id, "env | grep FROM")
    };
    assert_eq!(from("b"), "FROM=first\n");
    write(&world, "cdi/a/new.json", &gpu("vendor.com/new", "FROM=second"));
    assert_eq!(from("c"), "FROM=second\n");
    std::fs::create_dir_all(world.path("cdi/b")).unwrap();
    let yaml = "cdiVersion: '0.5.0'\nkind: vendor.com/new\ndevices:\n- name: '0'\n  containerEdits:\n    env:\n    - FROM=yaml\n";
    std::fs::write(world.path("cdi/b/new.yaml"), yaml).unwrap();
    assert_eq!(from("d"), "FROM=yaml\n", "a later directory wins");
    std::fs::write(world.path("cdi/b/new.yaml"), "cdiVersion: [").unwrap();
    assert_eq!(from("e"), "FROM=second\n");
    refused(&made("f", "vendor.com/new=1"), Code::InvalidArgument, "new.yaml is not read: ");
    refused(&made("g", "new"), Code::InvalidArgument, "annotations[\"cdi.k8s.io/plugin\"]: ");
    pod.end();
    world.finish();
}

#[test]
fn devices_belong_to_the_container_s_user_where_that_is_configured() {
    let world = World::start(e2e::Options {
        config: "[devices]\nownership_from_security_context = true\n".into(),
        ..Default::default()
    });
    world.pull(BUSYBOX);
    let dir = nodes(&world);
    let pod = world.pod("owners");
    let devices = vec![device(&format!("{dir}/full"), "/dev/own", "rw")];
    let id = pod.run(as_user(with("user", devices.clone()), 1000, 2000));
    assert_eq!(world.exec(&id, "stat -c %u:%g /dev/own"), "1000:2000\n");
    let id = pod.run(with("nobody", devices));
    assert_eq!(world.exec(&id, "stat -c %u:%g /dev/own"), "12:34\n", "no user is named");
    pod.end();
    world.finish();
}
