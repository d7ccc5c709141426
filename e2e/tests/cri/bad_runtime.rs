//! OCI runtimes that hang, fail, lie, flood, or do half of what they should.

use std::time::{Duration, Instant};

use e2e::cri::*;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::{Pod, container};
use e2e::scripted::{self, HANG, Script};
use e2e::{Options, World, eventually};
use tonic::Code;

use crate::code;

/// What a busy machine may take for what should take seconds.
const PROMPT: Duration = Duration::from_secs(45);

/// A line that complains where runtimes do: in the file that `--log` names.
fn complain(saying: &str) -> String {
    format!(
        r#"log=$(echo "$*" | sed -n 's/.*--log \([^ ]*\).*/\1/p')
        echo '{{"level":"error","msg":"{saying}"}}' >>"$log"; exit 1"#
    )
}

/// Nothing of the scripts may go on running.
fn nothing_hangs(world: &World) {
    eventually("what hung to be gone", || {
        (!world.sh("busybox ps").contains("sleep 1000")).then_some(())
    });
}

/// `end` is asked for while a start hangs at `verb`; both come back soon, and the pod can be ended.
fn cancelled(verb: &str, end: impl Fn(&Pod<'_>, &str) + Sync) {
    let (world, script) = scripted::runtime();
    world.pull(BUSYBOX);
    let other = world.pod("other");
    let pod = world.pod("hangs");
    script.order(verb, HANG);
    let id = pod.create(container("c", BUSYBOX, &[]));
    std::thread::scope(|scope| {
        let start = scope.spawn(|| world.start_container(&id));
        script.until_it_hangs();
        let asked = Instant::now();
        end(&pod, &id);
        let told = start.join().unwrap().unwrap_err();
        assert!(told.message().contains("cancelled"), "{told}");
        assert!(asked.elapsed() < PROMPT, "{:?}", asked.elapsed());
    });
    if let Ok(status) = world.container_status(&id) {
        assert_eq!(status.state(), ContainerState::ContainerExited);
    }
    nothing_hangs(&world);
    script.relent(verb);
    let id = other.run(container("c", BUSYBOX, &[]));
    world.exec(&id, "true");
    pod.end();
    other.end();
    world.finish();
}

#[test]
fn a_create_that_hangs_is_cancelled_by_the_stop_of_its_container() {
    cancelled("create", |pod, id| pod.world.stop_container(id, 30).unwrap());
}

#[test]
fn a_create_that_hangs_is_cancelled_by_the_removal_of_its_container() {
    cancelled("create", |pod, id| pod.world.remove_container(id).unwrap());
}

#[test]
fn a_create_that_hangs_is_cancelled_by_the_stop_of_its_pod() {
    cancelled("create", |pod, _| pod.stop().unwrap());
}

#[test]
fn a_start_that_hangs_is_cancelled_by_the_stop_of_its_container() {
    cancelled("start", |pod, id| pod.world.stop_container(id, 30).unwrap());
}

#[test]
fn a_start_that_hangs_is_cancelled_by_the_removal_of_its_pod() {
    cancelled("start", |pod, _| pod.remove().unwrap());
}

#[test]
fn a_delete_that_hangs() {
    let (world, script) = scripted::runtime();
    world.pull(BUSYBOX);
    let pod = world.pod("delete");
    let id = pod.run(container("c", BUSYBOX, &[]));
    script.order("delete", HANG);
    let asked = Instant::now();
    world.stop_container(&id, 0).unwrap();
    assert!(asked.elapsed() < PROMPT / 2, "stopping does not wait for it: {:?}", asked.elapsed());
    assert_eq!(world.container_status(&id).unwrap().exit_code, 137);
    pod.stop().unwrap();
    pod.remove().unwrap();
    assert!(asked.elapsed() < PROMPT * 2, "{:?}", asked.elapsed());
    nothing_hangs(&world);
    world.finish();
}

#[test]
fn an_exec_that_hangs_is_killed_at_its_timeout() {
    let (world, script) = scripted::runtime();
    world.pull(BUSYBOX);
    let pod = world.pod("exec");
    let id = pod.run(container("c", BUSYBOX, &[]));
    script.order("exec", HANG);
    let asked = Instant::now();
    let answer = world.try_exec(&id, &["true"], 1);
    assert_eq!(code(&answer), Code::DeadlineExceeded);
    assert!(asked.elapsed() < PROMPT / 2, "{:?}", asked.elapsed());
    nothing_hangs(&world);
    script.relent("exec");
    world.exec(&id, "true");
    pod.end();
    world.finish();
}

/// Signals go without the runtime, and states are not asked of it.
#[test]
fn kill_and_state_are_not_needed() {
    let (world, script) = scripted::runtime();
    world.pull(BUSYBOX);
    let pod = world.pod("kill");
    script.order("kill", HANG);
    script.order("state", HANG);
    let id = pod.run(container("c", BUSYBOX, &[]));
    world.stop_container(&id, 0).unwrap();
    pod.end();
    world.finish();
}

/// Every way to fail at create or start is told in the error and in the status, and leaves nothing.
#[test]
fn a_runtime_that_fails() {
    let (world, script) = scripted::runtime();
    world.pull(BUSYBOX);
    let pod = world.pod("fails");
    let ways: [(&str, String, &str); 7] = [
        ("says why", complain("the runtime is out of order"), "the runtime is out of order"),
        ("no word", "exit 3".into(), "exit status 3"),
        ("killed", "kill -KILL $$".into(), "killed by signal 9"),
        ("garbage", "head -c 300000 /dev/urandom >&2; exit 4".into(), ""),
        ("half a log", complain("x").replace("\"}'", "'"), ""),
        ("made a process", "crun \"$@\" <&0; exit 5".into(), "exit status 5"),
        ("left a child", "sleep 1000 <&- >&- 2>&- & exit 6".into(), "exit status 6"),
    ];
    for verb in ["create", "start"] {
        for (name, way, words) in &ways {
            script.order(verb, way);
            let mut config = container(&format!("{verb}-{name}"), BUSYBOX, &[]);
            config.log_path = "c.log".into();
            let id = pod.create(config);
            let status = world.start_container(&id).unwrap_err();
            assert!(status.message().contains(words), "{verb} {name}: {status}");
            let told = world.container_status(&id).unwrap();
            assert_eq!((told.exit_code, told.reason.as_str()), (128, "StartError"), "{name}");
            assert!(told.message.contains(words), "{name}: {}", told.message);
            let left = world.sh(&format!(
                "ls -d /sys/fs/cgroup/{{,*/}}{0}/pod*/{id} 2>/dev/null; true",
                world.cgroup()
            ));
            assert_eq!(left, "", "{verb} {name} left a cgroup");
            script.relent(verb);
            world.remove_container(&id).unwrap();
        }
    }
    nothing_hangs(&world);
    pod.end();
    world.finish();
}

/// It says that all is well, and nothing is there.
#[test]
fn a_runtime_that_lies() {
    let (world, script) = scripted::runtime();
    world.pull(BUSYBOX);
    let pod = world.pod("lies");
    script.order("create", "exit 0");
    let id = pod.create(container("c", BUSYBOX, &[]));
    let status = world.start_container(&id).unwrap_err();
    assert!(status.message().contains("pid"), "{status}");
    assert_eq!(world.container_status(&id).unwrap().reason, "StartError");
    script.relent("create");
    pod.end();
    world.finish();
}

/// What it prints does not fill the state directory for ever.
#[test]
fn a_runtime_that_floods() {
    let (world, script) = scripted::runtime();
    world.pull(BUSYBOX);
    let pod = world.pod("floods");
    for verb in ["start", "delete"] {
        script.order(verb, "exec yes >&2");
        let id = pod.create(container(verb, BUSYBOX, &[]));
        let started = world.start_container(&id);
        assert_eq!(started.is_err(), verb == "start", "{verb}: {started:?}");
        world.stop_container(&id, 0).unwrap();
        script.relent(verb);
        world.remove_container(&id).unwrap();
    }
    let used = world.sh(&format!("du -sk {}", world.path("state/pods").display()));
    let used: u64 = used.split_whitespace().next().unwrap().parse().unwrap();
    assert!(used < 4096, "{used} KiB are left of it");
    pod.end();
    world.finish();
}

/// A daemon that comes back finds a start that hung, and the next one works.
#[test]
fn a_create_that_hangs_while_the_daemon_restarts() {
    let (mut world, script) = scripted::runtime();
    world.pull(BUSYBOX);
    script.order("create", HANG);
    let pod = world.pod("restart");
    let (pod_id, config) = (pod.id.clone(), pod.config.clone());
    let id = pod.create(container("c", BUSYBOX, &[]));
    let impatient = || {
        let request = StartContainerRequest { container_id: id.clone() };
        let deadline = Duration::from_secs(1);
        world.client.timed(deadline, request, |channel, request| async move {
            runtime_service_client::RuntimeServiceClient::new(channel)
                .start_container(request)
                .await
        })
    };
    assert_eq!(code(&impatient()), Code::DeadlineExceeded);
    script.until_it_hangs();
    world.end_daemon(rustix::process::Signal::KILL);
    script.relent("create");
    world.start_daemon();
    let pod = Pod { world: &world, id: pod_id, config };
    world.start_container(&id).unwrap();
    world.exec(&id, "true");
    nothing_hangs(&world);
    pod.end();
    world.finish();
}

#[test]
fn a_runtime_that_is_not_installed() {
    let config =
        "default_runtime = \"absent\"\nruntimes.absent = \"/no/such/runtime\"\n".to_owned();
    let mut world = World::without_daemon(Options { config, ..Default::default() });
    world.begin();
    match world.try_pod(e2e::pod::sandbox(&world, "absent")) {
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

/// Unused orders are no orders.
#[test]
fn a_script_without_orders_is_the_runtime() {
    let (world, _): (World, Script) = scripted::runtime();
    world.pull(BUSYBOX);
    let pod = world.pod("plain");
    let id = pod.run(container("c", BUSYBOX, &[]));
    assert_eq!(world.exec(&id, "echo x"), "x\n");
    pod.end();
    world.finish();
}
