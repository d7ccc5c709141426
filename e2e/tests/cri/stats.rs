//! Usage: what a container does is what its numbers say, and asking leaves nothing open.

use std::collections::BTreeMap;

use e2e::cri::*;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::{container, namespaces, shell};
use e2e::{Options, World, eventually};

fn stats(world: &World, id: &str) -> ContainerStats {
    let request = ContainerStatsRequest { container_id: id.into() };
    world.client.container_stats(request).unwrap().stats.unwrap()
}

fn listed(world: &World, filter: Option<ContainerStatsFilter>) -> Vec<String> {
    let request = ListContainerStatsRequest { filter };
    let stats = world.client.list_container_stats(request).unwrap().stats;
    let mut ids: Vec<String> = stats.into_iter().map(|one| one.attributes.unwrap().id).collect();
    ids.sort();
    ids
}

fn pod_stats(world: &World, id: &str) -> LinuxPodSandboxStats {
    let request = PodSandboxStatsRequest { pod_sandbox_id: id.into() };
    world.client.pod_sandbox_stats(request).unwrap().stats.unwrap().linux.unwrap()
}

fn value(value: Option<&UInt64Value>) -> u64 {
    value.expect("a value").value
}

fn descriptors_of(world: &World) -> usize {
    let daemon = world.daemon_pid().unwrap();
    std::fs::read_dir(format!("/proc/{daemon}/fd")).unwrap().count()
}

on_each_runtime! {
    fn what_a_container_does_is_what_its_numbers_say(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("usage");
        let line = "while [ ! -e /stop ]; do :; done; \
            dd if=/dev/zero of=/dev/shm/held bs=1M count=20 2>/dev/null; sleep 10000";
        let mut config = container("busy", BUSYBOX, &shell(line));
        config.linux.as_mut().unwrap().resources.as_mut().unwrap().memory_limit_in_bytes = 256 << 20;
        let id = pod.run(config);
        let cpu = |stats: &ContainerStats| {
            value(stats.cpu.as_ref().unwrap().usage_core_nano_seconds.as_ref())
        };
        let first = stats(world, &id);
        assert_eq!(first.attributes.as_ref().unwrap().labels["container"], "busy");
        // It does nothing but use the processor, and the rate comes with the first whole window.
        let later = eventually("a rate", || {
            let later = stats(world, &id);
            let rate = later.cpu.as_ref()?.usage_nano_cores.as_ref()?.value;
            (rate > 10_000_000).then_some(later)
        });
        assert!(cpu(&later) > cpu(&first));
        assert!(later.cpu.as_ref().unwrap().timestamp > first.cpu.as_ref().unwrap().timestamp);

        // Told where the kernel tells it: cgroup v2, and a kernel that was not built without.
        let told = |file: &str| world.cgroups_of(&id).iter().any(|dir| dir.join(file).exists());
        let psi = |stats: Option<PsiStats>| stats.is_some_and(|psi| psi.some.is_some() && psi.full.is_some());
        assert_eq!(psi(later.cpu.unwrap().psi), told("cpu.pressure"));
        assert_eq!(psi(later.memory.unwrap().psi), told("memory.pressure"));
        assert_eq!(psi(later.io.and_then(|io| io.psi)), told("io.pressure"));

        let held = 20 << 20;
        let memory = |stats: &ContainerStats| stats.memory.unwrap();
        let before = value(memory(&later).working_set_bytes.as_ref());
        assert!(before < held, "{before}");
        world.exec(&id, "touch /stop");
        let after = eventually("the memory to be used", || {
            let after = stats(world, &id);
            (value(memory(&after).working_set_bytes.as_ref()) >= held).then_some(after)
        });
        let memory = memory(&after);
        let available = value(memory.available_bytes.as_ref());
        assert_eq!(available, (256 << 20) - value(memory.working_set_bytes.as_ref()));
        assert!(value(memory.usage_bytes.as_ref()) >= value(memory.working_set_bytes.as_ref()));
        assert!(value(memory.page_faults.as_ref()) > 0);

        let of_pod = pod_stats(world, &pod.id);
        assert_eq!(of_pod.containers.len(), 1);
        let pod_cpu = value(of_pod.cpu.as_ref().unwrap().usage_core_nano_seconds.as_ref());
        assert!(pod_cpu >= cpu(&after), "{pod_cpu} of the pod");
        assert!(value(of_pod.process.as_ref().unwrap().process_count.as_ref()) >= 1);
        pod.end();
    }
}

