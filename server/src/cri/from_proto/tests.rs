//! Requests as kubelets send them, and each value that is refused, with its field.

#![expect(deprecated, reason = "older kubelets send the older fields")]

use api::cri::v1::{self, NamespaceMode, security_profile::ProfileType};
use proptest::prelude::*;

use super::{ContainerFilter, SandboxFilter, container_config, resources, sandbox_config};
use crate::container::config::{PidMode, SecurityProfile};
use crate::sandbox::config::PodPid;

fn sandbox() -> v1::PodSandboxConfig {
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: "web".into(),
            uid: "4c1b".into(),
            namespace: "shop".into(),
            attempt: 2,
        }),
        hostname: "web-7d9".into(),
        log_directory: "/var/log/pods/shop_web_4c1b".into(),
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent: "/kubepods/pod4c1b".into(),
            security_context: Some(v1::LinuxSandboxSecurityContext {
                namespace_options: Some(v1::NamespaceOption {
                    pid: NamespaceMode::Container.into(),
                    ..v1::NamespaceOption::default()
                }),
                ..v1::LinuxSandboxSecurityContext::default()
            }),
            ..v1::LinuxPodSandboxConfig::default()
        }),
        ..v1::PodSandboxConfig::default()
    }
}

fn container() -> v1::ContainerConfig {
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: "web".into(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: "sha256:01".into(), ..v1::ImageSpec::default() }),
        log_path: "web/0.log".into(),
        mounts: vec![v1::Mount {
            container_path: "/data".into(),
            host_path: "/var/data".into(),
            ..v1::Mount::default()
        }],
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(v1::LinuxContainerResources::default()),
            security_context: Some(v1::LinuxContainerSecurityContext {
                namespace_options: Some(v1::NamespaceOption {
                    pid: NamespaceMode::Container.into(),
                    ..v1::NamespaceOption::default()
                }),
                ..v1::LinuxContainerSecurityContext::default()
            }),
        }),
        ..v1::ContainerConfig::default()
    }
}

fn pod_linux(config: &mut v1::PodSandboxConfig) -> &mut v1::LinuxPodSandboxConfig {
    config.linux.as_mut().unwrap()
}

fn pod_namespaces(config: &mut v1::PodSandboxConfig) -> &mut v1::NamespaceOption {
    let context = pod_linux(config).security_context.as_mut().unwrap();
    context.namespace_options.as_mut().unwrap()
}

fn context(config: &mut v1::ContainerConfig) -> &mut v1::LinuxContainerSecurityContext {
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap()
}

fn namespaces(config: &mut v1::ContainerConfig) -> &mut v1::NamespaceOption {
    context(config).namespace_options.as_mut().unwrap()
}

type Changes<T> = &'static [(fn(&mut T), &'static str)];

/// The text of the error, whose beginning is the field.
fn refuse_pod(change: fn(&mut v1::PodSandboxConfig), field: &str) {
    let mut config = sandbox();
    change(&mut config);
    let err = sandbox_config(Some(config)).unwrap_err().to_string();
    assert!(err.starts_with(&format!("{field}: ")), "{err}");
}

fn refuse(change: fn(&mut v1::ContainerConfig), field: &str) {
    let mut config = container();
    change(&mut config);
    let err = container_config(Some(config)).unwrap_err().to_string();
    assert!(err.starts_with(&format!("{field}: ")), "{err}");
}

#[test]
fn a_sandbox_as_a_kubelet_sends_it() {
    let mut config = sandbox();
    let port = |container_port, host_port| v1::PortMapping {
        container_port,
        host_port,
        ..v1::PortMapping::default()
    };
    config.port_mappings = vec![port(80, 0), port(443, 8443)];
    pod_linux(&mut config).sysctls = [
        ("net/ipv4/conf/eth0.7/forwarding".to_owned(), "1".to_owned()),
        ("kernel.shm_rmid_forced".to_owned(), "1".to_owned()),
        ("net.ipv4.tcp_rmem".to_owned(), "4096 87380\t6291456".to_owned()),
    ]
    .into();
    let config = sandbox_config(Some(config)).unwrap();
    assert_eq!(config.metadata.attempt, 2);
    assert_eq!(config.port_mappings.len(), 1);
    assert_eq!(config.port_mappings[0].host_port, 8443);
    assert_eq!(config.namespaces.pid, PodPid::Container);
    assert!(config.sysctls.contains_key("net.ipv4.conf.eth0/7.forwarding"));
}

