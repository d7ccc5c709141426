//! There and back: what a request said is what a status says.

use api::cri::v1 as cri;

use super::super::from_proto::{container_config, resources as parse};
use super::{mount, resources};

#[test]
fn limits_survive_the_way_there_and_back() {
    let limits = cri::LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: -1,
        cpu_shares: 2,
        memory_limit_in_bytes: 1 << 30,
        oom_score_adj: -997,
        cpuset_cpus: "0-1".into(),
        cpuset_mems: "0".into(),
        hugepage_limits: vec![cri::HugepageLimit { page_size: "2MB".into(), limit: 4 << 20 }],
        unified: [("memory.high".to_owned(), "max".to_owned())].into(),
        memory_swap_limit_in_bytes: 2 << 30,
    };
    assert_eq!(resources(&parse(limits.clone()).unwrap()), limits);
}

#[test]
fn mounts_survive_the_way_there_and_back() {
    let asked = vec![
        cri::Mount {
            container_path: "/data".into(),
            host_path: "/var/data".into(),
            readonly: true,
            selinux_relabel: true,
            propagation: cri::MountPropagation::PropagationHostToContainer.into(),
            mount_options: vec!["noexec".into()],
            uid_mappings: vec![cri::IdMapping { host_id: 7, container_id: 0, length: 9 }],
            gid_mappings: vec![cri::IdMapping { host_id: 8, container_id: 0, length: 9 }],
            ..Default::default()
        },
        cri::Mount {
            container_path: "/models".into(),
            readonly: true,
            image: Some(cri::ImageSpec { image: "sha256:02".into(), ..Default::default() }),
            image_sub_path: "a/b".into(),
            ..Default::default()
        },
    ];
    let config = container_config(Some(cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: "web".into(), attempt: 0 }),
        image: Some(cri::ImageSpec { image: "i".into(), ..Default::default() }),
        mounts: asked.clone(),
        ..Default::default()
    }));
    let told: Vec<_> = config.unwrap().mounts.iter().map(mount).collect();
    assert_eq!(told, asked);
}