#[test]
fn what_is_written_is_counted_in_the_background() {
    let world = World::start(Options::default());
    world.pull(BUSYBOX);
    let pod = world.pod("written");
    let id = pod.run(container("c", BUSYBOX, &shell("sleep 10000")));
    world.exec(&id, "dd if=/dev/zero of=/file bs=1M count=3 2>/dev/null && mkdir /a /a/b");
    let layer = eventually("the first count", || stats(&world, &id).writable_layer);
    assert!(value(layer.used_bytes.as_ref()) >= 3 << 20, "{layer:?}");
    assert!(value(layer.inodes_used.as_ref()) >= 4, "{layer:?}");
    let disk = world.client.image_fs_info(ImageFsInfoRequest {}).unwrap();
    assert_eq!(layer.fs_id, disk.container_filesystems[0].fs_id);
    // A container that ended has written what it has written.
    world.stop_container(&id, 0).unwrap();
    let ended = stats(&world, &id);
    assert_eq!((ended.cpu, ended.memory), (None, None));
    assert!(ended.writable_layer.is_some());
    pod.end();
    world.finish();
}

#[test]
fn traffic_is_that_of_the_pods_own_network() {
    let world = World::start(Options::default());
    world.pull(BUSYBOX);
    let pod = world.pod("traffic");
    let line = "nc -l -p 8080 > /dev/null; sleep 10000";
    pod.run(container("c", BUSYBOX, &shell(line)));
    let network = || pod_stats(&world, &pod.id).network.expect("a pod with a network");
    let received =
        |of: &NetworkUsage| value(of.default_interface.as_ref().unwrap().rx_bytes.as_ref());
    let before = network();
    assert_eq!(before.default_interface.as_ref().unwrap().name, "eth0");
    let address = format!("{}:8080", pod.ip()).parse().unwrap();
    let mut connected = eventually("the pod to listen", || world.connect(address).ok());
    std::io::Write::write_all(&mut connected, &vec![0; 3_000_000]).unwrap();
    eventually("what came to be counted", || {
        (received(&network()) >= received(&before) + 3_000_000).then_some(())
    });

    let mut config = e2e::pod::sandbox(&world, "host");
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.namespace_options = Some(namespaces(NamespaceMode::Node, NamespaceMode::Container));
    let host = world.pod_of(config);
    assert_eq!(pod_stats(&world, &host.id).network, None, "the host's is not the pod's");
    host.end();
    pod.end();
    world.finish();
}

#[test]
fn lists_hold_what_runs_and_is_asked_for() {
    let world = World::start(Options::default());
    world.pull(BUSYBOX);
    let (one, other) = (world.pod("one"), world.pod("other"));
    let sleeps = shell("sleep 10000");
    let a = one.run(container("a", BUSYBOX, &sleeps));
    let b = other.run(container("b", BUSYBOX, &sleeps));
    let created = one.create(container("created", BUSYBOX, &sleeps));
    let ended = one.run(container("ended", BUSYBOX, &shell("exit 0")));
    world.ended(&ended);
    let mut both = vec![a.clone(), b.clone()];
    both.sort();
    assert_eq!(listed(&world, None), both);
    assert_eq!(listed(&world, Some(ContainerStatsFilter::default())), both);
    let by = |filter| listed(&world, Some(filter));
    assert_eq!(
        by(ContainerStatsFilter { id: a[..20].into(), ..Default::default() }),
        std::slice::from_ref(&a)
    );
    let of_other = ContainerStatsFilter { pod_sandbox_id: other.id.clone(), ..Default::default() };
    assert_eq!(by(of_other), std::slice::from_ref(&b));
    let label_selector = BTreeMap::from([("container".to_owned(), "a".to_owned())]);
    assert_eq!(
        by(ContainerStatsFilter { label_selector, ..Default::default() }),
        std::slice::from_ref(&a)
    );
    assert_eq!(by(ContainerStatsFilter { id: created, ..Default::default() }), [""; 0]);
    let unknown = ContainerStatsRequest { container_id: crate::NO_SUCH_ID.into() };
    assert_eq!(crate::code(&world.client.container_stats(unknown)), tonic::Code::NotFound);

    let pods = world.client.list_pod_sandbox_stats(ListPodSandboxStatsRequest::default()).unwrap();
    assert_eq!(pods.stats.len(), 2);
    other.stop().unwrap();
    let pods = world.client.list_pod_sandbox_stats(ListPodSandboxStatsRequest::default()).unwrap();
    assert_eq!(pods.stats.len(), 1, "one that is down uses nothing");
    assert_eq!(listed(&world, None), [a]);
    one.end();
    other.end();
    world.finish();
}

