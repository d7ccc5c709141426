//! What containers use, and the pods that they are in, as `stats` and `top` show it.

use std::collections::BTreeMap;

use api::cri::v1::{
    ContainerStats, ListContainerStatsRequest, ListContainerStatsResponse, PodSandboxState,
    UInt64Value,
};

use crate::daemon::Daemon;
use crate::find::{Candidates, pod_name};

/// One container's. What is not known is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) id: String,
    pub(crate) name: String,
    /// Of its pod: empty if it came after the list was made.
    pub(crate) pod_id: String,
    pub(crate) pod: String,
    pub(crate) nano_cores: Option<u64>,
    pub(crate) memory: Option<u64>,
    pub(crate) limit: Option<u64>,
    pub(crate) written: Option<u64>,
}

/// All containers of a pod together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PodUsage {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) containers: usize,
    pub(crate) nano_cores: u64,
    pub(crate) memory: u64,
}

/// Asks the daemon: for the statistics, and for whose they are.
pub(crate) async fn listed(
    daemon: &mut Daemon,
) -> anyhow::Result<(ListContainerStatsResponse, Candidates)> {
    let all = Candidates::load(daemon).await?;
    let request = ListContainerStatsRequest::default();
    Ok((daemon.runtime.list_container_stats(request).await?.into_inner(), all))
}

/// What a list of statistics says. The busiest is first.
pub(crate) fn of(stats: &[ContainerStats], all: &Candidates) -> Vec<Usage> {
    let mut usage: Vec<Usage> = stats.iter().map(|one| of_container(one, all)).collect();
    usage.sort_by_key(|one| std::cmp::Reverse(one.nano_cores));
    usage
}

fn of_container(stats: &ContainerStats, all: &Candidates) -> Usage {
    let attributes = stats.attributes.clone().unwrap_or_default();
    let memory = stats.memory.unwrap_or_default();
    let working = number(memory.working_set_bytes);
    let known = all.containers.iter().find(|one| one.id == attributes.id);
    let pod = known.and_then(|one| all.pods.iter().find(|pod| pod.id == one.pod_sandbox_id));
    Usage {
        id: attributes.id,
        name: attributes.metadata.map(|metadata| metadata.name).unwrap_or_default(),
        pod_id: pod.map(|pod| pod.id.clone()).unwrap_or_default(),
        pod: pod.map_or("?", pod_name).to_owned(),
        nano_cores: stats.cpu.as_ref().and_then(|cpu| number(cpu.usage_nano_cores)),
        memory: working,
        // What is left and what is used make what may be.
        limit: memory.available_bytes.map(|left| left.value + working.unwrap_or(0)),
        written: stats.writable_layer.as_ref().and_then(|layer| number(layer.used_bytes)),
    }
}

fn number(value: Option<UInt64Value>) -> Option<u64> {
    value.map(|value| value.value)
}

/// Every pod that is up, with the sum of what its containers use.
pub(crate) fn by_pod(usage: &[Usage], all: &Candidates) -> Vec<PodUsage> {
    let up = all.pods.iter().filter(|pod| pod.state() == PodSandboxState::SandboxReady);
    let empty = |id: &str, name: &str| PodUsage {
        id: id.to_owned(),
        name: name.to_owned(),
        ..PodUsage::default()
    };
    let mut pods: BTreeMap<&str, PodUsage> =
        up.map(|pod| (pod.id.as_str(), empty(&pod.id, pod_name(pod)))).collect();
    for one in usage {
        let pod = pods.entry(&one.pod_id).or_insert_with(|| empty(&one.pod_id, &one.pod));
        pod.containers += 1;
        pod.nano_cores += one.nano_cores.unwrap_or(0);
        pod.memory += one.memory.unwrap_or(0);
    }
    pods.into_values().collect()
}

/// Parts of one core, in percent.
pub(crate) fn cores(nano_cores: u64) -> String {
    format!("{:.1}%", nano_cores as f64 / 1e7)
}

#[cfg(test)]
mod tests {
    use api::cri::v1::{PodSandbox, PodSandboxMetadata};

    use super::*;

    #[test]
    fn a_pod_uses_what_its_containers_use_together() {
        let pod = |id: &str, state: PodSandboxState| PodSandbox {
            id: id.into(),
            metadata: Some(PodSandboxMetadata { name: format!("pod-{id}"), ..Default::default() }),
            state: state.into(),
            ..Default::default()
        };
        let all = Candidates {
            pods: vec![
                pod("a", PodSandboxState::SandboxReady),
                pod("idle", PodSandboxState::SandboxReady),
                pod("gone", PodSandboxState::SandboxNotready),
            ],
            containers: Vec::new(),
        };
        let one = |nano_cores, memory| Usage {
            id: String::new(),
            name: String::new(),
            pod_id: "a".into(),
            pod: "pod-a".into(),
            nano_cores,
            memory,
            limit: None,
            written: None,
        };
        let pods = by_pod(&[one(Some(5), Some(7)), one(None, Some(1))], &all);
        let told: Vec<_> = pods
            .iter()
            .map(|pod| (pod.name.as_str(), pod.containers, pod.nano_cores, pod.memory))
            .collect();
        assert_eq!(told, [("pod-a", 2, 5, 8), ("pod-idle", 0, 0, 0)]);
    }
}
