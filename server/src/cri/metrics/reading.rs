//! What the metrics of one pod or container are made from.

use std::sync::Arc;

use super::{Device, Disk};
use crate::container::Container;
use crate::container::config::Resources;
use crate::container::state::{State, Timestamp};
use crate::container::stats::{self, Written};
use crate::host::usage::{Details, DeviceIo, Processes, Sample};
use crate::sandbox::traffic::Interfaces;

/// Of a pod.
#[derive(Debug)]
pub(super) struct OfPod {
    /// Of the pod's own cgroup, where it has one.
    pub sample: Option<Sample>,
    pub details: Details,
    /// None in the host's network.
    pub interfaces: Option<Interfaces>,
    pub created_at: Timestamp,
}

/// Of a container that runs.
#[derive(Debug)]
pub(super) struct OfContainer {
    pub sample: Sample,
    pub details: Details,
    pub processes: Processes,
    /// Each with what went to and came from it. The disk on which it writes is always there.
    pub devices: Vec<(Device, DeviceIo)>,
    pub written: Option<Written>,
    pub disk: Arc<Disk>,
    pub resources: Resources,
    pub started_at: Timestamp,
}

impl OfContainer {
    /// `None` once it is gone.
    pub(super) fn read(container: &Container, disk: &Arc<Disk>) -> Option<Self> {
        let sample = stats::sample(container)?;
        let (details, processes) = stats::details(container)?;
        let now = container.now();
        let State::Running(running) = now.state else { return None };
        let mut devices: Vec<_> =
            details.io.iter().map(|io| (Device::of(io), io.clone())).collect();
        if !devices.iter().any(|(device, _)| *device == disk.device) {
            let Device { major, minor, .. } = disk.device;
            devices.push((disk.device.clone(), DeviceIo { major, minor, ..DeviceIo::default() }));
        }
        Some(Self {
            sample,
            details,
            processes,
            devices,
            written: stats::written(container),
            disk: disk.clone(),
            resources: now.resources,
            started_at: running.started_at,
        })
    }
}
