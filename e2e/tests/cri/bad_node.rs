//! A node that does not work as it should: networks, plugins and runtimes that fail or hang.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use e2e::cri::*;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::{container, sandbox};
use e2e::{Options, World, eventually};
use serde_json::json;
use tonic::Code;

/// A conflist of one plugin, which is `script`, put where the world's plugins are looked for.
pub(crate) fn with_plugin(script: &str) -> World {
    let conflist = json!({
        "cniVersion": "1.0.0", "name": "scripted", "plugins": [{"type": "scripted"}],
    });
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let plugin = dir.path().join("scripted");
    write_script(&plugin, script);
    let config =
        format!("network.bin_dirs = [\"{}\"]\nnetwork.timeout_seconds = 2\n", dir.path().display());
    // The directory stays as long as the test's process: the world may outlive this function.
    std::mem::forget(dir);
    World::start(Options { config, conflist: Some(conflist.to_string()), ..Default::default() })
}

fn write_script(path: &std::path::Path, script: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// What the kubelet's clean-up of a failed pod does, where the daemon kept a record.
fn finish_failed(world: &World) {
    let list = world.client.list_pod_sandbox(ListPodSandboxRequest::default()).unwrap();
    for item in list.items {
        assert_eq!(item.state(), PodSandboxState::SandboxNotready);
        let pod_sandbox_id = item.id;
        let stop = StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
        world.client.stop_pod_sandbox(stop).unwrap();
        world.client.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id }).unwrap();
    }
}

#[test]
fn a_plugin_that_fails() {
    let script = r#"case $CNI_COMMAND in
    ADD) echo '{"cniVersion":"1.0.0","code":111,"msg":"no room","details":"the pool is empty"}'; exit 1;;
    VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}';;
    esac"#;
    let world = with_plugin(script);
    let status = world.try_pod(sandbox(&world, "fails")).map(|pod| pod.id).unwrap_err();
    for part in ["scripted", "no room", "the pool is empty"] {
        assert!(status.message().contains(part), "{status}");
    }
    finish_failed(&world);
    world.finish();
}

#[test]
fn a_plugin_that_hangs() {
    let script = "[ $CNI_COMMAND = ADD ] && sleep 1000; exit 0";
    let world = with_plugin(script);
    let start = Instant::now();
    let status = world.try_pod(sandbox(&world, "hangs")).map(|pod| pod.id).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    assert!(status.message().contains("scripted"), "{status}");
    assert!(status.message().contains("no answer after"), "{status}");
    finish_failed(&world);
    eventually("the plugin to be gone", || {
        (!world.sh("busybox ps").contains("sleep 1000")).then_some(())
    });
    world.finish();
}

#[test]
fn a_plugin_that_floods() {
    let world = with_plugin("[ $CNI_COMMAND = ADD ] && yes; exit 0");
    let status = world.try_pod(sandbox(&world, "floods")).map(|pod| pod.id).unwrap_err();
    assert!(status.message().contains("scripted"), "{status}");
    finish_failed(&world);
    world.finish();
}

/// Stop and Remove are asked again until DEL works; until then the record stays.
#[test]
fn a_plugin_whose_del_fails_for_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let broken = dir.path().join("broken");
    std::fs::write(&broken, "").unwrap();
    let script = format!(
        r#"case $CNI_COMMAND in
    ADD) echo '{{"cniVersion":"1.0.0","interfaces":[{{"name":"eth0","sandbox":"'$CNI_NETNS'"}}],"ips":[{{"address":"10.1.2.3/24","interface":0}}]}}';;
    DEL) if [ -e {0} ]; then echo '{{"cniVersion":"1.0.0","code":11,"msg":"try again"}}'; exit 1; fi;;
    esac"#,
        broken.display()
    );
    let world = with_plugin(&script);
    let pod = world.pod("del-fails");
    assert_eq!(pod.ip(), "10.1.2.3");
    assert!(pod.stop().unwrap_err().message().contains("try again"));
    assert_eq!(world.sandbox_status(&pod.id).unwrap().state(), PodSandboxState::SandboxNotready);
    std::fs::remove_file(&broken).unwrap();
    pod.end();
    world.finish();
}

