//! CNI plugins that fail, hang, flood or do half of what they should, and networks that are none.

use std::time::{Duration, Instant};

use e2e::cri::*;
use e2e::pod::{namespaces, sandbox};
use e2e::scripted::{self, ADDRESS, HANG};
use e2e::{Options, World, eventually};
use rustix::process::Signal;
use tonic::Code;

/// What a busy machine may take for what should take seconds.
const PROMPT: Duration = Duration::from_secs(50);

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
    let (world, script) = scripted::plugin(5);
    script.order(
        "ADD",
        r#"echo '{"cniVersion":"1.0.0","code":111,"msg":"no room","details":"the pool is empty"}'; exit 1"#,
    );
    let status = world.try_pod(sandbox(&world, "fails")).map(|pod| pod.id).unwrap_err();
    for part in ["scripted", "no room", "the pool is empty"] {
        assert!(status.message().contains(part), "{status}");
    }
    finish_failed(&world);
    world.finish();
}

#[test]
fn a_plugin_that_hangs() {
    let (world, script) = scripted::plugin(2);
    script.order("ADD", HANG);
    let start = Instant::now();
    let status = world.try_pod(sandbox(&world, "hangs")).map(|pod| pod.id).unwrap_err();
    assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
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
    let (world, script) = scripted::plugin(5);
    script.order("ADD", "yes");
    let status = world.try_pod(sandbox(&world, "floods")).map(|pod| pod.id).unwrap_err();
    assert!(status.message().contains("scripted"), "{status}");
    finish_failed(&world);
    world.finish();
}

/// Stop and Remove are asked again until DEL works; until then the record stays.
#[test]
fn a_plugin_whose_del_fails_for_a_while() {
    let (world, script) = scripted::plugin(5);
    script.order("DEL", r#"echo '{"cniVersion":"1.0.0","code":11,"msg":"try again"}'; exit 1"#);
    let pod = world.pod("del-fails");
    assert_eq!(pod.ip(), "10.1.2.3");
    assert!(pod.stop().unwrap_err().message().contains("try again"));
    assert_eq!(world.sandbox_status(&pod.id).unwrap().state(), PodSandboxState::SandboxNotready);
    script.relent("DEL");
    pod.end();
    world.finish();
}

/// Whoever only listens hears of what a failed run could not give back, as whoever lists sees it.
#[test]
fn a_plugin_that_fails_and_cannot_take_it_back() {
    let (world, script) = scripted::plugin(5);
    let mut events = world.client.events();
    script.order("ADD", "exit 7");
    script.order("DEL", "exit 7");
    world.try_pod(sandbox(&world, "stuck")).map(|pod| pod.id).unwrap_err();
    script.relent("DEL");
    finish_failed(&world);
    for expected in [
        ContainerEventType::ContainerCreatedEvent,
        ContainerEventType::ContainerStoppedEvent,
        ContainerEventType::ContainerDeletedEvent,
    ] {
        let event = events.next(PROMPT).unwrap().expect("an event");
        assert_eq!(event.container_event_type(), expected, "{event:?}");
        let status = event.pod_sandbox_status.expect("the pod's status");
        assert_eq!(status.state(), PodSandboxState::SandboxNotready);
    }
    drop(events);
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
    let (world, script) = scripted::plugin(5);
    let plugin = script.path("scripted");
    let away = plugin.with_extension("away");
    std::fs::rename(&plugin, &away).unwrap();
    let answer = world.try_pod(sandbox(&world, "absent")).map(|pod| pod.id);
    assert!(answer.unwrap_err().message().contains("scripted"));
    std::fs::rename(&away, &plugin).unwrap();
    finish_failed(&world);
    world.finish();
}

/// The client that gave up and asks again gets what its first request made, never "name is reserved".
#[test]
fn a_slow_plugin_and_an_impatient_client() {
    let (world, script) = scripted::plugin(300);
    script.order("ADD", scripted::WAIT);
    let config = sandbox(&world, "slow");
    let request = RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
    let first = world.client.run_pod_sandbox_within(Duration::from_secs(3), request);
    let status = first.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains("network"), "the stage is told: {status}");
    script.go();
    let pod = world.pod_of(config);
    assert_eq!(
        world.client.list_pod_sandbox(ListPodSandboxRequest::default()).unwrap().items.len(),
        1
    );
    pod.end();
    world.finish();
}

/// DEL is tried again until it comes back, with everything else of the pod gone by then, and others do not notice.
#[test]
fn a_plugin_that_hangs_in_del() {
    let (world, script) = scripted::plugin(2);
    let (pod, other) = (world.pod("hangs"), world.pod("other"));
    script.order("DEL", HANG);
    let start = Instant::now();
    let told = pod.stop().unwrap_err();
    assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
    assert!(told.message().contains("no answer after"), "{told}");
    assert!(pod.remove().is_err(), "what is not detached is not forgotten");
    assert_eq!(world.sandbox_status(&pod.id).unwrap().state(), PodSandboxState::SandboxNotready);
    let status = world.sandbox_status(&other.id).unwrap();
    assert_eq!(status.state(), PodSandboxState::SandboxReady);
    script.relent("DEL");
    pod.end();
    other.end();
    eventually("the plugins to be gone", || {
        (!world.sh("busybox ps").contains("sleep 1000")).then_some(())
    });
    world.finish();
}

