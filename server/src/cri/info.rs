//! The `info` maps of verbose answers: JSON for people and tools, under the keys that containerd made known.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::config::CgroupDriver;
use crate::container::Container;
use crate::container::config::ContainerConfig;
use crate::container::node::Node;
use crate::container::state::State;
use crate::sandbox::config::SandboxConfig;
use crate::sandbox::state::Ready;
use crate::sandbox::{Pods, Sandbox};

type Info = BTreeMap<String, String>;

fn one(value: &Value) -> Info {
    BTreeMap::from([("info".to_owned(), value.to_string())])
}

/// The OCI spec of a bundle, as it was given to the runtime. Blocks.
fn runtime_spec(container: &Container) -> Value {
    std::fs::read(container.fixed.bundle.join("config.json"))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or(Value::Null)
}

/// ContainerStatus. Blocks.
pub(super) fn container(node: &Node, container: &Container) -> Info {
    let fixed = &container.fixed;
    let pid = match container.state() {
        State::Running(running) => running.pid,
        State::Created | State::Exited(_) => 0,
    };
    one(&json!({
        "sandboxID": fixed.sandbox_id,
        "pid": pid,
        "removing": container.is_removing(),
        "snapshotKey": fixed.id,
        "snapshotter": format!("{:?}", node.hands.snapshotter.kind()).to_lowercase(),
        "runtimeType": fixed.handler.name,
        "runtimeOptions": {
            "binary_name": fixed.handler.binary,
            "root": node.runtime_root(&fixed.handler.name),
            "systemd_cgroup": node.host.cgroup_driver == CgroupDriver::Systemd,
        },
        "config": container_config(&fixed.config),
        "runtimeSpec": runtime_spec(container),
    }))
}

/// PodSandboxStatus. There is no pause process: `pid` is one by which the pod's network can be found, the
/// init of a shared pid namespace where there is one, else a container's.
pub(super) fn sandbox(pods: &Pods, sandbox: &Sandbox) -> Info {
    let (fixed, now) = (&sandbox.fixed, sandbox.now());
    let ready = sandbox.ready();
    let netns = ready.as_ref().and_then(|ready| ready.netns.clone());
    let namespaces: Vec<Value> = ready.iter().flat_map(namespaces).collect();
    one(&json!({
        "pid": ready.as_ref().map_or(0, |ready| network_pid(pods, sandbox, ready.init_pid)),
        "shimPid": ready.as_ref().map_or(0, |ready| ready.shim_pid),
        "processStatus": if ready.is_some() { "running" } else { "deleted" },
        "netNamespaceClosed": netns.as_ref().is_some_and(|path| !path.exists()),
        "image": "",
        "snapshotKey": "",
        "snapshotter": "",
        "runtimeHandler": fixed.runtime_handler,
        "runtimeType": fixed.handler.name,
        "runtimeOptions": {"binary_name": fixed.handler.binary},
        "config": sandbox_config(&fixed.config),
        "runtimeSpec": {
            "linux": {"namespaces": namespaces, "cgroupsPath": fixed.config.cgroup_parent},
        },
        "cniResult": ready.map_or(Value::Null, |ready| ready.network_result),
        "sandboxMetadata": fixed.config.metadata,
        "overhead": now.overhead,
        "resources": now.resources,
        "held": now.plan,
    }))
}

/// The namespaces of a pod as an OCI spec names them.
pub(super) fn namespaces(ready: &Ready) -> Vec<Value> {
    let of = |name: &str, path: Option<&std::path::PathBuf>| {
        path.map(|path| json!({"type": name, "path": path}))
    };
    let all = [
        of("network", ready.netns.as_ref()),
        of("ipc", ready.ipc.as_ref()),
        of("uts", ready.uts.as_ref()),
        of("pid", ready.pid.as_ref()),
        of("user", ready.user.as_ref()),
    ];
    all.into_iter().flatten().collect()
}

/// With `linux` nested as in the CRI message, where scripts look for it.
fn container_config(config: &ContainerConfig) -> Value {
    let mut fields = fields(json!(config));
    let linux = json!({
        "resources": fields.remove("resources"),
        "security_context": fields.remove("security"),
    });
    fields.insert("linux".to_owned(), linux);
    Value::Object(fields)
}

