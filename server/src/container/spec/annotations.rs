//! The annotations of a spec: what VM runtimes, NRI plugins and agents read to know whose container it is.
//!
//! Of the pod's and the container's own, those that the handler's configuration lets through, since OCI runtimes act
//! on some (crun's `run.oci.*`, systemd properties); none of the image's ever. What is ours they cannot replace.

use std::collections::{BTreeMap, HashMap};

use super::Input;
use crate::config::{CgroupDriver, pattern};

/// Tells crun not to put the container into a sub-cgroup of its scope.
const CRUN_SUBGROUP: &str = "run.oci.systemd.subgroup";
/// A property of a container's scope, and its value as D-Bus writes it: systemd forgets scopes that failed, too, as
/// those do in which memory ran out, whether or not somebody still reaches it to say so.
const COLLECT: (&str, &str) = ("org.systemd.property.CollectMode", "'inactive-or-failed'");
/// Another: `memory.oom.group` in systemd's words, which sets the file as it sees fit whenever it writes a scope's limits.
const OOM_POLICY: (&str, &str) = ("org.systemd.property.OOMPolicy", "'kill'");

pub(super) fn all(input: &Input<'_>) -> HashMap<String, String> {
    let Input { config, place, handler, .. } = *input;
    let mut all = HashMap::new();
    all.extend(admitted(&place.sandbox_annotations, &handler.pod_annotations));
    all.extend(admitted(&config.annotations, &handler.container_annotations));
    all.extend(
        ours(input).into_iter().map(|(key, value)| (format!("io.kubernetes.cri.{key}"), value)),
    );
    all.insert(CRUN_SUBGROUP.to_owned(), String::new());
    if input.node.cgroup_driver == CgroupDriver::Systemd {
        all.insert(COLLECT.0.to_owned(), COLLECT.1.to_owned());
        let group = config.resources.unified.get("memory.oom.group");
        if input.node.scopes_have_oom_policy && group.is_some_and(|value| value == "1") {
            all.insert(OOM_POLICY.0.to_owned(), OOM_POLICY.1.to_owned());
        }
    }
    all
}

fn admitted<'a>(
    of: &'a BTreeMap<String, String>,
    patterns: &'a [String],
) -> impl Iterator<Item = (String, String)> + 'a {
    of.iter()
        .filter(|(key, _)| patterns.iter().any(|pattern| pattern::matches(pattern, key)))
        .map(|(key, value)| (key.clone(), value.clone()))
}

/// In the words that containerd made known.
fn ours(input: &Input<'_>) -> Vec<(&'static str, String)> {
    let Input { config, place, .. } = *input;
    let image = match config.image.user_specified_image.as_str() {
        "" => &config.image.image,
        named => named,
    };
    let mut all = vec![
        ("container-type", "container".to_owned()),
        ("sandbox-id", place.sandbox_id.clone()),
        ("sandbox-name", place.sandbox_name.clone()),
        ("sandbox-namespace", place.sandbox_namespace.clone()),
        ("sandbox-uid", place.sandbox_uid.clone()),
        ("sandbox-log-directory", place.log_directory.clone()),
        ("container-name", config.metadata.name.clone()),
        ("image-name", image.to_owned()),
    ];
    // What a VM is to be sized by: the sum over the pod's containers, where the kubelet tells it.
    if let Some(pod) = &place.sandbox_resources {
        all.extend([
            ("sandbox-cpu-period", pod.cpu_period.to_string()),
            ("sandbox-cpu-quota", pod.cpu_quota.to_string()),
            ("sandbox-cpu-shares", pod.cpu_shares.to_string()),
            ("sandbox-memory", pod.memory_limit_in_bytes.to_string()),
        ]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::super::config::Resources;
    use super::super::fixture::plain;
    use super::{COLLECT, CgroupDriver, OOM_POLICY};

    #[test]
    fn only_those_that_the_handler_admits_and_never_in_our_place() {
        let mut fixture = plain();
        let own =
            |list: &[(&str, &str)]| list.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        fixture.place.sandbox_annotations = own(&[
            ("io.katacontainers.config.hypervisor.default_vcpus", "4"),
            ("io.kubernetes.cri.sandbox-id", "another"),
            ("run.oci.systemd.subgroup", "escape"),
            ("org.systemd.property.CPUWeight", "1"),
        ]);
        fixture.config.annotations =
            own(&[("of.container", "yes"), ("io.katacontainers.x", "container")]);
        let before = fixture.json()["annotations"].clone();
        assert_eq!(before.as_object().unwrap().len(), 9, "{before}");
        fixture.handler.pod_annotations =
            vec!["io.katacontainers.*".into(), "*sandbox-id".into(), "run.oci.*".into()];
        fixture.handler.container_annotations = vec!["of.container".into()];
        let annotations = &fixture.json()["annotations"];
        assert_eq!(annotations["io.katacontainers.config.hypervisor.default_vcpus"], "4");
        assert_eq!(annotations["of.container"], "yes");
        for ours in ["io.kubernetes.cri.sandbox-id", "run.oci.systemd.subgroup"] {
            assert_eq!(annotations[ours], before[ours], "{ours}");
        }
        assert_eq!(annotations.as_object().unwrap().len(), 11);
    }

    #[test]
    fn systemd_is_told_to_forget_a_scope_and_nobody_else() {
        let mut fixture = plain();
        assert!(fixture.json()["annotations"].get(COLLECT.0).is_none());
        fixture.node.cgroup_driver = CgroupDriver::Systemd;
        fixture.place.cgroup_parent = "kubepods-pod1.slice".into();
        assert_eq!(fixture.json()["annotations"][COLLECT.0], COLLECT.1);
    }

    #[test]
    fn systemd_is_told_who_ends_as_a_whole_where_it_knows_that_word() {
        let mut fixture = plain();
        fixture.node.cgroup_driver = CgroupDriver::Systemd;
        fixture.place.cgroup_parent = "kubepods-pod1.slice".into();
        assert!(fixture.json()["annotations"].get(OOM_POLICY.0).is_none(), "an older systemd");
        fixture.node.scopes_have_oom_policy = true;
        assert_eq!(fixture.json()["annotations"][OOM_POLICY.0], OOM_POLICY.1);
        fixture.config.resources.unified.insert("memory.oom.group".into(), "0".into());
        assert!(fixture.json()["annotations"].get(OOM_POLICY.0).is_none());
    }

    #[test]
    fn the_size_of_the_pod() {
        let mut fixture = plain();
        let resources =
            Resources { cpu_shares: 512, memory_limit_in_bytes: 64, ..Resources::default() };
        fixture.place.sandbox_resources = Some(resources);
        let annotations = &fixture.json()["annotations"];
        assert_eq!(annotations["io.kubernetes.cri.sandbox-cpu-shares"], "512");
        assert_eq!(annotations["io.kubernetes.cri.sandbox-memory"], "64");
    }
}
