//! Calls whose client gives up: the work goes on, the retry joins it, and everybody can see what it waits for.

use std::time::Duration;

use e2e::cri::runtime_service_client::RuntimeServiceClient;
use e2e::cri::*;
use e2e::image::catalogue::BUSYBOX;
use e2e::node::{ListOperationsRequest, Operation};
use e2e::pod::{container, sandbox, shell};
use e2e::scripted::{self, Script};
use e2e::{Options, World, eventually};
use rustix::process::Signal;
use tonic::{Code, Status};

/// An impatient client's patience: a busy node gets to where its operation is held up within it.
const SHORT: Duration = Duration::from_secs(3);
/// One that asks for no more than that something is begun.
const SHORTER: Duration = Duration::from_secs(1);

/// A world whose network waits at a verb for the script's word.
fn slow(verb: &str) -> (World, Script) {
    let (world, script) = scripted::plugin(300);
    script.order(verb, scripted::WAIT);
    (world, script)
}

/// The operations whose description begins so.
fn operations(world: &World, what: &str) -> Vec<Operation> {
    let mut all = world.client.list_operations(ListOperationsRequest {}).unwrap().operations;
    all.retain(|operation| operation.what.starts_with(what));
    all
}

/// The one operation whose description begins so.
#[track_caller]
fn operation(world: &World, what: &str) -> Operation {
    let mut all = operations(world, what);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn gone(world: &World, what: &str) {
    eventually("the operation to end", || operations(world, what).is_empty().then_some(()));
}

/// Its client was told in time, in our words: what, at which stage, how long.
#[track_caller]
fn told<T: std::fmt::Debug>(answer: Result<T, Status>, parts: &[&str]) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    for part in parts.iter().chain(&["still ", " s in all"]) {
        assert!(status.message().contains(part), "no {part:?}: {status}");
    }
}

/// Within milliseconds the client's own clock may be first; it says that the call was cancelled.
fn hurried(status: &Status) -> bool {
    matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled)
}

fn runs(config: &PodSandboxConfig) -> RunPodSandboxRequest {
    RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() }
}

fn pods(world: &World) -> Vec<String> {
    let list = world.client.list_pod_sandbox(ListPodSandboxRequest::default()).unwrap();
    list.items.into_iter().map(|item| item.id).collect()
}

#[test]
fn a_run_whose_client_gave_up_is_listed_and_joined() {
    let (world, script) = slow("ADD");
    let config = sandbox(&world, "slow");
    let answer = world.client.run_pod_sandbox_within(SHORT, runs(&config));
    told(answer, &["run sandbox tests/slow", "attaching the network", "scripted"]);
    let listed = operation(&world, "run sandbox tests/slow");
    assert_eq!(listed.waiting_callers, 0, "the client is gone");
    assert!(listed.stage.contains("attaching the network"), "{listed:?}");
    assert!(listed.waits_for.iter().any(|what| what.ends_with("/scripted")), "{listed:?}");
    assert!(listed.age_ms >= 500 && listed.age_ms >= listed.in_stage_ms, "{listed:?}");
    script.go();
    let pod = world.pod_of(config.clone());
    gone(&world, "run sandbox");
    // What is done already answers the same.
    assert_eq!(world.client.run_pod_sandbox(runs(&config)).unwrap().pod_sandbox_id, pod.id);
    assert_eq!(pods(&world), std::slice::from_ref(&pod.id));
    pod.end();
    world.finish();
}

#[test]
fn the_next_attempt_does_not_wait_for_the_last() {
    let (world, script) = scripted::plugin(300);
    script.order("ADD", &format!("mkdir $orders/first 2>/dev/null && {{ {}; }}", scripted::WAIT));
    let mut config = sandbox(&world, "again");
    told(world.client.run_pod_sandbox_within(SHORT, runs(&config)), &["run sandbox"]);
    config.metadata.as_mut().unwrap().attempt = 1;
    let next = world.pod_of(config);
    eventually("the first alone to be under way", || {
        (operations(&world, "run sandbox").len() == 1).then_some(())
    });
    script.go();
    gone(&world, "run sandbox");
    assert_eq!(pods(&world).len(), 2, "the first attempt came up, too, for the kubelet to end");
    next.end();
    for pod_sandbox_id in pods(&world) {
        world.client.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id }).unwrap();
    }
    world.finish();
}

