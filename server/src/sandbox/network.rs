//! The pod network: which conflist is in force, and one pod's attachment to it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use super::config::{Protocol, SandboxConfig};
use super::readiness::Readiness;
use crate::container::node::Node;
use crate::error::{Error, Result};
use crate::failpoint;
use crate::id::SandboxId;
use crate::operation::Operation;
use crate::telemetry::{apart, blocking};

/// The interface that a pod gets.
const IFNAME: &str = "eth0";

/// The networks that are configured, as they were read last.
#[derive(Debug)]
pub(crate) struct Networks {
    dir: PathBuf,
    current: RwLock<Arc<cni::ConfigSet>>,
    pub(super) readiness: Readiness,
    /// Shared by attachments being made; held alone while garbage is collected, which would take one for garbage.
    pub(crate) attaching: tokio::sync::RwLock<()>,
}

impl Networks {
    pub(crate) fn load(dir: &Path) -> Self {
        let current = RwLock::new(Arc::new(cni::ConfigSet::load(dir)));
        let (readiness, attaching) = Default::default();
        Self { dir: dir.to_owned(), current, readiness, attaching }
    }

    /// Reads the directory again.
    pub(crate) fn reload(&self) {
        let fresh = Arc::new(cni::ConfigSet::load(&self.dir));
        tracing::info!(dir = %self.dir.display(), state = fresh.summary(), "pod network configuration");
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        self.readiness.forget();
    }

    /// What was read last.
    pub(crate) fn current(&self) -> Arc<cni::ConfigSet> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The network of new pods.
    ///
    /// # Errors
    /// When none is configured.
    pub(crate) fn network(&self) -> Result<Arc<cni::Network>> {
        let current = self.current();
        current
            .network()
            .cloned()
            .ok_or_else(|| Error::Network(format!("not ready: {}", current.summary())))
    }
}

/// The attachment of a pod: all that plugins are told of it.
pub(super) fn attachment(id: &SandboxId, config: &SandboxConfig, netns: &Path) -> cni::Attachment {
    let metadata = &config.metadata;
    let mut attachment =
        cni::Attachment::for_pod(id.as_str(), &metadata.namespace, &metadata.name, &metadata.uid);
    attachment.netns = Some(netns.to_owned());
    attachment.ifname = IFNAME.into();
    // Recorded before the first rule is written, with the plan that this goes into.
    attachment.engines = cni::Engines::of_node();
    let capabilities = &mut attachment.capabilities;
    capabilities.port_mappings = config
        .port_mappings
        .iter()
        .map(|port| cni::PortMapping {
            host_port: port.host_port,
            container_port: port.container_port,
            protocol: match port.protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
                Protocol::Sctp => "sctp",
            }
            .into(),
            host_ip: port.host_ip.clone(),
        })
        .collect();
    capabilities.dns = config.dns_config.as_ref().map(|dns| cni::Dns {
        servers: dns.servers.clone(),
        searches: dns.searches.clone(),
        options: dns.options.clone(),
    });
    if !config.cgroup_parent.is_empty() {
        capabilities.cgroup_path = Some(config.cgroup_parent.clone());
    }
    capabilities.pod_annotations = config.annotations.clone();
    attachment
}

/// Makes the namespace, with its loopback up.
pub(super) async fn make_netns(path: PathBuf) -> Result<()> {
    blocking(move || {
        failpoint::step("run/netns", || {
            cni::netns::create(&path).map_err(|err| Error::Network(err.to_string()))
        })
    })
    .await
}

/// Pins a namespace that the shim has made among the pod's users, and brings its loopback up.
pub(super) async fn pin_netns(namespace: Option<PathBuf>, path: PathBuf) -> Result<()> {
    let none = || Error::Unsupported("the shim is of a version without user namespaces".into());
    let namespace = namespace.ok_or_else(none)?;
    blocking(move || {
        failpoint::step("run/pin-netns", || {
            cni::netns::pin(&namespace, &path)
                .and_then(|()| cni::netns::loopback_up(&path))
                .map_err(|err| Error::Network(err.to_string()))
        })
    })
    .await
}

/// Runs the plugins' ADD. The addresses, the one that CRI reports first in front, and the whole result.
pub(super) async fn attach(
    node: &Node,
    network: Arc<cni::Network>,
    attachment: cni::Attachment,
    operation: &Operation,
) -> Result<(Vec<IpAddr>, serde_json::Value)> {
    let failed = |err: cni::Error| Error::Network(err.to_string());
    let cancel = cni::Cancel::new().map_err(failed)?;
    let waiting = operation.waits_for("");
    let deadline = node.hands.cni.deadline().or(&cancel).telling(waiting.text());
    let ifname = attachment.ifname.clone();
    let cni = node.hands.cni.clone();
    let add = apart(move || {
        failpoint::step("run/cni-add", || cni.add(&network, &attachment, &deadline).map_err(failed))
    });
    tokio::pin!(add);
    let result = tokio::select! {
        result = &mut add => result?,
        () = operation.cancelled() => {
            // Whoever cancelled waits for us: the plugins are ended, not abandoned.
            cancel.cancel();
            add.await?
        }
    };
    Ok((result.addresses(&ifname), result.raw))
}
