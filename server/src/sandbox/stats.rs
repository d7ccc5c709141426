//! What a pod uses: its cgroup, which the kubelet made, and its network.

use super::traffic::Interfaces;
use super::{Pods, Sandbox};
use crate::host::usage::{Details, Meter, Sample};

/// The pod's usage; `None` where it has no cgroup of its own, or is down.
pub(crate) fn sample(pods: &Pods, sandbox: &Sandbox) -> Option<Sample> {
    sandbox.ready()?;
    sandbox.sampler.sample(sandbox.fixed.created_at, || open(pods, sandbox))
}

/// What only dashboards ask for.
pub(crate) fn details(pods: &Pods, sandbox: &Sandbox) -> Option<Details> {
    sandbox.ready()?;
    sandbox.sampler.read(sandbox.fixed.created_at, || open(pods, sandbox), Meter::details)
}

/// What went through its interfaces; `None` for a pod in the host's network, and one that is down.
pub(crate) fn interfaces(sandbox: &Sandbox) -> Option<Interfaces> {
    let netns = sandbox.ready()?.netns?;
    sandbox.traffic.read(&netns)
}

/// Where the cgroup of the pod is, below the hierarchies' roots, as cAdvisor names it; `None`: it shares one.
pub(crate) fn cgroup(pods: &Pods, sandbox: &Sandbox) -> Option<String> {
    let path = leaf(pods, sandbox)?;
    Some(crate::host::cgroup::shown(crate::host::cgroup::relative(&path).parent()?))
}

/// The path of any cgroup in the pod's; `None` if nobody named one.
fn leaf(pods: &Pods, sandbox: &Sandbox) -> Option<String> {
    let parent = &sandbox.fixed.config.cgroup_parent;
    if parent.is_empty() {
        return None;
    }
    pods.node.cgroups_path(parent, sandbox.id().as_str()).ok()
}

fn open(pods: &Pods, sandbox: &Sandbox) -> Option<Meter> {
    Meter::open_parent(&leaf(pods, sandbox)?)
}