#[test]
fn a_client_that_hangs_up_ends_nothing() {
    let (world, script) = slow("ADD");
    let config = sandbox(&world, "abandoned");
    world.client.abandoned(SHORTER, runs(&config), |channel, request| async move {
        RuntimeServiceClient::new(channel).run_pod_sandbox(request).await
    });
    script.until_it_hangs();
    script.go();
    gone(&world, "run sandbox");
    let [id] = pods(&world).try_into().unwrap();
    assert_eq!(world.client.run_pod_sandbox(runs(&config)).unwrap().pod_sandbox_id, id);
    world.pod_of(config).end();
    world.finish();
}

#[test]
fn the_end_of_a_pod_goes_on_and_is_joined() {
    let (world, script) = slow("DEL");
    let pod = world.pod("ending");
    let pod_sandbox_id = pod.id.clone();
    let stop = StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
    let answer = world.client.timed(SHORT, stop, |channel, request| async move {
        RuntimeServiceClient::new(channel).stop_pod_sandbox(request).await
    });
    told(answer, &["stop sandbox", "releasing the pod's network", "scripted"]);
    let listed = operation(&world, "stop sandbox");
    assert!(listed.waits_for.iter().any(|what| what.ends_with("/scripted")), "{listed:?}");
    let remove = RemovePodSandboxRequest { pod_sandbox_id };
    let answer = world.client.timed(SHORT / 4, remove.clone(), |channel, request| async move {
        RuntimeServiceClient::new(channel).remove_pod_sandbox(request).await
    });
    told(answer, &["remove sandbox"]);
    script.go();
    world.client.remove_pod_sandbox(remove).unwrap();
    gone(&world, "remove sandbox");
    assert!(pods(&world).is_empty());
    world.finish();
}

/// A kubelet whose every call is cut short still gets there, and makes one pod and one container of it.
#[test]
fn impatience_makes_nothing_twice() {
    let world = World::start(Options::default());
    world.pull(BUSYBOX);
    let config = sandbox(&world, "hasty");
    let mut cut = 0;
    let mut insist = |call: &mut dyn FnMut(Duration) -> Result<String, Status>| {
        let mut patience = Duration::from_millis(2);
        loop {
            match call(patience) {
                Ok(id) => return id,
                Err(status) => assert!(hurried(&status), "{status}"),
            }
            cut += 1;
            patience = (patience * 2).min(Duration::from_secs(10));
        }
    };
    let id = insist(&mut |patience| {
        let answer = world.client.run_pod_sandbox_within(patience, runs(&config))?;
        Ok(answer.pod_sandbox_id)
    });
    let create = CreateContainerRequest {
        pod_sandbox_id: id.clone(),
        config: Some(container("c", BUSYBOX, &shell("exec sleep 1000"))),
        sandbox_config: Some(config.clone()),
    };
    let container_id = insist(&mut |patience| {
        let answer =
            world.client.timed(patience, create.clone(), |channel, request| async move {
                RuntimeServiceClient::new(channel).create_container(request).await
            })?;
        Ok(answer.container_id)
    });
    let start = StartContainerRequest { container_id: container_id.clone() };
    let started =
        world.client.timed(Duration::from_millis(7), start, |channel, request| async move {
            RuntimeServiceClient::new(channel).start_container(request).await
        });
    assert!(hurried(&started.unwrap_err()));
    eventually("the start that nobody waits for", || {
        let state = world.container_status(&container_id).unwrap().state();
        (state == ContainerState::ContainerRunning).then_some(())
    });
    assert!(cut >= 2, "calls were cut {cut} times");
    assert_eq!(pods(&world), std::slice::from_ref(&id));
    let list = world.client.list_containers(ListContainersRequest::default()).unwrap();
    assert_eq!(list.containers.len(), 1);
    e2e::pod::Pod { world: &world, id, config }.end();
    world.finish();
}

