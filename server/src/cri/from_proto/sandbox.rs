//! PodSandboxConfig.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::cri::v1::{self, NamespaceMode};

use super::{absolute, known, printable, required, resources, security, under};
use crate::container::spec::cgroup;
use crate::error::{Error, Result};
use crate::sandbox::config::{
    DnsConfig, PodNamespaces, PodOrHost, PodPid, PortMapping, Protocol, SandboxConfig,
    SandboxMetadata, SandboxSecurity,
};

/// HOST_NAME_MAX of the kernel.
const MAX_HOSTNAME: usize = 64;

/// A pod's configuration, checked.
///
/// # Errors
/// `Invalid`, with the field's path.
pub(in crate::cri) fn sandbox_config(
    config: Option<v1::PodSandboxConfig>,
) -> Result<SandboxConfig> {
    let config = config.ok_or_else(|| Error::invalid("config", "is required"))?;
    let metadata = metadata(config.metadata.unwrap_or_default()).map_err(under("metadata"))?;
    hostname(&config.hostname)?;
    if !config.log_directory.is_empty() {
        absolute("log_directory", &config.log_directory)?;
    }
    let linux = config.linux.unwrap_or_default();
    cgroup::check_parent(&linux.cgroup_parent)?;
    let context = linux.security_context.unwrap_or_default();
    let namespaces = context.namespace_options.clone().unwrap_or_default();
    let options = "linux.security_context.namespace_options";
    let namespaces = pod_namespaces(&namespaces).map_err(under(options))?;
    let sysctls = sysctls(linux.sysctls, namespaces).map_err(under("linux"))?;
    Ok(SandboxConfig {
        metadata,
        hostname: config.hostname,
        log_directory: config.log_directory,
        dns_config: config.dns_config.map(dns).transpose().map_err(under("dns_config"))?,
        port_mappings: port_mappings(config.port_mappings)?,
        labels: config.labels,
        annotations: config.annotations,
        cgroup_parent: linux.cgroup_parent,
        sysctls,
        privileged: context.privileged,
        namespaces,
        security: sandbox_security(context).map_err(under("linux.security_context"))?,
        overhead: linux.overhead.map(resources).transpose().map_err(under("linux.overhead"))?,
        resources: linux.resources.map(resources).transpose().map_err(under("linux.resources"))?,
    })
}

fn metadata(metadata: v1::PodSandboxMetadata) -> Result<SandboxMetadata> {
    for (field, value) in
        [("name", &metadata.name), ("namespace", &metadata.namespace), ("uid", &metadata.uid)]
    {
        required(field, value)?;
        printable(field, value)?;
    }
    Ok(SandboxMetadata {
        name: metadata.name,
        uid: metadata.uid,
        namespace: metadata.namespace,
        attempt: metadata.attempt,
    })
}

/// It is written to files of lines, and given to sethostname(2).
fn hostname(name: &str) -> Result<()> {
    if name.len() > MAX_HOSTNAME {
        let reason = format!("is longer than {MAX_HOSTNAME} bytes");
        return Err(Error::invalid("hostname", reason));
    }
    if name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')) {
        return Ok(());
    }
    Err(Error::invalid("hostname", format!("{name:?} is no host name")))
}

fn pod_namespaces(options: &v1::NamespaceOption) -> Result<PodNamespaces> {
    let shared = |field, mode| {
        let host = security::shared(field, mode)?;
        Ok(if host { PodOrHost::Host } else { PodOrHost::Pod })
    };
    let pid = match known("pid", options.pid)? {
        NamespaceMode::Pod => PodPid::Pod,
        NamespaceMode::Container => PodPid::Container,
        NamespaceMode::Node => PodPid::Host,
        NamespaceMode::Target => {
            return Err(Error::invalid("pid", "must be POD, CONTAINER or NODE, not TARGET"));
        }
    };
    Ok(PodNamespaces {
        network: shared("network", options.network)?,
        ipc: shared("ipc", options.ipc)?,
        pid,
    })
}

#[expect(deprecated, reason = "older kubelets send the older fields")]
fn sandbox_security(context: v1::LinuxSandboxSecurityContext) -> Result<SandboxSecurity> {
    let ids = security::Ids {
        user: context.run_as_user.map(|id| id.value),
        name: "",
        group: context.run_as_group.map(|id| id.value),
        groups: &context.supplemental_groups,
    };
    ids.check()?;
    let userns = context.namespace_options.and_then(|options| options.userns_options);
    Ok(SandboxSecurity {
        selinux: context.selinux_options.map(security::selinux).transpose()?,
        run_as_user: context.run_as_user.map(|id| id.value),
        run_as_group: context.run_as_group.map(|id| id.value),
        readonly_rootfs: context.readonly_rootfs,
        supplemental_groups: context.supplemental_groups,
        supplemental_groups_policy: security::groups_policy(context.supplemental_groups_policy)?,
        seccomp: security::seccomp(context.seccomp, &context.seccomp_profile_path)?,
        apparmor: security::apparmor(context.apparmor, "")?,
        userns: security::userns(userns).map_err(under("namespace_options.userns_options"))?,
    })
}

