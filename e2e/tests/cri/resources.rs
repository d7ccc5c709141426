//! Limits: at the start and while running.

use e2e::World;
use e2e::cri::*;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::{container, shell};
use tonic::Code;

use crate::refused;

/// A value of the container's cgroup, whichever hierarchy has it; v1's name first, then v2's.
fn limit(world: &World, id: &str, names: [(&str, &str); 2]) -> String {
    find(world, id, names).expect("the cgroup has its limit")
}

fn find(world: &World, id: &str, names: [(&str, &str); 2]) -> Option<String> {
    let v2 = std::path::Path::new("/sys/fs/cgroup");
    let dirs = world.cgroups_of(id);
    names.iter().find_map(|(controller, file)| {
        let dir = dirs.iter().find(|dir| dir.starts_with(v2.join(controller)))?;
        Some(std::fs::read_to_string(dir.join(file)).ok()?.trim().to_owned())
    })
}

fn memory(world: &World, id: &str) -> String {
    limit(world, id, [("memory", "memory.limit_in_bytes"), ("", "memory.max")])
}

pub(crate) fn update(
    world: &World,
    id: &str,
    linux: LinuxContainerResources,
) -> Result<(), tonic::Status> {
    let request = UpdateContainerResourcesRequest {
        container_id: id.into(),
        linux: Some(linux),
        ..Default::default()
    };
    world.client.update_container_resources(request).map(|_| ())
}

on_each_runtime! {
    fn limits_are_set_and_updated(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("limits");
        let mut config = container("c", BUSYBOX, &[]);
        *config.linux.as_mut().unwrap().resources.as_mut().unwrap() = LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: 50_000,
            cpu_shares: 512,
            memory_limit_in_bytes: 64 << 20,
            oom_score_adj: 500,
            // The kubelet names those of the machine, whether or not its kernel limits them.
            hugepage_limits: vec![HugepageLimit { page_size: "2MB".into(), limit: 4 << 20 }],
            ..Default::default()
        };
        let id = pod.run(config.clone());
        let huge = [("hugetlb", "hugetlb.2MB.limit_in_bytes"), ("", "hugetlb.2MB.max")];
        if let Some(huge) = find(world, &id, huge) {
            assert_eq!(huge, (4 << 20).to_string());
        }
        assert_eq!(memory(world, &id), (64 << 20).to_string());
        assert_eq!(world.exec(&id, "cat /proc/1/oom_score_adj"), "500\n");
        let quota = [("cpu", "cpu.cfs_quota_us"), ("", "cpu.max")];
        assert!(limit(world, &id, quota).starts_with("50000"));

        let change = LinuxContainerResources {
            memory_limit_in_bytes: 96 << 20,
            cpu_quota: 70_000,
            ..Default::default()
        };
        update(world, &id, change).unwrap();
        assert_eq!(memory(world, &id), (96 << 20).to_string());
        assert!(limit(world, &id, quota).starts_with("70000"));
        let told = world.container_status(&id).unwrap().resources.unwrap().linux.unwrap();
        assert_eq!((told.memory_limit_in_bytes, told.cpu_quota), (96 << 20, 70_000));
        assert_eq!(told.cpu_period, 100_000, "zero leaves a value as it is");

        let impossible = LinuxContainerResources { cpuset_cpus: "999".into(), ..Default::default() };
        assert!(update(world, &id, impossible).is_err());
        let told = world.container_status(&id).unwrap().resources.unwrap().linux.unwrap();
        assert_eq!(told.cpuset_cpus, "", "what failed is not told as done");
        assert_eq!(memory(world, &id), (96 << 20).to_string());

        config.metadata.as_mut().unwrap().name = "created".into();
        config.log_path = "created.log".into();
        let created = pod.create(config);
        let change = LinuxContainerResources { memory_limit_in_bytes: 80 << 20, ..Default::default() };
        update(world, &created, change).unwrap();
        world.start_container(&created).unwrap();
        assert_eq!(memory(world, &created), (80 << 20).to_string());
        pod.end();
    }

    fn a_resize_is_whole_or_has_not_been(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("resize");
        let mut config = container("c", BUSYBOX, &shell("sleep 1000 & exec sleep 1000"));
        *config.linux.as_mut().unwrap().resources.as_mut().unwrap() = LinuxContainerResources {
            cpu_shares: 512,
            memory_limit_in_bytes: 64 << 20,
            oom_score_adj: 500,
            ..Default::default()
        };
        let id = pod.run(config);
        // Of commands too, which are neither the daemon's nor its shim's.
        world.exec(&id, "until grep -qx 500 /proc/self/oom_score_adj; do sleep 0.1; done");
        let both = "ps | grep -c [s]leep";
        e2e::eventually("both processes", || (world.exec(&id, both) == "2\n").then_some(()));
        let told = || world.container_status(&id).unwrap().resources.unwrap().linux.unwrap();
        let in_force = || {
            let shares = limit(world, &id, [("cpu", "cpu.shares"), ("", "cpu.weight")]);
            let quota = limit(world, &id, [("cpu", "cpu.cfs_quota_us"), ("", "cpu.max")]);
            let swap = [("memory", "memory.memsw.limit_in_bytes"), ("", "memory.swap.max")];
            let swap = find(world, &id, swap);
            let of_each = "ps | grep [s]leep | while read pid rest; do cat /proc/$pid/oom_score_adj; done";
            (shares, quota, memory(world, &id), swap, world.exec(&id, of_each))
        };
        let (before, said) = (in_force(), told());
        assert_eq!(before.4, "500\n500\n");
        // The runtime may have set the first ones by the time that the kernel refuses the last.
        let half = LinuxContainerResources {
            cpu_shares: 2048,
            cpu_quota: 90_000,
            cpu_period: 100_000,
            memory_limit_in_bytes: 128 << 20,
            oom_score_adj: 700,
            cpuset_cpus: "4000".into(),
            ..Default::default()
        };
        update(world, &id, half.clone()).unwrap_err();
        assert_eq!(in_force(), before);
        assert_eq!(told(), said);
        let cpuset = find(world, &id, [("cpuset", "cpuset.cpus"), ("", "cpuset.cpus")]);
        let cpuset_cpus = cpuset.map_or("", |_| "0").to_owned();
        let whole = LinuxContainerResources { cpuset_cpus: cpuset_cpus.clone(), ..half };
        update(world, &id, whole).unwrap();
        let after = in_force();
        assert_ne!((&after.0, &after.1, &after.2), (&before.0, &before.1, &before.2));
        assert_eq!(after.4, "700\n700\n", "of what runs already");
        // A runtime may have begun it with the former one.
        let eventually = "until grep -qx 700 /proc/self/oom_score_adj; do sleep 0.1; done";
        world.exec(&id, &format!("{eventually}; cat /proc/1/oom_score_adj"));
        assert_eq!((told().oom_score_adj, told().cpuset_cpus), (700, cpuset_cpus));
        pod.end();
    }
}