#[test]
fn a_start_is_joined() {
    let (world, script) = scripted::runtime();
    script.order("create", scripted::WAIT);
    world.pull(BUSYBOX);
    let pod = world.pod("slow-start");
    let id = pod.create(container("c", BUSYBOX, &shell("exec sleep 1000")));
    let start = StartContainerRequest { container_id: id.clone() };
    let answer = world.client.timed(SHORT, start, |channel, request| async move {
        RuntimeServiceClient::new(channel).start_container(request).await
    });
    told(answer, &["start container", "creating the container in its OCI runtime"]);
    assert_eq!(operation(&world, "start container").waiting_callers, 0);
    script.go();
    world.start_container(&id).unwrap();
    assert_eq!(world.container_status(&id).unwrap().state(), ContainerState::ContainerRunning);
    pod.end();
    world.finish();
}

const DEAF: &str = "trap 'echo term' TERM; echo up; while :; do sleep 0.05; done";

#[test]
fn a_stop_is_joined_and_shortened() {
    let world = World::start(Options::default());
    world.pull(BUSYBOX);
    let pod = world.pod("deaf");
    let id = pod.run(container("c", BUSYBOX, &shell(DEAF)));
    eventually("the trap", || pod.log("c").contains("up").then_some(()));
    let stop = StopContainerRequest { container_id: id.clone(), timeout: 300 };
    let answer = world.client.timed(SHORT, stop, |channel, request| async move {
        RuntimeServiceClient::new(channel).stop_container(request).await
    });
    told(answer, &["stop container", "waiting for the container to end by itself"]);
    assert_eq!(operation(&world, "stop container").waiting_callers, 0);
    world.stop_container(&id, 1).unwrap();
    gone(&world, "stop container");
    assert_eq!(world.container_status(&id).unwrap().exit_code, 137);
    assert_eq!(pod.log("c").matches("term").count(), 1, "the signal is sent once");
    pod.end();
    world.finish();
}

#[test]
fn the_stop_signal_is_sent_once_across_a_restart() {
    let mut world = World::start(Options::default());
    world.pull(BUSYBOX);
    let pod = world.pod("deaf");
    let id = pod.run(container("c", BUSYBOX, &shell(DEAF)));
    eventually("the trap", || pod.log("c").contains("up").then_some(()));
    let stop = StopContainerRequest { container_id: id.clone(), timeout: 300 };
    let answer = world.client.timed(SHORT, stop, |channel, request| async move {
        RuntimeServiceClient::new(channel).stop_container(request).await
    });
    told(answer, &["stop container"]);
    eventually("the signal", || pod.log("c").contains("term").then_some(()));
    let (pod_id, config) = (pod.id.clone(), pod.config.clone());
    world.end_daemon(Signal::KILL);
    world.start_daemon();
    let pod = e2e::pod::Pod { world: &world, id: pod_id, config };
    world.stop_container(&id, 1).unwrap();
    assert_eq!(pod.log("c").matches("term").count(), 1, "the signal is sent once");
    pod.end();
    world.finish();
}

#[test]
fn a_pull_goes_on_and_is_joined() {
    let world = World::start(Options::default());
    // Nothing reaches the registry while the rule is there.
    let silence =
        |how| drop(world.sh(&format!("iptables -w {how} OUTPUT -p tcp --dport 5000 -j DROP")));
    let image = Some(ImageSpec { image: BUSYBOX.into(), ..Default::default() });
    let request = PullImageRequest { image, ..Default::default() };
    silence("-I");
    told(world.client.pull_image_within(SHORTER, request.clone()), &["pull ", "busybox"]);
    assert_eq!(operation(&world, "pull ").waiting_callers, 0);
    let joined = std::thread::scope(|scope| {
        let joins = scope.spawn(|| world.pull(BUSYBOX));
        eventually("the retry to join", || {
            (operation(&world, "pull ").waiting_callers == 1).then_some(())
        });
        silence("-D");
        joins.join().unwrap()
    });
    world.remove_image(BUSYBOX);
    // Nobody waits for this one at all.
    silence("-I");
    told(world.client.pull_image_within(SHORTER, request), &["pull "]);
    silence("-D");
    gone(&world, "pull ");
    let list = world.client.list_images(ListImagesRequest::default()).unwrap();
    assert_eq!(
        list.images.iter().map(|image| image.id.as_str()).collect::<Vec<_>>(),
        [joined.as_str()]
    );
    assert_eq!(world.pull(BUSYBOX), joined);
    world.finish();
}