#[test]
fn metrics_have_the_labels_that_they_are_described_with() {
    let world = World::start(Options::default());
    world.pull(BUSYBOX);
    let pod = world.pod("metrics");
    let id = pod.run(container("c", BUSYBOX, &shell("sleep 10000")));
    let described: BTreeMap<String, Vec<String>> = world
        .client
        .list_metric_descriptors(ListMetricDescriptorsRequest {})
        .unwrap()
        .descriptors
        .into_iter()
        .map(|one| (one.name, one.label_keys))
        .collect();
    let metrics = world.client.list_pod_sandbox_metrics(ListPodSandboxMetricsRequest {}).unwrap();
    let [of_pod] = &metrics.pod_metrics[..] else { panic!("{metrics:?}") };
    let [of_container] = &of_pod.container_metrics[..] else { panic!("{of_pod:?}") };
    assert_eq!((&of_pod.pod_sandbox_id, &of_container.container_id), (&pod.id, &id));
    let label = |metric: &Metric, label: &str| {
        let at = described[&metric.name].iter().position(|key| key == label).unwrap();
        metric.label_values[at].clone()
    };
    let mut seen = std::collections::BTreeSet::new();
    for metric in of_pod.metrics.iter().chain(&of_container.metrics) {
        assert_eq!(metric.label_values.len(), described[&metric.name].len(), "{}", metric.name);
        assert_eq!(
            (label(metric, "pod"), label(metric, "namespace")),
            ("metrics".into(), "tests".into())
        );
        assert!(metric.value.is_some());
        let unique = (metric.name.clone(), metric.label_values.clone());
        assert!(seen.insert(unique), "twice: {metric:?}");
    }
    for metric in &of_container.metrics {
        assert_eq!((label(metric, "container"), label(metric, "name")), ("c".into(), id.clone()));
        let cgroup = label(metric, "id");
        assert!(cgroup.trim_end_matches(".scope").ends_with(&id), "{metric:?}");
        assert_eq!(label(metric, "image"), BUSYBOX);
    }
    let find = |name: &str| of_container.metrics.iter().find(|one| one.name == name).unwrap();
    assert_eq!(value(find("container_processes").value.as_ref()), 1);
    assert_eq!(value(find("container_threads").value.as_ref()), 1);
    assert!(value(find("container_file_descriptors").value.as_ref()) >= 3);
    assert!(value(find("container_fs_limit_bytes").value.as_ref()) > 0);
    pod.end();
    world.finish();
}

#[test]
fn streamed_lists_hold_what_the_lists_do() {
    let world = World::start(Options::default());
    world.pull(BUSYBOX);
    let client = &world.client;
    assert_eq!(client.stream_containers(StreamContainersRequest::default()).unwrap(), []);
    let pods: Vec<_> = (0..3).map(|n| world.pod(&format!("pod{n}"))).collect();
    for pod in &pods {
        pod.run(container("c", BUSYBOX, &shell("sleep 10000")));
    }
    let streamed = client.stream_containers(StreamContainersRequest::default()).unwrap();
    let streamed: Vec<_> = streamed.into_iter().flat_map(|message| message.containers).collect();
    let list = client.list_containers(ListContainersRequest::default()).unwrap().containers;
    assert_eq!((streamed.len(), streamed), (3, list));
    let streamed = client.stream_pod_sandboxes(StreamPodSandboxesRequest::default()).unwrap();
    let streamed: Vec<_> = streamed.into_iter().flat_map(|message| message.items).collect();
    assert_eq!(streamed, client.list_pod_sandbox(ListPodSandboxRequest::default()).unwrap().items);
    let images = client.stream_images(StreamImagesRequest::default()).unwrap();
    let images: Vec<_> = images.into_iter().flat_map(|message| message.images).collect();
    assert_eq!(images, client.list_images(ListImagesRequest::default()).unwrap().images);
    let stats = client.stream_container_stats(StreamContainerStatsRequest::default()).unwrap();
    assert_eq!(stats.iter().map(|message| message.container_stats.len()).sum::<usize>(), 3);
    let stats = client.stream_pod_sandbox_stats(StreamPodSandboxStatsRequest::default()).unwrap();
    assert_eq!(stats.iter().map(|message| message.pod_sandbox_stats.len()).sum::<usize>(), 3);
    let metrics = client.stream_pod_sandbox_metrics(StreamPodSandboxMetricsRequest {}).unwrap();
    assert_eq!(metrics.iter().map(|message| message.pod_sandbox_metrics.len()).sum::<usize>(), 3);
    for pod in pods {
        pod.end();
    }
    world.finish();
}

/// What is open for the numbers of a pod goes with it.
#[test]
fn asking_leaves_nothing_open() {
    let world = World::start(Options::default());
    world.pull(BUSYBOX);
    let ask = || {
        world.client.list_container_stats(ListContainerStatsRequest::default()).unwrap();
        world.client.list_pod_sandbox_stats(ListPodSandboxStatsRequest::default()).unwrap();
        world.client.list_pod_sandbox_metrics(ListPodSandboxMetricsRequest {}).unwrap();
    };
    let round = |name: &str| {
        let pod = world.pod(name);
        pod.run(container("c", BUSYBOX, &shell("sleep 10000")));
        ask();
        ask();
        pod.end();
    };
    round("first");
    let before = descriptors_of(&world);
    for n in 0..5 {
        round(&format!("pod{n}"));
    }
    eventually("descriptors to be as many as before", || {
        ask();
        (descriptors_of(&world) <= before).then_some(())
    });
    world.finish();
}