/// Each becomes a line, or a word, of the pod's resolv.conf.
fn dns(config: v1::DnsConfig) -> Result<DnsConfig> {
    for (field, list) in [("servers", &config.servers), ("searches", &config.searches)] {
        for (i, word) in list.iter().enumerate() {
            let field = format!("{field}[{i}]");
            required(&field, word)?;
            if word.contains(|c: char| c.is_whitespace() || c.is_control()) {
                return Err(Error::invalid(field, "must not contain white space"));
            }
        }
    }
    for (i, option) in config.options.iter().enumerate() {
        printable(&format!("options[{i}]"), option)?;
    }
    Ok(DnsConfig { servers: config.servers, searches: config.searches, options: config.options })
}

/// One without a host port asks for nothing.
fn port_mappings(mappings: Vec<v1::PortMapping>) -> Result<Vec<PortMapping>> {
    mappings
        .into_iter()
        .enumerate()
        .filter(|(_, mapping)| mapping.host_port != 0)
        .map(|(i, mapping)| {
            port_mapping(mapping).map_err(under(format_args!("port_mappings[{i}]")))
        })
        .collect()
}

fn port_mapping(mapping: v1::PortMapping) -> Result<PortMapping> {
    let port = |field, number: i32| {
        u16::try_from(number)
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| Error::invalid(field, format!("{number} is no port")))
    };
    if !mapping.host_ip.is_empty() && mapping.host_ip.parse::<IpAddr>().is_err() {
        let reason = format!("{:?} is no IP address", mapping.host_ip);
        return Err(Error::invalid("host_ip", reason));
    }
    Ok(PortMapping {
        protocol: match known("protocol", mapping.protocol)? {
            v1::Protocol::Tcp => Protocol::Tcp,
            v1::Protocol::Udp => Protocol::Udp,
            v1::Protocol::Sctp => Protocol::Sctp,
        },
        container_port: port("container_port", mapping.container_port)?,
        host_port: port("host_port", mapping.host_port)?,
        host_ip: mapping.host_ip,
    })
}

/// Only what a namespace of the pod holds: anything else would change the host.
fn sysctls(
    sysctls: BTreeMap<String, String>,
    namespaces: PodNamespaces,
) -> Result<BTreeMap<String, String>> {
    sysctls
        .into_iter()
        .map(|(name, value)| {
            let field = format!("sysctls[{name:?}]");
            printable(&field, value.replace('\t', " ").as_str())?;
            let dotted = dotted(&name)
                .ok_or_else(|| Error::invalid(field.as_str(), "is no name of a sysctl"))?;
            match namespace_of(&dotted) {
                Some(namespace) if of_pod(namespace, namespaces) => Ok((dotted, value)),
                Some(namespace) => {
                    let reason = format!("the pod is in the host's {namespace} namespace");
                    Err(Error::invalid(field, reason))
                }
                None => Err(Error::invalid(field, "is not part of a namespace")),
            }
        })
        .collect()
}

fn of_pod(namespace: &str, namespaces: PodNamespaces) -> bool {
    // The name of a pod goes with its network.
    let mode = if namespace == "ipc" { namespaces.ipc } else { namespaces.network };
    mode == PodOrHost::Pod
}

/// Names may come with slashes, as below /proc/sys; with dots a slash stands for a dot within a part.
fn dotted(name: &str) -> Option<String> {
    let slashes = name.find(['.', '/']).is_some_and(|at| name.as_bytes()[at] == b'/');
    let dotted: String = if slashes {
        name.chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect()
    } else {
        name.to_owned()
    };
    let part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'/' | b'@' | b':'))
            && part.split('/').all(|piece| !piece.is_empty())
    };
    dotted.split('.').all(part).then_some(dotted)
}

fn namespace_of(sysctl: &str) -> Option<&'static str> {
    const IPC: [&str; 11] = [
        "kernel.msg_next_id",
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.sem_next_id",
        "kernel.shm_next_id",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    if sysctl.starts_with("net.") {
        Some("network")
    } else if sysctl.starts_with("fs.mqueue.") || IPC.contains(&sysctl) {
        Some("ipc")
    } else if sysctl == "kernel.domainname" {
        Some("uts")
    } else {
        None
    }
}
