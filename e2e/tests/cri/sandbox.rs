//! Pod sandboxes: life, idempotence, identity, filters.

use e2e::cri::*;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::{container, namespaces, sandbox};
use e2e::{World, eventually};
use tonic::Code;

use crate::{NO_SUCH_ID, code, refused};

fn list(world: &World, filter: PodSandboxFilter) -> Vec<String> {
    let request = ListPodSandboxRequest { filter: Some(filter) };
    let items = world.client.list_pod_sandbox(request).unwrap().items;
    items.into_iter().map(|item| item.id).collect()
}

on_each_runtime! {
    fn lives_from_run_to_remove(world) {
        let pod = world.pod("life");
        assert_eq!(pod.id.len(), 64);
        assert!(pod.id.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase()));
        let status = world.sandbox_status(&pod.id).unwrap();
        assert_eq!(status.state(), PodSandboxState::SandboxReady);
        assert_eq!(status.metadata, pod.config.metadata);
        assert_eq!(status.labels, pod.config.labels);
        assert_eq!(status.annotations, pod.config.annotations);
        assert!(status.created_at > 1_600_000_000_000_000_000);
        assert!(status.network.unwrap().ip.starts_with("10.88."));
        pod.stop().unwrap();
        let status = world.sandbox_status(&pod.id).unwrap();
        assert_eq!(status.state(), PodSandboxState::SandboxNotready);
        pod.stop().unwrap();
        pod.remove().unwrap();
        refused(&world.sandbox_status(&pod.id), Code::NotFound, ": not found");
        pod.stop().unwrap();
        pod.remove().unwrap();
    }

    fn remove_ends_what_still_runs(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("force");
        let id = pod.run(container("c", BUSYBOX, &[]));
        pod.remove().unwrap();
        assert_eq!(code(&world.container_status(&id)), Code::NotFound);
        assert_eq!(code(&world.sandbox_status(&pod.id)), Code::NotFound);
    }

    fn stop_ends_the_containers_and_keeps_their_records(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("stop");
        let first = pod.run(container("first", BUSYBOX, &[]));
        let second = pod.run(container("second", BUSYBOX, &[]));
        let created = pod.create(container("created", BUSYBOX, &[]));
        pod.stop().unwrap();
        for id in [&first, &second] {
            let status = world.container_status(id).unwrap();
            assert_eq!(status.state(), ContainerState::ContainerExited);
            assert_eq!(status.exit_code, 137);
        }
        assert_ne!(
            world.container_status(&created).unwrap().state(),
            ContainerState::ContainerRunning
        );
        assert_eq!(code(&pod.try_create(container("late", BUSYBOX, &[]))), Code::FailedPrecondition);
        assert!(world.start_container(&created).is_err());
        pod.end();
    }

    fn the_same_request_gets_the_same_sandbox(world) {
        let config = sandbox(world, "again");
        let first = world.pod_of(config.clone());
        let second = world.pod_of(config.clone());
        assert_eq!(first.id, second.id);
        let mut other = config.clone();
        other.labels.insert("more".into(), "yes".into());
        let answer = world.try_pod(other);
        assert_eq!(code(&answer.map(|pod| pod.id)), Code::AlreadyExists);
        let mut next = config;
        next.metadata.as_mut().unwrap().attempt = 1;
        let next = world.pod_of(next);
        assert_ne!(next.id, first.id);
        next.end();
        first.end();
    }

    fn many_at_once(world) {
        world.pull(BUSYBOX);
        std::thread::scope(|scope| {
            for number in 0..8 {
                scope.spawn(move || {
                    let pod = world.pod(&format!("many-{number}"));
                    let id = pod.run(container("c", BUSYBOX, &[]));
                    assert_eq!(world.exec(&id, "hostname").trim(), format!("many-{number}"));
                    pod.end();
                });
            }
        });
    }
}

