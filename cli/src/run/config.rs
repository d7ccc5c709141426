//! From the options of `podwright run` to what CRI wants, the way a kubelet would say it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use api::cri::v1::security_profile::ProfileType;
use api::cri::v1::{
    ContainerConfig, ContainerMetadata, ImageSpec, KeyValue, LinuxContainerConfig,
    LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext,
    NamespaceMode, NamespaceOption, PodSandbox, PodSandboxConfig, PodSandboxMetadata, PortMapping,
    SecurityProfile,
};

use super::{Args, Net, parse};

/// Where a kubelet has its pods' logs.
const LOGS: &str = "/var/log/pods";
/// The label by which `podwright rm` knows that the logs are its to remove.
const OURS: &str = "podwright.run";
/// Digits of the uid that make a name unique.
const UNIQUE: usize = 5;
/// The longest part of a name that is made from an image.
const BASE: usize = 40;

/// Hidden from containers, as a kubelet has it.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// Read-only in containers, as a kubelet has it.
const READ_ONLY: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What is to be made.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) pod: PodSandboxConfig,
    pub(crate) containers: Vec<Planned>,
}

/// A container to be made, once its image's id is known.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) config: ContainerConfig,
}

impl Planned {
    pub(crate) fn with_image(&self, id: &str) -> ContainerConfig {
        let image = ImageSpec {
            image: id.into(),
            user_specified_image: self.image.clone(),
            ..Default::default()
        };
        ContainerConfig { image: Some(image), ..self.config.clone() }
    }
}

/// Works out what is to be made.
pub(crate) fn plan(args: &Args) -> anyhow::Result<Plan> {
    let uid = std::fs::read_to_string("/proc/sys/kernel/random/uuid").context("making a uid")?;
    Ok(plan_with(args, uid.trim()))
}

fn plan_with(args: &Args, uid: &str) -> Plan {
    let mut containers = args.container.clone();
    if let Some(image) = &args.image {
        let (image, command) = (image.clone(), args.command.clone());
        containers.push(parse::Container { name: name_of(&image), image, command });
    }
    let first = containers.first().map_or("pod", |container| &container.name);
    let name = args.name.clone().unwrap_or_else(|| format!("{first}-{}", &uid[..UNIQUE]));
    let metadata =
        PodSandboxMetadata { name, uid: uid.into(), namespace: args.namespace.clone(), attempt: 0 };
    let pod = pod(args, metadata);
    let containers = containers.into_iter().map(|one| container(args, one, &pod)).collect();
    Plan { pod, containers }
}

fn pod(args: &Args, metadata: PodSandboxMetadata) -> PodSandboxConfig {
    let mut labels = kubelet_labels(&metadata);
    labels.insert(OURS.into(), "true".into());
    let security = LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(args.net)),
        seccomp: Some(runtime_default()),
        ..Default::default()
    };
    PodSandboxConfig {
        hostname: if args.net == Net::Host { String::new() } else { metadata.name.clone() },
        log_directory: log_directory(&metadata).to_string_lossy().into_owned(),
        port_mappings: args.publish.iter().map(port_mapping).collect(),
        labels: labels.into_iter().collect(),
        linux: Some(LinuxPodSandboxConfig {
            security_context: Some(security),
            ..Default::default()
        }),
        metadata: Some(metadata),
        ..Default::default()
    }
}

fn container(args: &Args, one: parse::Container, pod: &PodSandboxConfig) -> Planned {
    let mut labels = pod.metadata.as_ref().map(kubelet_labels).unwrap_or_default();
    labels.insert("io.kubernetes.container.name".into(), one.name.clone());
    let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
    let security = LinuxContainerSecurityContext {
        namespace_options: Some(namespaces(args.net)),
        masked_paths: owned(MASKED),
        readonly_paths: owned(READ_ONLY),
        seccomp: Some(runtime_default()),
        ..Default::default()
    };
    let envs = args
        .env
        .iter()
        .map(|(key, value)| KeyValue { key: key.clone(), value: value.clone().into_bytes() });
    let config = ContainerConfig {
        metadata: Some(ContainerMetadata { name: one.name.clone(), attempt: 0 }),
        args: one.command,
        envs: envs.collect(),
        labels: labels.into_iter().collect(),
        log_path: format!("{}/0.log", one.name),
        linux: Some(LinuxContainerConfig {
            security_context: Some(security),
            ..Default::default()
        }),
        ..Default::default()
    };
    Planned { name: one.name, image: one.image, config }
}

fn kubelet_labels(metadata: &PodSandboxMetadata) -> std::collections::BTreeMap<String, String> {
    let label = |key: &str, value: &String| (format!("io.kubernetes.pod.{key}"), value.clone());
    [
        label("name", &metadata.name),
        label("namespace", &metadata.namespace),
        label("uid", &metadata.uid),
    ]
    .into()
}

fn namespaces(net: Net) -> NamespaceOption {
    let network = if net == Net::Host { NamespaceMode::Node } else { NamespaceMode::Pod };
    NamespaceOption {
        network: network.into(),
        pid: NamespaceMode::Container.into(),
        ipc: NamespaceMode::Pod.into(),
        ..Default::default()
    }
}