/// What ADD had allocated before it failed is given back by DEL, however it failed.
#[test]
fn a_plugin_that_fails_half_way() {
    let (world, script) = scripted::plugin(2);
    script.order("DEL", "echo $CNI_CONTAINERID >>$orders/deleted");
    let ways = [
        ("error", "echo '{\"code\":100,\"msg\":\"half-way\"}'; exit 1", "half-way"),
        ("silent", "exit 7", "without an error object"),
        ("killed", "kill -KILL $$", "signal: 9"),
        ("garbage", "head -c 5000 /dev/urandom; exit 0", "scripted"),
        ("no-result", "exit 0", "scripted"),
        ("huge", "head -c 3000000 /dev/zero; exit 0", "more than"),
        (
            "complains",
            "head -c 3000000 /dev/urandom >&2; echo last words >&2; exit 1",
            "last words",
        ),
        ("hangs", HANG, "no answer after"),
    ];
    for (number, (name, way, words)) in ways.iter().enumerate() {
        script.order("ADD", &format!("echo $CNI_CONTAINERID >>$orders/added; {way}"));
        let status = world.try_pod(sandbox(&world, name)).map(|pod| pod.id).unwrap_err();
        assert!(status.message().contains(words), "{name}: {status}");
        finish_failed(&world);
        let read = |file: &str| std::fs::read_to_string(script.path(file)).unwrap_or_default();
        let mut deleted: Vec<String> = read("deleted").lines().map(str::to_owned).collect();
        deleted.dedup();
        assert_eq!(read("added").lines().collect::<Vec<_>>(), deleted, "{name}");
        assert_eq!(deleted.len(), number + 1);
    }
    script.relent("ADD");
    world.pod("fine").end();
    world.finish();
}

/// A child that it leaves behind holds its pipes, and nobody up.
#[test]
fn a_plugin_whose_child_stays() {
    let (world, script) = scripted::plugin(300);
    script.order("ADD", &format!("sleep 1000 & {ADDRESS}; exit 0"));
    script.order("DEL", "sleep 1000 & exit 0");
    let start = Instant::now();
    let pod = world.pod("stays");
    assert_eq!(pod.ip(), "10.1.2.3");
    pod.end();
    assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
    // They are the plugin's own business.
    world.sh("kill $(busybox ps | grep '[s]leep 1000' | cut -c1-5)");
    world.finish();
}

/// What a plugin had started when the daemon was killed ends before what it may have made is released.
#[test]
fn a_plugin_whose_child_outlives_the_daemon() {
    let (mut world, script) = scripted::plugin(300);
    script.order("ADD", HANG);
    let request =
        RunPodSandboxRequest { config: Some(sandbox(&world, "cut")), ..Default::default() };
    std::thread::scope(|scope| {
        let run = scope.spawn(|| world.client.run_pod_sandbox(request));
        script.until_it_hangs();
        eventually("its child", || world.sh("busybox ps").contains("sleep 1000").then_some(()));
        world.sh("kill -9 $(busybox pidof podwrightd)");
        assert!(run.join().unwrap().is_err());
    });
    world.end_daemon(Signal::KILL);
    assert!(world.sh("busybox ps").contains("sleep 1000"), "it does not end by itself");
    let early = script.path("deleted-first");
    let check = format!("busybox ps | grep -q '[s]leep 1000' && touch {}", early.display());
    script.order("DEL", &check);
    script.relent("ADD");
    world.start_daemon();
    assert!(!world.sh("busybox ps").contains("sleep 1000"));
    assert!(!early.exists(), "released while it went on");
    world.pod("next").end();
    world.finish();
}

/// Status asks plugins in the background: one that hangs holds up neither it nor the pods.
#[test]
fn a_plugin_that_hangs_in_status_and_version() {
    let (world, script) = scripted::plugin_of_version("1.1.0", 5);
    script.order("STATUS", HANG);
    script.order("VERSION", HANG);
    let condition = || {
        let start = Instant::now();
        let status = world.client.status(StatusRequest::default()).unwrap().status.unwrap();
        assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
        status.conditions.into_iter().find(|one| one.r#type == "NetworkReady").unwrap()
    };
    eventually("the plugin's silence to be told", || {
        let network = condition();
        (!network.status && network.message.contains("no answer after")).then_some(())
    });
    script.relent("VERSION");
    world.pod("works").end();
    script.relent("STATUS");
    eventually("the network to be ready", || condition().status.then_some(()));
    world.finish();
}

/// More pods hang in their plugins than there are threads in any pool: a pod that needs no plugin comes up.
#[test]
fn many_plugins_that_hang_and_a_pod_without_one() {
    const HANGING: usize = 70;
    let (world, script) = scripted::plugin(300);
    script.order("ADD", HANG);
    std::thread::scope(|scope| {
        let hanging: Vec<_> = (0..HANGING)
            .map(|number| {
                let config = sandbox(&world, &format!("hangs-{number}"));
                let request = RunPodSandboxRequest { config: Some(config), ..Default::default() };
                let client = &world.client;
                scope
                    .spawn(move || client.run_pod_sandbox_within(Duration::from_secs(300), request))
            })
            .collect();
        e2e::within(Duration::from_secs(120), "all plugins to hang", || {
            let hang = world.sh("busybox ps").matches("sleep 1000").count();
            (hang == HANGING).then_some(())
        });
        let mut config = sandbox(&world, "free");
        let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        security.namespace_options =
            Some(namespaces(NamespaceMode::Node, NamespaceMode::Container));
        let start = Instant::now();
        let pod = world.pod_of(config);
        pod.end();
        assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
        script.relent("ADD");
        world.sh("kill $(busybox ps | grep '[s]leep 1000' | cut -c1-5)");
        for one in hanging {
            let id = one.join().unwrap().unwrap().pod_sandbox_id;
            e2e::pod::Pod { world: &world, id, config: PodSandboxConfig::default() }.end();
        }
    });
    world.finish();
}