#[test]
fn resources_of_a_pod_are_kept() {
    let mut world = World::start(e2e::Options::default());
    let pod = world.pod("pod");
    let id = pod.id.clone();
    let of = |cpu_shares: i64| LinuxContainerResources { cpu_shares, ..Default::default() };
    let update = |world: &World, resources: LinuxContainerResources| {
        world.client.update_pod_sandbox_resources(UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: id.clone(),
            overhead: Some(of(7)),
            resources: Some(resources),
        })
    };
    let shown = |world: &World| {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.clone(), verbose: true };
        let info = world.client.pod_sandbox_status(request).unwrap().info;
        let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
        (info["overhead"]["cpu_shares"].as_i64(), info["resources"]["cpu_shares"].as_i64())
    };
    update(&world, of(512)).unwrap();
    assert_eq!(shown(&world), (Some(7), Some(512)));
    refused(&update(&world, of(-5)), Code::InvalidArgument, "resources.cpu_shares");
    world.end_daemon(rustix::process::Signal::KILL);
    world.start_daemon();
    assert_eq!(shown(&world), (Some(7), Some(512)));
    let stop = StopPodSandboxRequest { pod_sandbox_id: id.clone() };
    world.client.stop_pod_sandbox(stop).unwrap();
    refused(&update(&world, of(1)), Code::FailedPrecondition, "is not ready");
    let remove = RemovePodSandboxRequest { pod_sandbox_id: id.clone() };
    world.client.remove_pod_sandbox(remove).unwrap();
    refused(&update(&world, of(1)), Code::NotFound, "not found");
    world.finish();
}

#[test]
fn files_of_cgroup_v2_need_cgroup_v2() {
    let world = World::start(e2e::Options::default());
    world.pull(BUSYBOX);
    let pod = world.pod("unified");
    let mut config = container("c", BUSYBOX, &[]);
    let resources = config.linux.as_mut().unwrap().resources.as_mut().unwrap();
    resources.unified.insert("pids.max".into(), "77".into());
    // Page sizes that the node does not limit are passed over, as the kubelet names them all.
    resources.hugepage_limits.push(HugepageLimit { page_size: "2MB".into(), limit: 0 });
    let v2 = world.sh("stat -fc %T /sys/fs/cgroup") == "cgroup2fs\n";
    let made = pod.try_create(config.clone());
    if v2 {
        let id = made.unwrap();
        world.start_container(&id).unwrap();
        assert_eq!(limit(&world, &id, [("", "pids.max"), ("", "pids.max")]), "77");
    } else {
        refused(&made, Code::InvalidArgument, "linux.resources.unified: ");
    }
    config.linux.as_mut().unwrap().resources.as_mut().unwrap().unified =
        [("../pids.max".to_owned(), "1".to_owned())].into();
    refused(&pod.try_create(config), Code::InvalidArgument, "unified");
    pod.end();
    world.finish();
}