const WRONG_PODS: Changes<v1::PodSandboxConfig> = &[
    (|c| c.metadata = None, "metadata.name"),
    (|c| c.metadata.as_mut().unwrap().uid.clear(), "metadata.uid"),
    (|c| c.metadata.as_mut().unwrap().namespace.clear(), "metadata.namespace"),
    (|c| c.hostname = "a\nb".into(), "hostname"),
    (|c| c.hostname = "a".repeat(65), "hostname"),
    (|c| c.log_directory = "logs".into(), "log_directory"),
    (
        |c| {
            let servers = vec!["1.1.1.1\nsearch x".into()];
            c.dns_config = Some(v1::DnsConfig { servers, ..v1::DnsConfig::default() });
        },
        "dns_config.servers[0]",
    ),
    (
        |c| {
            c.port_mappings = vec![v1::PortMapping {
                host_port: 70_000,
                container_port: 1,
                ..v1::PortMapping::default()
            }];
        },
        "port_mappings[0].host_port",
    ),
    (
        |c| {
            c.port_mappings = vec![v1::PortMapping { host_port: 7, ..v1::PortMapping::default() }];
        },
        "port_mappings[0].container_port",
    ),
    (
        |c| {
            let mapping = v1::PortMapping {
                host_port: 7,
                container_port: 7,
                protocol: 9,
                host_ip: String::new(),
            };
            c.port_mappings = vec![mapping];
        },
        "port_mappings[0].protocol",
    ),
    (
        |c| {
            let mapping = v1::PortMapping {
                host_port: 7,
                container_port: 7,
                protocol: 0,
                host_ip: "here".into(),
            };
            c.port_mappings = vec![mapping];
        },
        "port_mappings[0].host_ip",
    ),
    (|c| pod_linux(c).cgroup_parent = "/a/../..".into(), "linux.cgroup_parent"),
    (
        |c| pod_namespaces(c).network = NamespaceMode::Container.into(),
        "linux.security_context.namespace_options.network",
    ),
    (
        |c| pod_namespaces(c).pid = NamespaceMode::Target.into(),
        "linux.security_context.namespace_options.pid",
    ),
    (|c| pod_namespaces(c).ipc = 17, "linux.security_context.namespace_options.ipc"),
    (
        |c| pod_namespaces(c).userns_options = Some(v1::UserNamespace::default()),
        "linux.security_context.namespace_options.userns_options.uids",
    ),
    (
        |c| {
            pod_linux(c).security_context.as_mut().unwrap().run_as_group =
                Some(v1::Int64Value { value: 1 });
        },
        "linux.security_context.run_as_group",
    ),
];

#[test]
fn what_a_sandbox_cannot_be() {
    for (change, field) in WRONG_PODS {
        refuse_pod(*change, field);
    }
    assert!(sandbox_config(None).is_err());
}

#[test]
fn sysctls_of_the_host_are_not_for_pods() {
    let parse = |name: &str, value: &str, host: bool| {
        let mut config = sandbox();
        pod_linux(&mut config).sysctls = [(name.to_owned(), value.to_owned())].into();
        if host {
            pod_namespaces(&mut config).network = NamespaceMode::Node.into();
            pod_namespaces(&mut config).ipc = NamespaceMode::Node.into();
        }
        sandbox_config(Some(config)).map(|_| ()).map_err(|err| err.to_string())
    };
    for name in ["net.core.somaxconn", "kernel.sem", "fs.mqueue.msg_max", "kernel/msgmax"] {
        assert_eq!(parse(name, "1", false), Ok(()), "{name}");
        assert!(parse(name, "1", true).is_err(), "{name}");
    }
    for name in [
        "kernel.core_pattern",
        "vm.overcommit_memory",
        "kernel.shm_rmid_forced+kernel.core_pattern",
        "net..core",
        "net.",
        "",
        "net/../kernel/core_pattern",
        "fs.file-max",
        "user.max_user_namespaces",
    ] {
        assert!(parse(name, "1", false).is_err(), "{name}");
    }
    assert!(parse("kernel.shm_rmid_forced", "1\nkernel.core_pattern=|/x", false).is_err());
}

