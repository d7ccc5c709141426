//! Events: whoever only listens knows as much as whoever lists.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use e2e::cri::ContainerEventType::{
    ContainerCreatedEvent, ContainerDeletedEvent, ContainerStartedEvent, ContainerStoppedEvent,
};
use e2e::cri::*;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::{container, shell};
use e2e::{Options, World, eventually};

const SOON: Duration = Duration::from_secs(30);

#[test]
fn the_life_of_a_pod_in_its_order() {
    let world = World::start(Options::default());
    world.pull(BUSYBOX);
    let mut events = world.client.events();
    let mut other = world.client.events();
    let pod = world.pod("told");
    let id = pod.run(container("c", BUSYBOX, &shell("exit 3")));
    world.ended(&id);
    let sandbox = pod.id.clone();
    pod.end();
    let expected = [
        (&sandbox, ContainerCreatedEvent),
        (&sandbox, ContainerStartedEvent),
        (&id, ContainerCreatedEvent),
        (&id, ContainerStartedEvent),
        (&id, ContainerStoppedEvent),
        (&sandbox, ContainerStoppedEvent),
        (&id, ContainerDeletedEvent),
        (&sandbox, ContainerDeletedEvent),
    ];
    let mut last = 0;
    for (of, kind) in expected {
        let event = events.next(SOON).unwrap().expect("an event");
        assert_eq!((&event.container_id, event.container_event_type()), (of, kind), "{event:?}");
        assert!(event.created_at > last, "{event:?}");
        last = event.created_at;
        let status = event.pod_sandbox_status.as_ref().expect("the pod's status");
        assert_eq!(status.id, sandbox);
        assert_eq!(status.metadata.as_ref().unwrap().name, "told");
        let of_container = event.containers_statuses.iter().find(|one| one.id == id);
        match kind {
            ContainerStartedEvent if *of == id => {
                assert_ne!(of_container.unwrap().state(), ContainerState::ContainerCreated);
            }
            ContainerStoppedEvent if *of == id => {
                let status = of_container.unwrap();
                assert_eq!(
                    (status.state(), status.exit_code),
                    (ContainerState::ContainerExited, 3)
                );
            }
            ContainerDeletedEvent => assert_eq!(of_container, None),
            _ => {}
        }
        assert_eq!(other.next(SOON).unwrap().as_ref(), Some(&event), "all hear the same");
    }
    drop((events, other));
    world.finish();
}

/// What an evented kubelet knows: the last status of each pod that it was told of.
#[derive(Default)]
struct Pleg {
    pods: BTreeMap<String, (PodSandboxStatus, Vec<ContainerStatus>)>,
    last: i64,
    heard: usize,
}

impl Pleg {
    fn hear(&mut self, event: ContainerEventResponse) {
        assert!(event.created_at > self.last, "out of order");
        self.last = event.created_at;
        self.heard += 1;
        let status = event.pod_sandbox_status.expect("the pod's status");
        let is_gone = event.container_id == status.id
            && event.container_event_type == i32::from(ContainerDeletedEvent);
        if is_gone {
            self.pods.remove(&status.id);
        } else {
            self.pods.insert(status.id.clone(), (status, event.containers_statuses));
        }
    }

    /// As one line for each pod and container.
    fn knows(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (id, (status, containers)) in &self.pods {
            lines.push(format!("{id} {:?}", status.state()));
            lines.extend(containers.iter().map(|one| format!("{} {:?}", one.id, one.state())));
        }
        lines.sort();
        lines
    }
}

fn relisted(world: &World) -> Vec<String> {
    let pods = world.client.list_pod_sandbox(ListPodSandboxRequest::default()).unwrap().items;
    let containers = world.client.list_containers(ListContainersRequest::default()).unwrap();
    let mut lines: Vec<String> =
        pods.iter().map(|one| format!("{} {:?}", one.id, one.state())).collect();
    lines.extend(containers.containers.iter().map(|one| format!("{} {:?}", one.id, one.state())));
    lines.sort();
    lines
}

#[test]
fn who_only_listens_knows_as_much_as_who_lists() {
    let world = World::start(Options::default());
    world.pull(BUSYBOX);
    let mut events = world.client.events();
    // Subscribed, and never read: it must hold up nobody.
    let silent = world.client.events();
    let over = AtomicBool::new(false);
    let mut pleg = Pleg::default();
    std::thread::scope(|scope| {
        let churning: Vec<_> = (0..3)
            .map(|thread| {
                let world = &world;
                scope.spawn(move || churn(world, thread))
            })
            .collect();
        let done = &over;
        scope.spawn(move || {
            let ended: Vec<_> = churning.into_iter().map(|one| one.join()).collect();
            done.store(true, Ordering::SeqCst);
            assert!(ended.iter().all(Result::is_ok), "a thread that churned panicked");
        });
        while !over.load(Ordering::SeqCst) {
            if let Some(event) = events.next(Duration::from_millis(100)).unwrap() {
                pleg.hear(event);
            }
        }
    });
    let start = Instant::now();
    while pleg.knows() != relisted(&world) {
        assert!(start.elapsed() < SOON, "{:#?}\n{:#?}", pleg.knows(), relisted(&world));
        if let Some(event) = events.next(Duration::from_millis(100)).unwrap() {
            pleg.hear(event);
        }
    }
    println!("{} events, {} pods left", pleg.heard, pleg.pods.len());
    assert!(pleg.heard > 100 && !pleg.pods.is_empty());
    drop((events, silent));
    for id in pleg.pods.into_keys() {
        world.client.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: id }).unwrap();
    }
    world.finish();
}

/// Pods that come and go, some of which stay.
fn churn(world: &World, thread: usize) {
    for round in 0..5 {
        let pod = world.pod(&format!("churn-{thread}-{round}"));
        let short = pod.run(container("short", BUSYBOX, &shell("exit 0")));
        let long = pod.run(container("long", BUSYBOX, &shell("sleep 10000")));
        world.ended(&short);
        match round {
            0 => world.stop_container(&long, 0).unwrap(),
            1 => world.remove_container(&short).unwrap(),
            2 => pod.stop().unwrap(),
            _ => pod.end(),
        }
    }
}

#[test]
fn a_listener_does_not_hold_up_the_end_of_the_daemon() {
    let mut world = World::start(Options::default());
    let socket = world.path("state/podwright.sock");
    let listener = e2e::Client::new(&world.seen(socket));
    let mut events = listener.events();
    let start = Instant::now();
    world.end_daemon(rustix::process::Signal::TERM);
    // Ten seconds is what operations are waited for, and there are none.
    let took = start.elapsed();
    assert!(took < Duration::from_millis(9500), "{took:?}");
    eventually("the stream to end", || events.next(Duration::from_millis(100)).err());
    world.finish();
}
