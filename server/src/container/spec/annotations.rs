//! The annotations of a spec: what VM runtimes, NRI plugins and agents read to know whose container it is.
//!
//! Only these; none of the pod's or container's own is passed on, since OCI runtimes act on some (crun's
//! `run.oci.*`, systemd properties), and none of the image's ever.

use std::collections::HashMap;

use super::super::config::ContainerConfig;
use super::super::place::Place;

/// Tells crun not to put the container into a sub-cgroup of its scope.
const CRUN_SUBGROUP: &str = "run.oci.systemd.subgroup";

pub(super) fn all(config: &ContainerConfig, place: &Place) -> HashMap<String, String> {
    let image = match config.image.user_specified_image.as_str() {
        "" => &config.image.image,
        named => named,
    };
    [
        ("container-type", "container"),
        ("sandbox-id", &place.sandbox_id),
        ("sandbox-name", &place.sandbox_name),
        ("sandbox-namespace", &place.sandbox_namespace),
        ("sandbox-uid", &place.sandbox_uid),
        ("sandbox-log-directory", &place.log_directory),
        ("container-name", &config.metadata.name),
        ("image-name", image),
    ]
    .into_iter()
    .map(|(key, value)| (format!("io.kubernetes.cri.{key}"), value.to_owned()))
    .chain([(CRUN_SUBGROUP.to_owned(), String::new())])
    .collect()
}