#[test]
fn sysctls_have_defaults_that_a_pod_can_override() {
    let sysctls = |change: fn(&mut v1::PodSandboxConfig)| {
        let mut config = sandbox();
        change(&mut config);
        sandbox_config(Some(config)).unwrap().effective_sysctls()
    };
    let port = "net.ipv4.ip_unprivileged_port_start";
    assert_eq!(sysctls(|_| {}).get(port).map(String::as_str), Some("0"));
    let own = sysctls(|config| {
        let port = ("net.ipv4.ip_unprivileged_port_start".to_owned(), "1024".to_owned());
        pod_linux(config).sysctls = [port].into();
    });
    assert_eq!((own[port].as_str(), own.len()), ("1024", 2));
    let host = sysctls(|config| pod_namespaces(config).network = NamespaceMode::Node.into());
    assert!(host.is_empty());
}

#[test]
fn a_container_as_a_kubelet_sends_it() {
    let mut config = container();
    config.envs = vec![v1::KeyValue { key: "A".into(), value: b"b\xff".to_vec() }];
    config.stop_signal = v1::Signal::Sigquit.into();
    context(&mut config).seccomp = Some(v1::SecurityProfile {
        profile_type: ProfileType::Localhost.into(),
        localhost_ref: "localhost//var/lib/kubelet/seccomp/p.json".into(),
    });
    context(&mut config).apparmor_profile = "localhost/mine".into();
    let config = container_config(Some(config)).unwrap();
    assert_eq!(config.envs[0].value, b"b\xff");
    assert_eq!(config.stop_signal, Some(3));
    assert_eq!(config.security.pid, PidMode::Container);
    let path = "/var/lib/kubelet/seccomp/p.json".to_owned();
    assert_eq!(config.security.seccomp, Some(SecurityProfile::Localhost(path)));
    assert_eq!(config.security.apparmor, Some(SecurityProfile::Localhost("mine".into())));
}

#[test]
fn deprecated_profiles_count_where_the_newer_are_not_set() {
    for (text, profile) in [
        ("", None),
        ("unconfined", Some(SecurityProfile::Unconfined)),
        ("runtime/default", Some(SecurityProfile::RuntimeDefault)),
        ("docker/default", Some(SecurityProfile::RuntimeDefault)),
        ("localhost//p", Some(SecurityProfile::Localhost("/p".into()))),
    ] {
        let mut config = container();
        context(&mut config).seccomp_profile_path = text.into();
        let parsed = container_config(Some(config.clone())).unwrap();
        assert_eq!(parsed.security.seccomp, profile, "{text}");
        context(&mut config).seccomp = Some(v1::SecurityProfile {
            profile_type: ProfileType::Unconfined.into(),
            localhost_ref: String::new(),
        });
        let parsed = container_config(Some(config)).unwrap();
        assert_eq!(parsed.security.seccomp, Some(SecurityProfile::Unconfined));
    }
}

