//! What the node says of itself.

use e2e::cri::*;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::container;
use e2e::{Driver, Options, World, eventually};

fn condition(world: &World, name: &str) -> RuntimeCondition {
    let status = world.client.status(StatusRequest::default()).unwrap().status.unwrap();
    status.conditions.into_iter().find(|condition| condition.r#type == name).unwrap()
}

#[test]
fn version_is_what_the_kubelet_insists_on() {
    let world = World::start(Options::default());
    let version = world.client.version(VersionRequest { version: "0.1.0".into() }).unwrap();
    assert_eq!(version.version, "0.1.0");
    assert_eq!(version.runtime_api_version, "v1");
    assert_eq!(version.runtime_name, "podwright");
    let parts: Vec<&str> = version.runtime_version.trim_start_matches('v').split('.').collect();
    assert!(parts.len() == 3 && parts[0].parse::<u32>().is_ok(), "{}", version.runtime_version);
    world.finish();
}

#[test]
fn status_tells_conditions_handlers_and_configuration() {
    let world = World::start(Options::default());
    assert!(condition(&world, "RuntimeReady").status);
    assert!(condition(&world, "NetworkReady").status);
    let status = world.client.status(StatusRequest { verbose: true }).unwrap();
    let handlers: Vec<&str> =
        status.runtime_handlers.iter().map(|handler| handler.name.as_str()).collect();
    for name in ["", "crun", "runc"] {
        assert!(handlers.contains(&name), "{handlers:?}");
    }
    assert!(status.features.is_some());
    let config: serde_json::Value = serde_json::from_str(&status.info["config"]).unwrap();
    assert!(config.is_object());
    assert!(status.info["cniconfig"].contains("pods"), "{:?}", status.info);
    assert!(world.client.status(StatusRequest::default()).unwrap().info.is_empty());
    world.finish();
}

#[test]
fn network_readiness_follows_the_configuration_directory() {
    let world = World::start(Options { conflist: Some(String::new()), ..Default::default() });
    let condition_now = condition(&world, "NetworkReady");
    assert!(!condition_now.status);
    assert_eq!(condition_now.reason, "NetworkPluginNotReady");
    assert!(condition(&world, "RuntimeReady").status);
    let leases = world.path("cni/ipam").display().to_string();
    let path = world.path("cni/conf/10-pods.conflist");
    std::fs::write(&path, e2e::daemon::bridge(&leases)).unwrap();
    eventually("the network to be ready", || {
        condition(&world, "NetworkReady").status.then_some(())
    });
    std::fs::remove_file(&path).unwrap();
    eventually("the network to be gone", || {
        (!condition(&world, "NetworkReady").status).then_some(())
    });
    world.finish();
}

#[test]
fn runtime_config_tells_the_cgroup_driver_and_takes_the_pod_cidr() {
    let world = World::start(Options::default());
    let config = world.client.runtime_config(RuntimeConfigRequest {}).unwrap();
    let expected = match world.driver() {
        Driver::Cgroupfs => CgroupDriver::Cgroupfs,
        Driver::Systemd => CgroupDriver::Systemd,
    };
    assert_eq!(config.linux.unwrap().cgroup_driver(), expected);
    let network_config = Some(NetworkConfig { pod_cidr: "10.99.0.0/24".into() });
    let runtime_config = Some(RuntimeConfig { network_config });
    world.client.update_runtime_config(UpdateRuntimeConfigRequest { runtime_config }).unwrap();
    world.finish();
}

#[test]
fn what_is_not_brought_yet_says_so() {
    let world = World::start(Options::default());
    let request = CheckpointContainerRequest::default();
    let answer = world.client.checkpoint_container(request);
    assert_eq!(crate::code(&answer), tonic::Code::Unimplemented);
    world.finish();
}

#[test]
fn a_second_daemon_keeps_out() {
    let world = World::start(Options::default());
    let daemon = e2e::place::binary("podwrightd");
    let output =
        world.command(daemon).arg("--config").arg(world.path("config.toml")).output().unwrap();
    assert!(!output.status.success());
    assert!(!output.stderr.is_empty() || !output.stdout.is_empty());
    world.client.version(VersionRequest::default()).unwrap();
    world.finish();
}

#[test]
fn mistakes_in_the_configuration_are_told_at_once() {
    let world = World::without_daemon(Options::default());
    std::fs::write(world.path("conf.d/a.toml"), "log_level = 'loud'\nrooot = '/x'\n").unwrap();
    let output = world
        .command(e2e::place::binary("podwrightd"))
        .args(["--check", "--config"])
        .arg(world.path("config.toml"))
        .output()
        .unwrap();
    assert!(!output.status.success());
    let told = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(told.contains("log_level") && told.contains("did you mean root?"), "{told}");
}

/// As when the journal that it wrote to is gone.
#[test]
fn a_log_that_takes_nothing_fails_nothing() {
    let mut world = World::without_daemon(Options::default());
    world.start_registry();
    let dir = world.path("binaries");
    std::fs::create_dir(&dir).unwrap();
    std::os::unix::fs::symlink(e2e::place::shim(), dir.join("podwright-shim")).unwrap();
    let daemon = e2e::place::binary("podwrightd");
    let script = format!("#!/bin/sh\nexec {} \"$@\" 2>/dev/full\n", daemon.display());
    std::fs::write(dir.join("podwrightd"), script).unwrap();
    world.sh(&format!("chmod 755 {}/podwrightd", dir.display()));
    world.use_binaries(&dir);
    world.start_daemon();
    world.settle();
    world.pull(BUSYBOX);
    let pod = world.pod("quiet");
    let id = pod.run(container("c", BUSYBOX, &[]));
    assert_eq!(world.exec(&id, "echo out"), "out\n");
    pod.end();
    world.finish();
}
