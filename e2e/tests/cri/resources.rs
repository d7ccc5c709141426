//! Limits: at the start and while running.

use e2e::World;
use e2e::cri::*;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::container;

/// A value of the container's cgroup, whichever hierarchy has it; v1's name first, then v2's.
fn limit(world: &World, id: &str, names: [(&str, &str); 2]) -> String {
    let request = ContainerStatusRequest { container_id: id.into(), verbose: true };
    let info = world.client.container_status(request).unwrap().info;
    let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
    let cgroup = info["runtimeSpec"]["linux"]["cgroupsPath"].as_str().unwrap();
    names
        .iter()
        .find_map(|(controller, file)| {
            let path = format!("/sys/fs/cgroup/{controller}{cgroup}/{file}");
            std::fs::read_to_string(path).ok()
        })
        .expect("the cgroup has its limit")
        .trim()
        .to_owned()
}

fn memory(world: &World, id: &str) -> String {
    limit(world, id, [("memory", "memory.limit_in_bytes"), ("", "memory.max")])
}

fn update(world: &World, id: &str, linux: LinuxContainerResources) -> Result<(), tonic::Status> {
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
            ..Default::default()
        };
        let id = pod.run(config.clone());
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
}
