//! The calls about the node: Version, Status, RuntimeConfig, UpdateRuntimeConfig.

use std::sync::Arc;

use api::cri::v1 as cri;

use super::info;
use crate::config::CgroupDriver;
use crate::sandbox::{Pods, readiness};

/// The version of the kubelet's runtime API as the kubelet compares it, letter by letter.
const KUBELET_API_VERSION: &str = "0.1.0";

pub(super) fn version() -> cri::VersionResponse {
    cri::VersionResponse {
        version: KUBELET_API_VERSION.to_owned(),
        runtime_name: "podwright".to_owned(),
        runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
        runtime_api_version: "v1".to_owned(),
    }
}

fn condition(kind: &str, status: bool, reason: &str, message: String) -> cri::RuntimeCondition {
    cri::RuntimeCondition {
        r#type: kind.to_owned(),
        status,
        reason: if status { String::new() } else { reason.to_owned() },
        message: if status { String::new() } else { message },
    }
}

/// Both conditions are always there: a missing one counts as not ready.
pub(super) fn status(pods: &Arc<Pods>, verbose: bool) -> cri::StatusResponse {
    let trouble = readiness::trouble(pods);
    let conditions = vec![
        condition("RuntimeReady", true, "", String::new()),
        condition(
            "NetworkReady",
            trouble.is_none(),
            "NetworkPluginNotReady",
            trouble.unwrap_or_default(),
        ),
    ];
    let host = &pods.node.host;
    // The default handler has an entry without a name too.
    let names = std::iter::once("").chain(host.handlers.keys().map(String::as_str));
    let handlers = names.filter_map(|name| {
        let features = host.handler(name).ok()?.features;
        let features = cri::RuntimeHandlerFeatures {
            recursive_read_only_mounts: features.recursive_read_only,
            user_namespaces: features.user_namespaces,
        };
        Some(cri::RuntimeHandler { name: name.to_owned(), features: Some(features) })
    });
    cri::StatusResponse {
        status: Some(cri::RuntimeStatus { conditions }),
        info: if verbose { info::status(pods) } else { Default::default() },
        runtime_handlers: handlers.collect(),
        features: Some(cri::RuntimeFeatures {
            supplemental_groups_policy: true,
            user_namespaces_host_network: host
                .handler("")
                .is_ok_and(|handler| handler.features.user_namespaces),
            mount_options: true,
        }),
    }
}

pub(super) fn runtime_config(pods: &Pods) -> cri::RuntimeConfigResponse {
    let driver = match pods.node.host.cgroup_driver {
        CgroupDriver::Systemd => cri::CgroupDriver::Systemd,
        CgroupDriver::Cgroupfs => cri::CgroupDriver::Cgroupfs,
    };
    cri::RuntimeConfigResponse {
        linux: Some(cri::LinuxRuntimeConfiguration { cgroup_driver: driver.into() }),
    }
}

/// The pod CIDR matters only to a runtime that renders CNI's configuration itself; ours is the operator's.
pub(super) fn update_runtime_config(request: &cri::UpdateRuntimeConfigRequest) {
    let cidr = request.runtime_config.as_ref().and_then(|config| config.network_config.as_ref());
    tracing::info!(
        pod_cidr = cidr.map(|network| network.pod_cidr.as_str()),
        "told of the node's pod CIDR"
    );
}