const WRONG_CONTAINERS: Changes<v1::ContainerConfig> = &[
    (|c| c.metadata = None, "metadata.name"),
    (|c| c.image = None, "image.image"),
    (|c| c.log_path = "/var/log/x".into(), "log_path"),
    (|c| c.log_path = "a/../../x".into(), "log_path"),
    (|c| c.log_path = "a\0b".into(), "log_path"),
    (|c| c.working_dir = "relative".into(), "working_dir"),
    (|c| c.args = vec!["a".into(), "b\0".into()], "args[1]"),
    (|c| c.envs = vec![v1::KeyValue { key: "A=B".into(), value: vec![] }], "envs[0].key"),
    (|c| c.envs = vec![v1::KeyValue { key: "A".into(), value: vec![0] }], "envs[0].value"),
    (|c| c.mounts[0].container_path = "data".into(), "mounts[0].container_path"),
    (|c| c.mounts[0].host_path.clear(), "mounts[0].host_path"),
    (|c| c.mounts[0].propagation = 9, "mounts[0].propagation"),
    (|c| c.mounts[0].recursive_read_only = true, "mounts[0].recursive_read_only"),
    (|c| c.mounts[0].mount_options = vec!["rshared".into()], "mounts[0].mount_options[0]"),
    (
        |c| {
            c.mounts[0].image =
                Some(v1::ImageSpec { image: "i".into(), ..v1::ImageSpec::default() });
        },
        "mounts[0].host_path",
    ),
    (|c| c.mounts[0].image_sub_path = "x".into(), "mounts[0].image_sub_path"),
    (
        |c| {
            let (host_path, container_path) = ("/dev/kvm".into(), "/dev/kvm".into());
            c.devices = vec![v1::Device { host_path, container_path, permissions: "rx".into() }];
        },
        "devices[0].permissions",
    ),
    (
        |c| context(c).run_as_group = Some(v1::Int64Value { value: 7 }),
        "linux.security_context.run_as_group",
    ),
    (
        |c| context(c).run_as_user = Some(v1::Int64Value { value: 1 << 32 }),
        "linux.security_context.run_as_user",
    ),
    (
        |c| context(c).supplemental_groups = vec![1, -1],
        "linux.security_context.supplemental_groups[1]",
    ),
    (
        |c| context(c).supplemental_groups_policy = 2,
        "linux.security_context.supplemental_groups_policy",
    ),
    (
        |c| {
            let add_capabilities = vec!["NOPE".into()];
            context(c).capabilities =
                Some(v1::Capability { add_capabilities, ..v1::Capability::default() });
        },
        "linux.security_context.capabilities.add_capabilities[0]",
    ),
    (
        |c| namespaces(c).pid = NamespaceMode::Target.into(),
        "linux.security_context.namespace_options.target_id",
    ),
    (
        |c| {
            let profile_type = ProfileType::Localhost.into();
            context(c).seccomp =
                Some(v1::SecurityProfile { profile_type, localhost_ref: String::new() });
        },
        "linux.security_context.seccomp.localhost_ref",
    ),
    (|c| context(c).apparmor_profile = "strict".into(), "linux.security_context.apparmor_profile"),
    (
        |c| {
            let level = "s0;c1".to_owned();
            context(c).selinux_options = Some(v1::SeLinuxOption { level, ..Default::default() });
        },
        "linux.security_context.selinux_options.level",
    ),
    (
        |c| {
            let user = "root:x".to_owned();
            context(c).selinux_options = Some(v1::SeLinuxOption { user, ..Default::default() });
        },
        "linux.security_context.selinux_options.user",
    ),
    (|c| context(c).masked_paths = vec!["proc".into()], "linux.security_context.masked_paths[0]"),
    (|c| c.stop_signal = 99, "stop_signal"),
    (
        |c| c.linux.as_mut().unwrap().resources.as_mut().unwrap().oom_score_adj = 1001,
        "linux.resources.oom_score_adj",
    ),
];

#[test]
fn what_a_container_cannot_be() {
    for (change, field) in WRONG_CONTAINERS {
        refuse(*change, field);
    }
    assert!(container_config(None).is_err());
}

#[test]
fn limits_that_no_kernel_takes() {
    let cases: &[fn(&mut v1::LinuxContainerResources)] = &[
        |r| r.cpu_quota = -2,
        |r| r.cpu_period = -1,
        |r| r.memory_limit_in_bytes = -2,
        |r| r.cpuset_cpus = "all".into(),
        |r| r.hugepage_limits = vec![v1::HugepageLimit { page_size: "2M".into(), limit: 0 }],
        |r| r.unified = [("../memory.max".to_owned(), "1".to_owned())].into(),
        |r| r.unified = [(String::new(), "1".to_owned())].into(),
    ];
    for change in cases {
        let mut limits = v1::LinuxContainerResources::default();
        change(&mut limits);
        assert!(resources(limits).is_err());
    }
}

#[test]
fn filters_hold_all_their_parts() {
    let filter = SandboxFilter::parse(Some(v1::PodSandboxFilter {
        id: "ab".into(),
        state: Some(v1::PodSandboxStateValue { state: 0 }),
        label_selector: [("app".to_owned(), "web".to_owned())].into(),
    }))
    .unwrap();
    let labels = [("app".to_owned(), "web".to_owned())].into();
    let (ready, not_ready) =
        (v1::PodSandboxState::SandboxReady, v1::PodSandboxState::SandboxNotready);
    assert_eq!(filter.labels, labels);
    assert!(filter.admits("abc", ready));
    assert!(!filter.admits("abc", not_ready));
    assert!(!filter.admits("bc", ready));
    let all = ContainerFilter::parse(None).unwrap();
    assert!(all.admits("a", "b", v1::ContainerState::ContainerExited));
    let state = Some(v1::ContainerStateValue { state: 9 });
    assert!(
        ContainerFilter::parse(Some(v1::ContainerFilter { state, ..Default::default() })).is_err()
    );
}

proptest! {
    #[test]
    fn any_bytes_that_are_a_message_parse_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        use prost::Message as _;
        if let Ok(config) = v1::ContainerConfig::decode(&bytes[..]) {
            let _ = container_config(Some(config));
        }
        if let Ok(config) = v1::PodSandboxConfig::decode(&bytes[..]) {
            let _ = sandbox_config(Some(config));
        }
    }
}
