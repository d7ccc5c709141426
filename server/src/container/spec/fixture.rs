//! Inputs for tests: a node, a place and a container as a kubelet asks for it.

use std::collections::{BTreeMap, BTreeSet};

use super::super::config::{
    ContainerConfig, ContainerMetadata, EnvVar, ImageSpec, Mount, PidMode, Propagation, Resources,
    Security,
};
use super::super::place::Place;
use super::{Accounts, DeviceKind, DeviceNode, Facts, ImageView, Input, Node};
use crate::config::{CgroupDriver, HandlerConfig};
use crate::error::Result;
use crate::id::ContainerId;

pub(super) const ID: &str = "c0ffee0000000000000000000000000000000000000000000000000000000001";
/// Every capability but SYS_RESOURCE, as in a nested VM.
pub(super) const CAPABILITIES: u64 = ((1 << 41) - 1) & !(1 << 24);

/// Owns what an [`Input`] borrows.
#[derive(Debug, Clone)]
pub(super) struct Fixture {
    pub id: ContainerId,
    pub config: ContainerConfig,
    pub image: ImageView,
    pub place: Place,
    pub node: Node,
    pub handler: HandlerConfig,
    pub facts: Facts,
}

impl Fixture {
    pub(super) fn build(&self) -> Result<oci_spec::runtime::Spec> {
        let Self { id, config, image, place, node, handler, facts } = self;
        super::build(&Input { id, config, image, place, node, handler, facts })
    }

    /// The spec as it will be read.
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::to_value(self.build().unwrap()).unwrap()
    }

    /// Adds a mount of the host's `source`.
    pub(super) fn mount(&mut self, source: &str, target: &str) -> &mut Mount {
        self.facts.mount_sources.push(source.into());
        self.config.mounts.push(mount(source, target));
        self.config.mounts.last_mut().unwrap()
    }
}

pub(super) fn mount(source: &str, target: &str) -> Mount {
    Mount {
        container_path: target.into(),
        host_path: source.into(),
        readonly: false,
        recursive_read_only: false,
        selinux_relabel: false,
        propagation: Propagation::Private,
        image: None,
        image_sub_path: String::new(),
        uid_mappings: vec![],
        gid_mappings: vec![],
        mount_options: vec![],
    }
}

pub(super) fn device(path: &str, minor: u32) -> DeviceNode {
    DeviceNode {
        path: path.into(),
        kind: DeviceKind::Char,
        major: 10,
        minor,
        mode: 0o660,
        uid: 0,
        gid: 5,
        access: "rw".into(),
    }
}

pub(crate) fn config() -> ContainerConfig {
    ContainerConfig {
        metadata: ContainerMetadata { name: "web".into(), attempt: 0 },
        image: ImageSpec {
            image: "sha256:0123".into(),
            user_specified_image: "docker.io/library/nginx:1.29".into(),
            ..ImageSpec::default()
        },
        command: vec![],
        args: vec![],
        working_dir: String::new(),
        envs: vec![EnvVar { key: "MODE".into(), value: b"production".into() }],
        mounts: vec![],
        devices: vec![],
        labels: BTreeMap::new(),
        annotations: BTreeMap::from([("run.oci.keep_original_groups".into(), "1".into())]),
        log_path: "web/0.log".into(),
        stdin: false,
        stdin_once: false,
        tty: false,
        resources: Resources {
            cpu_period: 100_000,
            cpu_quota: 50_000,
            cpu_shares: 512,
            memory_limit_in_bytes: 128 << 20,
            oom_score_adj: -997,
            unified: BTreeMap::from([("memory.oom.group".into(), "1".into())]),
            ..Resources::default()
        },
        security: Security {
            pid: PidMode::Container,
            masked_paths: vec!["/proc/kcore".into(), "/sys/firmware".into()],
            readonly_paths: vec!["/proc/sys".into()],
            ..Security::default()
        },
        cdi_devices: vec![],
        stop_signal: None,
    }
}

pub(crate) fn place() -> Place {
    Place {
        sandbox_id: "5a".repeat(32),
        sandbox_name: "web-7d9".into(),
        sandbox_namespace: "shop".into(),
        sandbox_uid: "4c1b".into(),
        sandbox_annotations: BTreeMap::from([("io.katacontainers.x".into(), "y".into())]),
        sandbox_resources: None,
        log_directory: "/var/log/pods/shop_web-7d9_4c1b".into(),
        cgroup_parent: "/kubepods/burstable/pod4c1b".into(),
        privileged: false,
        hostname: "web-7d9".into(),
        host_network: false,
        host_ipc: false,
        host_pid: false,
        netns: Some("/run/netns/podwright-5a5a".into()),
        ipc: Some("/proc/77/fd/5".into()),
        uts: Some("/proc/77/fd/6".into()),
        pid: None,
        selinux: None,
        user: None,
        users: None,
        dir: "/run/podwright/pods/5a".into(),
    }
}

/// A plain container of a plain pod.
pub(super) fn plain() -> Fixture {
    Fixture {
        id: ContainerId::try_from(ID.to_owned()).unwrap(),
        config: config(),
        image: ImageView {
            env: vec!["PATH=/usr/sbin:/usr/bin".into(), "MODE=image".into(), "NGINX=1".into()],
            entrypoint: vec!["/entrypoint.sh".into()],
            cmd: vec!["nginx".into(), "-g".into(), "daemon off;".into()],
            working_dir: "srv".into(),
            user: "web:www".into(),
            stop_signal: "SIGQUIT".into(),
        },
        place: place(),
        node: Node {
            cgroup_v2: true,
            cgroup_driver: CgroupDriver::Cgroupfs,
            scopes_have_oom_policy: false,
            capabilities: CAPABILITIES,
            oom_score_adj_floor: None,
            swap_limits: true,
            hugepage_sizes: BTreeSet::from(["2MB".into()]),
            cgroup2_options: vec!["nsdelegate".into()],
            apparmor: false,
            devices_of_container: false,
            hard_limits: vec![],
        },
        handler: HandlerConfig::default(),
        facts: Facts {
            accounts: Accounts {
                passwd: Some(b"root:x:0:0::/:/bin/sh\nweb:x:101:101::/:/bin/false\n".into()),
                group: Some(b"root:x:0:\nweb:x:101:\nwww:x:82:web\nlog:x:4:web\n".into()),
            },
            ..Facts::default()
        },
    }
}

/// The same, privileged, in the host's namespaces, under systemd on cgroup v1.
pub(super) fn privileged() -> Fixture {
    let mut fixture = plain();
    fixture.config.security.privileged = true;
    fixture.config.security.pid = PidMode::Pod;
    fixture.config.security.run_as_user = Some(0);
    fixture.config.security.drop_capabilities = vec!["ALL".into()];
    fixture.config.security.readonly_rootfs = true;
    fixture.config.resources = Resources::default();
    fixture.place.privileged = true;
    fixture.place.host_network = true;
    fixture.place.host_ipc = true;
    fixture.place.host_pid = true;
    (fixture.place.netns, fixture.place.ipc, fixture.place.uts) = (None, None, None);
    fixture.place.cgroup_parent = "/kubepods.slice/kubepods-pod4c1b.slice".into();
    fixture.node.cgroup_driver = CgroupDriver::Systemd;
    fixture.node.cgroup_v2 = false;
    fixture.node.oom_score_adj_floor = Some(-10);
    fixture.facts.host_devices = vec![device("/dev/fuse", 229)];
    fixture
}