#[test]
fn filters_and_prefixes() {
    let world = World::start(e2e::Options::default());
    let one = world.pod("one");
    let two = world.pod("two");
    two.stop().unwrap();
    let all = list(&world, PodSandboxFilter::default());
    assert_eq!(all.len(), 2);
    let short = one.id[..12].to_owned();
    let by_id = PodSandboxFilter { id: short.clone(), ..Default::default() };
    assert_eq!(list(&world, by_id), [one.id.as_str()]);
    let ready = PodSandboxStateValue { state: PodSandboxState::SandboxReady.into() };
    let by_state = PodSandboxFilter { state: Some(ready), ..Default::default() };
    assert_eq!(list(&world, by_state), [one.id.as_str()]);
    let label_selector = [("pod".to_owned(), "two".to_owned())].into();
    let by_label = PodSandboxFilter { label_selector, ..Default::default() };
    assert_eq!(list(&world, by_label.clone()), [two.id.as_str()]);
    let none = PodSandboxFilter { state: Some(ready), ..by_label };
    assert!(list(&world, none).is_empty());
    let unknown = PodSandboxFilter { id: NO_SUCH_ID.into(), ..Default::default() };
    assert!(list(&world, unknown).is_empty());
    assert_eq!(world.sandbox_status(&short).unwrap().id, one.id);
    refused(&world.sandbox_status(NO_SUCH_ID), Code::NotFound, ": not found");
    one.end();
    two.end();
    world.finish();
}

#[test]
fn unknown_ids_are_stopped_and_removed_already() {
    let world = World::start(e2e::Options::default());
    let id = NO_SUCH_ID.to_owned();
    world.client.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: id.clone() }).unwrap();
    world.client.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: id }).unwrap();
    world.finish();
}

#[test]
fn wrong_requests_are_refused_and_leave_nothing() {
    let world = World::start(e2e::Options::default());
    let run = |config: Option<PodSandboxConfig>, handler: &str| {
        let request = RunPodSandboxRequest { config, runtime_handler: handler.into() };
        world.client.run_pod_sandbox(request)
    };
    assert_eq!(code(&run(None, "")), Code::InvalidArgument);
    let nameless = PodSandboxConfig { metadata: None, ..sandbox(&world, "wrong") };
    assert_eq!(code(&run(Some(nameless), "")), Code::InvalidArgument);
    let answer = run(Some(sandbox(&world, "handler")), "no-such-handler");
    assert!(answer.as_ref().unwrap_err().message().contains("no-such-handler"), "{answer:?}");
    let mut config = sandbox(&world, "namespaces");
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.namespace_options = Some(namespaces(NamespaceMode::Container, NamespaceMode::Pod));
    assert_eq!(code(&run(Some(config), "")), Code::InvalidArgument);
    world.finish();
}

#[test]
fn a_named_handler_runs_the_pod() {
    let world = World::start(e2e::Options::default());
    world.pull(BUSYBOX);
    let config = sandbox(&world, "handler");
    let request =
        RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: "runc".into() };
    let id = world.client.run_pod_sandbox(request).unwrap().pod_sandbox_id;
    let pod = e2e::pod::Pod { world: &world, id, config };
    assert_eq!(world.sandbox_status(&pod.id).unwrap().runtime_handler, "runc");
    pod.run(container("c", BUSYBOX, &[]));
    pod.end();
    world.finish();
}

#[test]
fn verbose_status_tells_the_network_namespace() {
    let world = World::start(e2e::Options::default());
    let pod = world.pod("verbose");
    let request = PodSandboxStatusRequest { pod_sandbox_id: pod.id.clone(), verbose: true };
    let info = world.client.pod_sandbox_status(request).unwrap().info;
    let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
    let namespaces = info["runtimeSpec"]["linux"]["namespaces"].as_array().unwrap();
    let network = namespaces.iter().find(|namespace| namespace["type"] == "network").unwrap();
    let path = network["path"].as_str().unwrap();
    let address = world.sh(&format!("nsenter --net={path} ip -o -4 addr show eth0"));
    assert!(address.contains(&pod.ip()), "{address}");
    pod.end();
    world.finish();
}

/// The kubelet sees a pod whose shim is gone as NotReady, and its next Stop and Remove finish it.
#[test]
fn a_killed_shim_is_seen_and_cleaned_up() {
    let world = World::start(e2e::Options::default());
    world.pull(BUSYBOX);
    let pod = world.pod("orphan");
    let id = pod.run(container("c", BUSYBOX, &[]));
    world.sh("kill -9 $(busybox pidof podwright-shim)");
    eventually("the sandbox to be seen as not ready", || {
        let status = world.sandbox_status(&pod.id).unwrap();
        (status.state() == PodSandboxState::SandboxNotready).then_some(())
    });
    let status = world.ended(&id);
    assert_eq!((status.exit_code, status.reason.as_str()), (255, "Unknown"));
    pod.end();
    world.finish();
}