/// As [`container_config`].
fn sandbox_config(config: &SandboxConfig) -> Value {
    let mut all = fields(json!(config));
    let mut context = fields(json!(all.remove("security")));
    context.insert("privileged".to_owned(), json!(all.remove("privileged")));
    context.insert("namespace_options".to_owned(), json!(all.remove("namespaces")));
    let mut linux = Map::from_iter([("security_context".to_owned(), Value::Object(context))]);
    for field in ["cgroup_parent", "sysctls", "overhead", "resources"] {
        linux.insert(field.to_owned(), json!(all.remove(field)));
    }
    all.insert("linux".to_owned(), Value::Object(linux));
    Value::Object(all)
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// A process by which the pod's network can be found; 0: it has none now.
pub(super) fn network_pid(pods: &Pods, sandbox: &Sandbox, init: u32) -> u32 {
    if init != 0 {
        return init;
    }
    let containers = pods.containers_of(sandbox.id());
    let pid = containers.iter().find_map(|container| match container.state() {
        State::Running(running) => Some(running.pid),
        State::Created | State::Exited(_) => None,
    });
    pid.unwrap_or(0)
}

/// Status: the configuration in force and what was made of the CNI files.
pub(super) fn status(pods: &Pods) -> Info {
    let (config, host) = (&pods.node.config, &pods.node.host);
    let networks = pods.networks.current();
    let handlers: BTreeMap<_, _> = host
        .handlers
        .iter()
        .map(|(name, handler)| (name, json!({"path": handler.binary})))
        .collect();
    let shown = json!({
        "rootDir": config.root,
        "stateDir": config.state,
        "socket": config.socket,
        // Nothing is ever pulled for a sandbox; kubeadm compares this with its own pause image.
        "sandboxImage": "",
        "containerd": {"defaultRuntimeName": host.default_handler, "runtimes": handlers},
        "cni": {
            "binDirs": config.network.bin_dirs,
            "confDir": config.network.conf_dir,
            // Plugins whose work is done in-process: nothing has to be installed for them.
            "inProcess": networks.network().map(|network| pods.node.hands.cni.in_process(network)),
        },
        "registry": {"configPath": config.registry_hosts},
        "cgroupDriver": match host.cgroup_driver {
            CgroupDriver::Systemd => "systemd",
            CgroupDriver::Cgroupfs => "cgroupfs",
        },
        "cgroupVersion": if host.cgroup_v2 { 2 } else { 1 },
        "kernel": host.kernel,
    });
    let network = networks.network();
    let cniconfig = json!({
        "PluginDirs": config.network.bin_dirs,
        "PluginConfDir": config.network.conf_dir,
        "Networks": network.map(|network| json!({
            "Config": {
                "Name": network.name(),
                "CNIVersion": network.cni_version(),
                "Source": serde_json::from_slice::<Value>(network.bytes()).unwrap_or(Value::Null),
            },
            "IFName": "eth0",
            "File": networks.path(),
        })).into_iter().collect::<Vec<_>>(),
    });
    BTreeMap::from([
        ("config".to_owned(), shown.to_string()),
        ("cniconfig".to_owned(), cniconfig.to_string()),
        ("lastCNILoadStatus".to_owned(), networks.summary()),
    ])
}

#[cfg(test)]
mod tests {
    use super::super::from_proto;
    use super::*;
    use api::cri::v1 as cri;

    #[test]
    fn configurations_are_nested_as_the_messages_are() {
        let config = from_proto::container_config(Some(cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: "web".into(), attempt: 0 }),
            image: Some(cri::ImageSpec { image: "i".into(), ..Default::default() }),
            envs: vec![cri::KeyValue { key: "A".into(), value: b"text".to_vec() }],
            ..Default::default()
        }));
        let shown = container_config(&config.unwrap());
        assert_eq!(shown["metadata"]["name"], "web");
        assert_eq!(shown["envs"][0]["value"], "text");
        assert_eq!(shown["linux"]["security_context"]["privileged"], false);
        assert_eq!(shown["linux"]["resources"]["cpu_quota"], 0);

        let linux = cri::LinuxPodSandboxConfig { cgroup_parent: "/k".into(), ..Default::default() };
        let config = from_proto::sandbox_config(Some(cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: "web".into(),
                uid: "u".into(),
                namespace: "shop".into(),
                attempt: 0,
            }),
            linux: Some(linux),
            ..Default::default()
        }));
        let shown = sandbox_config(&config.unwrap());
        assert_eq!(shown["linux"]["cgroup_parent"], "/k");
        assert_eq!(shown["linux"]["security_context"]["namespace_options"]["ipc"], "pod");
    }
}
