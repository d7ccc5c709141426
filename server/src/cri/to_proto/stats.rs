//! Usage as CRI's messages. What the kernel does not tell is left out, never 0.

use api::cri::v1 as cri;

use super::{container_metadata, sandbox_metadata};
use crate::container::Container;
use crate::container::stats::Written;
use crate::host::usage::{Pressure, Sample, Stall, Usage};
use crate::sandbox::Sandbox;
use crate::sandbox::traffic::{Interface, Interfaces};

fn value(value: u64) -> Option<cri::UInt64Value> {
    Some(cri::UInt64Value { value })
}

/// ContainerStats; without a sample what only a running container has is missing.
pub(in crate::cri) fn container(
    container: &Container,
    sample: Option<&Sample>,
    written: Option<Written>,
    disk: &str,
) -> cri::ContainerStats {
    let config = &container.fixed.config;
    cri::ContainerStats {
        attributes: Some(cri::ContainerAttributes {
            id: container.id().to_string(),
            metadata: Some(container_metadata(&container.fixed)),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        }),
        cpu: sample.map(cpu),
        memory: sample.map(memory),
        writable_layer: written.map(|written| cri::FilesystemUsage {
            timestamp: written.at,
            fs_id: Some(cri::FilesystemIdentifier { mountpoint: disk.to_owned() }),
            used_bytes: value(written.bytes),
            inodes_used: value(written.inodes),
        }),
        swap: sample.and_then(swap),
        io: sample.and_then(io),
    }
}

/// PodSandboxStats. A pod without a cgroup of its own uses what its containers do.
pub(in crate::cri) fn sandbox(
    sandbox: &Sandbox,
    sample: Option<&Sample>,
    interfaces: Option<Interfaces>,
    containers: Vec<cri::ContainerStats>,
) -> cri::PodSandboxStats {
    let config = &sandbox.fixed.config;
    let network = interfaces.map(|interfaces| cri::NetworkUsage {
        timestamp: crate::container::state::now(),
        default_interface: interfaces.default.as_ref().map(interface),
        interfaces: interfaces.others.iter().map(interface).collect(),
    });
    let process = sample.and_then(|sample| {
        let count = value(sample.usage.tasks?);
        Some(cri::ProcessUsage { timestamp: sample.usage.at, process_count: count })
    });
    let cpu = match sample {
        Some(sample) => Some(cpu(sample)),
        None => sum(&containers, |one| one.cpu.as_ref(), add_cpu),
    };
    let memory = match sample {
        Some(sample) => Some(memory(sample)),
        None => sum(&containers, |one| one.memory.as_ref(), add_memory),
    };
    cri::PodSandboxStats {
        attributes: Some(cri::PodSandboxAttributes {
            id: sandbox.id().to_string(),
            metadata: Some(sandbox_metadata(&sandbox.fixed)),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        }),
        linux: Some(cri::LinuxPodSandboxStats {
            cpu,
            memory,
            network,
            process,
            containers,
            io: sample.and_then(io),
        }),
        windows: None,
    }
}

fn cpu(sample: &Sample) -> cri::CpuUsage {
    cri::CpuUsage {
        timestamp: sample.usage.at,
        usage_core_nano_seconds: value(sample.usage.cpu),
        usage_nano_cores: sample.nano_cores.and_then(value),
        psi: sample.usage.cpu_pressure.as_ref().map(psi),
    }
}

fn memory(sample: &Sample) -> cri::MemoryUsage {
    let Usage { at, memory, memory_pressure, .. } = &sample.usage;
    cri::MemoryUsage {
        timestamp: *at,
        working_set_bytes: value(memory.working_set()),
        available_bytes: memory.available().and_then(value),
        usage_bytes: value(memory.usage),
        rss_bytes: value(memory.rss),
        page_faults: value(memory.faults),
        major_page_faults: value(memory.major_faults),
        psi: memory_pressure.as_ref().map(psi),
    }
}

fn swap(sample: &Sample) -> Option<cri::SwapUsage> {
    let memory = &sample.usage.memory;
    let used = memory.swap?;
    let left = memory.swap_limit.map(|limit| limit.saturating_sub(used));
    Some(cri::SwapUsage {
        timestamp: sample.usage.at,
        swap_available_bytes: left.and_then(value),
        swap_usage_bytes: value(used),
    })
}

fn io(sample: &Sample) -> Option<cri::IoUsage> {
    let psi = psi(sample.usage.io_pressure.as_ref()?);
    Some(cri::IoUsage { timestamp: sample.usage.at, psi: Some(psi) })
}

fn psi(of: &Pressure) -> cri::PsiStats {
    let data = |stall: &Stall| {
        let [avg10, avg60, avg300] = stall.averages;
        Some(cri::PsiData { total: stall.total, avg10, avg60, avg300 })
    };
    cri::PsiStats { full: data(&of.full), some: data(&of.some) }
}

fn interface(of: &Interface) -> cri::NetworkInterfaceUsage {
    cri::NetworkInterfaceUsage {
        name: of.name.clone(),
        rx_bytes: value(of.received.bytes),
        rx_errors: value(of.received.errors),
        tx_bytes: value(of.sent.bytes),
        tx_errors: value(of.sent.errors),
    }
}

/// The sum over the containers that have the part; `None` if none has.
fn sum<T: Clone>(
    containers: &[cri::ContainerStats],
    part: impl Fn(&cri::ContainerStats) -> Option<&T>,
    add: impl Fn(T, &T) -> T,
) -> Option<T> {
    let mut parts = containers.iter().filter_map(part);
    let first = parts.next()?.clone();
    Some(parts.fold(first, add))
}

fn plus(
    one: Option<cri::UInt64Value>,
    other: Option<&cri::UInt64Value>,
) -> Option<cri::UInt64Value> {
    value(one?.value.saturating_add(other?.value))
}

fn add_cpu(sum: cri::CpuUsage, one: &cri::CpuUsage) -> cri::CpuUsage {
    cri::CpuUsage {
        timestamp: sum.timestamp.max(one.timestamp),
        usage_core_nano_seconds: plus(
            sum.usage_core_nano_seconds,
            one.usage_core_nano_seconds.as_ref(),
        ),
        usage_nano_cores: plus(sum.usage_nano_cores, one.usage_nano_cores.as_ref()),
        psi: None,
    }
}

fn add_memory(sum: cri::MemoryUsage, one: &cri::MemoryUsage) -> cri::MemoryUsage {
    cri::MemoryUsage {
        timestamp: sum.timestamp.max(one.timestamp),
        working_set_bytes: plus(sum.working_set_bytes, one.working_set_bytes.as_ref()),
        available_bytes: plus(sum.available_bytes, one.available_bytes.as_ref()),
        usage_bytes: plus(sum.usage_bytes, one.usage_bytes.as_ref()),
        rss_bytes: plus(sum.rss_bytes, one.rss_bytes.as_ref()),
        page_faults: plus(sum.page_faults, one.page_faults.as_ref()),
        major_page_faults: plus(sum.major_page_faults, one.major_page_faults.as_ref()),
        psi: None,
    }
}