#[test]
fn a_broken_conflist() {
    let world =
        World::start(Options { conflist: Some("{ \"name\": ".into()), ..Default::default() });
    let status = world.client.status(StatusRequest::default()).unwrap().status.unwrap();
    let network = status.conditions.iter().find(|c| c.r#type == "NetworkReady").unwrap();
    assert!(!network.status);
    assert!(network.message.contains("10-pods.conflist"), "{}", network.message);
    let answer = world.try_pod(sandbox(&world, "none")).map(|pod| pod.id);
    assert!(answer.is_err());
    finish_failed(&world);
    world.finish();
}

/// Nobody can say what a plugin that is gone had allocated, so the record stays until it is there to be asked.
#[test]
fn a_plugin_that_is_not_installed() {
    let world = with_plugin("exit 0");
    let plugins = world.sh(&format!("grep bin_dirs {}", world.path("conf.d/test.toml").display()));
    let plugin = std::path::Path::new(plugins.split('"').nth(1).unwrap()).join("scripted");
    let away = plugin.with_extension("away");
    std::fs::rename(&plugin, &away).unwrap();
    let answer = world.try_pod(sandbox(&world, "absent")).map(|pod| pod.id);
    assert!(answer.unwrap_err().message().contains("scripted"));
    std::fs::rename(&away, &plugin).unwrap();
    finish_failed(&world);
    world.finish();
}

/// A handler that is `script` before it is the real runtime.
fn with_runtime(script: &str) -> World {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let runtime = dir.path().join("scripted-runtime");
    let crun = e2e::place::Tools::find().program("crun");
    write_script(&runtime, &format!("{script}\nexec {} \"$@\"", crun.display()));
    let config =
        format!("default_runtime = \"scripted\"\nruntimes.scripted = \"{}\"\n", runtime.display());
    std::mem::forget(dir);
    World::start(Options { config, ..Default::default() })
}

/// A script that complains where runtimes do: in the file that `--log` names.
fn fails_at(verb: &str, saying: &str) -> String {
    format!(
        r#"case " $* " in *" {verb} "*)
    log=$(echo "$*" | sed -n 's/.*--log \([^ ]*\).*/\1/p')
    echo '{{"level":"error","msg":"{saying}"}}' >>"$log"; exit 1;;
    esac"#
    )
}

#[test]
fn a_runtime_that_fails_at_create() {
    let world = with_runtime(&fails_at("create", "the runtime is out of order"));
    world.pull(BUSYBOX);
    let pod = world.pod("create");
    let id = pod.create(container("c", BUSYBOX, &[]));
    let status = world.start_container(&id).unwrap_err();
    assert!(status.message().contains("the runtime is out of order"), "{status}");
    let told = world.container_status(&id).unwrap();
    assert_eq!((told.exit_code, told.reason.as_str()), (128, "StartError"));
    assert!(told.message.contains("the runtime is out of order"), "{}", told.message);
    pod.end();
    world.finish();
}

#[test]
fn a_runtime_that_fails_at_start() {
    let world = with_runtime(&fails_at("start", "no start today"));
    world.pull(BUSYBOX);
    let pod = world.pod("start");
    let id = pod.create(container("c", BUSYBOX, &[]));
    assert!(world.start_container(&id).unwrap_err().message().contains("no start today"));
    assert_eq!(world.container_status(&id).unwrap().reason, "StartError");
    pod.end();
    world.finish();
}

#[test]
fn a_runtime_that_is_not_installed() {
    let config =
        "default_runtime = \"absent\"\nruntimes.absent = \"/no/such/runtime\"\n".to_owned();
    let mut world = World::without_daemon(Options { config, ..Default::default() });
    world.start_registry();
    world.start_daemon();
    world.settle();
    match world.try_pod(sandbox(&world, "absent")) {
        Err(status) => assert!(status.message().contains("/no/such/runtime"), "{status}"),
        Ok(pod) => {
            world.pull(BUSYBOX);
            let id = pod.create(container("c", BUSYBOX, &[]));
            let started = world.start_container(&id);
            assert!(started.unwrap_err().message().contains("/no/such/runtime"));
            pod.end();
        }
    }
    world.finish();
}

/// The client that gave up and asks again gets what its first request made, never "name is reserved".
#[test]
fn a_slow_plugin_and_an_impatient_client() {
    let script = r#"case $CNI_COMMAND in
    ADD) sleep 1.5; echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"'$CNI_NETNS'"}],"ips":[{"address":"10.1.2.3/24","interface":0}]}';;
    esac"#;
    let world = with_plugin(script);
    let config = sandbox(&world, "slow");
    let request = RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
    let first = world.client.run_pod_sandbox_within(Duration::from_millis(700), request);
    let status = first.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains("network"), "the stage is told: {status}");
    let pod = world.pod_of(config);
    assert_eq!(
        world.client.list_pod_sandbox(ListPodSandboxRequest::default()).unwrap().items.len(),
        1
    );
    pod.end();
    world.finish();
}
