//! Device nodes of a container, and which devices its cgroup lets it use.
//!
//! The few that every container has (null, zero, full, random, urandom, tty, ptmx) are added by OCI runtimes.

use std::collections::HashSet;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use super::{Identity, Input};

/// A device node of the host, as a container shall see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceNode {
    /// In the container.
    pub path: String,
    pub kind: DeviceKind,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Any of `r`, `w`, `m`.
    pub access: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceKind {
    Block,
    Char,
    Fifo,
}

impl DeviceNode {
    fn oci_kind(&self) -> LinuxDeviceType {
        match self.kind {
            DeviceKind::Block => LinuxDeviceType::B,
            DeviceKind::Char => LinuxDeviceType::C,
            DeviceKind::Fifo => LinuxDeviceType::P,
        }
    }

    fn to_oci(&self) -> LinuxDevice {
        let mut device = LinuxDevice::default();
        device
            .set_path(self.path.clone().into())
            .set_typ(self.oci_kind())
            .set_major(self.major.into())
            .set_minor(self.minor.into())
            .set_file_mode(Some(self.mode & 0o7777))
            .set_uid(Some(self.uid))
            .set_gid(Some(self.gid));
        device
    }
}

/// Those that CDI brings and those asked for, and for a privileged container those of the host; of several at one
/// path the first counts.
pub(super) fn nodes(input: &Input<'_>, identity: &Identity) -> Vec<LinuxDevice> {
    let host: &[DeviceNode] =
        if input.config.security.privileged { &input.facts.host_devices } else { &[] };
    let mut seen = HashSet::new();
    input
        .facts
        .cdi
        .nodes(identity.uid, identity.gid)
        .chain(asked(input))
        .chain(host.iter().cloned())
        .filter(|device| seen.insert(device.path.clone()))
        .map(|device| device.to_oci())
        .collect()
}

/// Those asked for, with the owner that the node's configuration wants.
fn asked<'a>(input: &Input<'a>) -> impl Iterator<Item = DeviceNode> + 'a {
    let Input { config, node, facts, .. } = *input;
    let id = |asked: Option<i64>| {
        asked.filter(|_| node.devices_of_container).and_then(|id| u32::try_from(id).ok())
    };
    let (user, group) = (id(config.security.run_as_user), id(config.security.run_as_group));
    facts.devices.iter().cloned().map(move |mut device| {
        device.uid = user.unwrap_or(device.uid);
        device.gid = group.unwrap_or(device.gid);
        device
    })
}

/// All or, beside what runtimes allow anyway, only those asked for.
pub(super) fn cgroup_rules(input: &Input<'_>) -> Vec<LinuxDeviceCgroup> {
    let every = input.config.security.privileged && !input.handler.privileged_without_host_devices;
    let mut all = LinuxDeviceCgroup::default();
    all.set_allow(every).set_access(Some("rwm".into()));
    let mut rules = vec![all];
    if !every {
        let cdi = input.facts.cdi.devices.iter().map(|device| &device.node);
        let devices = input.facts.devices.iter().chain(cdi);
        rules.extend(devices.filter(|device| device.kind != DeviceKind::Fifo).map(|device| {
            let mut rule = LinuxDeviceCgroup::default();
            rule.set_allow(true)
                .set_typ(Some(device.oci_kind()))
                .set_major(Some(device.major.into()))
                .set_minor(Some(device.minor.into()))
                .set_access(Some(device.access.clone()));
            rule
        }));
    }
    rules
}