fn runtime_default() -> SecurityProfile {
    SecurityProfile { profile_type: ProfileType::RuntimeDefault.into(), ..Default::default() }
}

fn port_mapping(port: &parse::Port) -> PortMapping {
    PortMapping {
        protocol: port.protocol.into(),
        container_port: port.pod.into(),
        host_port: port.host.into(),
        host_ip: port.host_ip.clone(),
    }
}

/// A container's name from its image's: `docker.io/library/nginx:1.27` runs as `nginx`.
fn name_of(image: &str) -> String {
    let last = image.split('@').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    let base = last.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let dashed = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = base.chars().map(dashed).take(BASE).collect();
    match name.trim_matches('-') {
        // An image named by its id alone tells no more.
        "" | "sha256" => "container".into(),
        name => name.into(),
    }
}

/// Where the kubelet would have this pod's logs.
fn log_directory(metadata: &PodSandboxMetadata) -> PathBuf {
    let PodSandboxMetadata { namespace, name, uid, .. } = metadata;
    Path::new(LOGS).join(format!("{namespace}_{name}_{uid}"))
}

/// The logs of a pod that `podwright run` made, which nobody else removes.
pub(crate) fn logs_of(pod: &PodSandbox) -> Option<PathBuf> {
    let metadata = pod.metadata.as_ref()?;
    let plain = |text: &String| !text.contains('/');
    let ours = pod.labels.contains_key(OURS)
        && [&metadata.namespace, &metadata.name, &metadata.uid].into_iter().all(plain);
    ours.then(|| log_directory(metadata))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    const UID: &str = "0f1e2d3c-0000-4000-8000-000000000000";

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn plan_of(line: &str) -> Plan {
        let words = std::iter::once("run").chain(line.split_whitespace());
        plan_with(&Line::try_parse_from(words).unwrap().args, UID)
    }

    #[test]
    fn an_image_and_a_command_are_enough() {
        for line in ["r.io/demo/Web_app:1 sh -c id", "r.io/demo/Web_app:1 -- sh -c id"] {
            let plan = plan_of(line);
            let metadata = plan.pod.metadata.clone().unwrap();
            assert_eq!(metadata.name, "web-app-0f1e2");
            assert_eq!(plan.pod.hostname, metadata.name);
            assert_eq!(plan.pod.labels["io.kubernetes.pod.uid"], UID);
            let [one] = plan.containers.as_slice() else { panic!("{plan:?}") };
            assert_eq!(one.name, "web-app");
            assert_eq!(one.config.args, ["sh", "-c", "id"]);
            assert!(one.config.command.is_empty());
            assert_eq!(one.config.log_path, "web-app/0.log");
            let image = one.with_image("sha256:aa").image.unwrap();
            assert_eq!(image.image, "sha256:aa");
            assert_eq!(image.user_specified_image, "r.io/demo/Web_app:1");
        }
    }

    #[test]
    fn options_reach_the_configuration() {
        let plan = plan_of("--name web --net host -e A=1 -p 8080:80 a --not-ours");
        assert_eq!(plan.pod.metadata.as_ref().unwrap().name, "web");
        assert_eq!(plan.pod.hostname, "");
        assert_eq!(plan.pod.port_mappings[0].host_port, 8080);
        let linux = plan.pod.linux.as_ref().unwrap();
        let options = linux.security_context.as_ref().unwrap().namespace_options.as_ref();
        assert_eq!(options.unwrap().network(), NamespaceMode::Node);
        let config = &plan.containers[0].config;
        assert_eq!(config.envs[0].value, b"1");
        assert_eq!(config.args, ["--not-ours"]);
    }

    #[test]
    fn a_pod_may_have_several_containers() {
        let words = ["run", "--container", "web=a:1 httpd -f", "--container", "side=b"];
        let plan = plan_with(&Line::try_parse_from(words).unwrap().args, UID);
        assert_eq!(plan.pod.metadata.unwrap().name, "web-0f1e2");
        assert_eq!(plan.containers[0].config.args, ["httpd", "-f"]);
        assert_eq!(plan.containers[1].name, "side");
        assert!(Line::try_parse_from(["run"]).is_err());
        assert!(Line::try_parse_from(["run", "--container", "a=b", "c"]).is_err());
    }

    #[test]
    fn names_come_from_images() {
        let cases = [
            ("nginx", "nginx"),
            ("localhost:5000/a/b.c:1.2", "b-c"),
            ("r.io/x@sha256:abc", "x"),
            ("r.io/--:1", "container"),
            ("sha256:0123", "container"),
        ];
        for (image, name) in cases {
            assert_eq!(name_of(image), name);
        }
    }

    #[test]
    fn only_our_own_logs_are_removed() {
        let plan = plan_of("--name web a");
        let mut pod = PodSandbox {
            metadata: plan.pod.metadata,
            labels: plan.pod.labels,
            ..Default::default()
        };
        let logs = format!("/var/log/pods/default_web_{UID}");
        assert_eq!(logs_of(&pod).as_deref(), Some(Path::new(&logs)));
        pod.metadata.as_mut().unwrap().name = "../../etc".into();
        assert_eq!(logs_of(&pod), None);
        pod.metadata.as_mut().unwrap().name = "web".into();
        pod.labels.remove(OURS);
        assert_eq!(logs_of(&pod), None);
    }
}
