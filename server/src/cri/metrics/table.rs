//! Every metric, in a line.

use std::time::{SystemTime, UNIX_EPOCH};

use api::cri::v1::{self as cri, MetricType};

use super::LABELS;
use super::reading::{OfContainer, OfPod};
use crate::host::usage::{Pressure, Stall, Usage, Work};
use crate::sandbox::traffic::{Direction, Interface};

const NANOS: u64 = 1_000_000_000;

/// A value with its own labels, in the order of the metric's.
type Series = (Vec<String>, u64);

/// A metric of a `T`.
pub(super) struct Metric<T> {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    /// Beside those that all have.
    labels: &'static [&'static str],
    read: fn(&T, &mut Vec<Series>),
}

impl<T> Metric<T> {
    pub(super) fn descriptor(&self) -> cri::MetricDescriptor {
        let labels = LABELS.iter().chain(self.labels);
        cri::MetricDescriptor {
            name: self.name.to_owned(),
            help: self.help.to_owned(),
            label_keys: labels.map(|label| (*label).to_owned()).collect(),
        }
    }

    /// Its series of `of`, whose common labels are these.
    pub(super) fn series(&self, of: &T, labels: &[String; LABELS.len()]) -> Vec<cri::Metric> {
        let mut series = Vec::new();
        (self.read)(of, &mut series);
        let metric = |(own, value): Series| {
            debug_assert_eq!(own.len(), self.labels.len(), "{}", self.name);
            cri::Metric {
                name: self.name.to_owned(),
                timestamp: 0,
                metric_type: self.kind.into(),
                label_values: labels.iter().cloned().chain(own).collect(),
                value: Some(cri::UInt64Value { value }),
            }
        };
        series.into_iter().map(metric).collect()
    }
}

/// A metric of one value, or none.
macro_rules! single {
    ($kind:ident $name:literal, $help:literal, $read:expr) => {
        Metric {
            name: $name,
            help: $help,
            kind: MetricType::$kind,
            labels: &[],
            read: |of, series| {
                let read: fn(&_) -> Option<u64> = $read;
                series.extend(read(of).map(|value| (Vec::new(), value)));
            },
        }
    };
}

/// A metric with labels of its own.
macro_rules! labelled {
    ($kind:ident $name:literal, $labels:expr, $help:literal, $read:expr) => {
        Metric { name: $name, help: $help, kind: MetricType::$kind, labels: &$labels, read: $read }
    };
}

/// A metric of each interface.
macro_rules! interface {
    ($name:literal, $help:literal, $direction:ident . $count:ident) => {
        labelled!(Counter $name, ["interface"], $help, |pod, series| {
            each_interface(pod, series, |interface| interface.$direction, |of| of.$count);
        })
    };
}

/// A metric of each device's one direction.
macro_rules! device {
    ($name:literal, $help:literal, $direction:ident . $count:ident) => {
        labelled!(Counter $name, ["device"], $help, |of: &OfContainer, series| {
            for (device, io) in &of.devices {
                let Work { $count, .. } = io.$direction;
                series.push((vec![device.name.clone()], $count));
            }
        })
    };
}

/// Seconds that were lost to a pressure.
macro_rules! pressure {
    ($name:literal, $help:literal, $resource:ident . $kind:ident) => {
        single!(Counter $name, $help, |of: &OfContainer| {
            stalled(of.sample.usage.$resource, |pressure| pressure.$kind)
        })
    };
}

/// Of all processors together, as cAdvisor labels it where it does not tell them apart.
fn whole_cpu(nanoseconds: u64) -> Series {
    (vec!["total".to_owned()], nanoseconds / NANOS)
}

fn stalled(pressure: Option<Pressure>, of: fn(&Pressure) -> Stall) -> Option<u64> {
    pressure.map(|pressure| of(&pressure).total / NANOS)
}

fn each_interface(
    pod: &OfPod,
    series: &mut Vec<Series>,
    direction: fn(&Interface) -> Direction,
    count: fn(Direction) -> u64,
) {
    let Some(interfaces) = &pod.interfaces else { return };
    for interface in interfaces.default.iter().chain(&interfaces.others) {
        series.push((vec![interface.name.clone()], count(direction(interface))));
    }
}

/// What CRI says with 0 or −1 is no limit, which is 0 to dashboards.
#[allow(clippy::unnecessary_wraps, reason = "what readers of one value give")]
fn limit(value: i64) -> Option<u64> {
    Some(u64::try_from(value).unwrap_or(0))
}

fn seconds(nanoseconds: i64) -> Option<u64> {
    u64::try_from(nanoseconds).ok().map(|since| since / NANOS)
}

fn now() -> Option<u64> {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

fn failures(usage: &Usage, series: &mut Vec<Series>) {
    let kinds = [("pgfault", usage.memory.faults), ("pgmajfault", usage.memory.major_faults)];
    for (kind, count) in kinds {
        for scope in ["container", "hierarchy"] {
            series.push((vec![kind.to_owned(), scope.to_owned()], count));
        }
    }
}

fn device_usage(of: &OfContainer, series: &mut Vec<Series>) {
    for (device, io) in &of.devices {
        for (operation, bytes) in [("Read", io.read.bytes), ("Write", io.write.bytes)] {
            let numbers = [device.major.to_string(), device.minor.to_string()];
            let [major, minor] = numbers;
            series.push((vec![device.name.clone(), major, minor, operation.to_owned()], bytes));
        }
    }
}

/// cAdvisor shows of a pod's own cgroup what dashboards sum by pod.
pub(super) const POD: &[Metric<OfPod>] = &[
    labelled!(Counter "container_cpu_usage_seconds_total", ["cpu"], "Cumulative cpu time consumed in seconds", |of: &OfPod, series| series.extend(of.sample.as_ref().map(|sample| whole_cpu(sample.usage.cpu)))),
    single!(Counter "container_cpu_user_seconds_total", "Cumulative user cpu time consumed in seconds", |of: &OfPod| of.sample.as_ref().map(|_| of.details.user / NANOS)),
    single!(Counter "container_cpu_system_seconds_total", "Cumulative system cpu time consumed in seconds", |of: &OfPod| of.sample.as_ref().map(|_| of.details.system / NANOS)),
    single!(Gauge "container_memory_usage_bytes", "Current memory usage in bytes, including all memory regardless of when it was accessed", |of: &OfPod| Some(of.sample.as_ref()?.usage.memory.usage)),
    single!(Gauge "container_memory_working_set_bytes", "Current working set in bytes", |of: &OfPod| Some(of.sample.as_ref()?.usage.memory.working_set())),
    single!(Gauge "container_memory_rss", "Size of anonymous memory in bytes", |of: &OfPod| Some(of.sample.as_ref()?.usage.memory.rss)),
    single!(Gauge "container_memory_cache", "Size of the page cache in bytes", |of: &OfPod| Some(of.sample.as_ref()?.usage.memory.cache)),
    single!(Gauge "container_last_seen", "When it was last seen, in seconds since 1970", |of: &OfPod| of.sample.as_ref().and_then(|_| now())),
    single!(Gauge "container_start_time_seconds", "When it was started, in seconds since 1970", |of: &OfPod| seconds(of.created_at)),
    interface!(
        "container_network_receive_bytes_total",
        "Cumulative count of bytes received",
        received.bytes
    ),
    interface!(
        "container_network_receive_packets_total",
        "Cumulative count of packets received",
        received.packets
    ),
    interface!(
        "container_network_receive_errors_total",
        "Cumulative count of errors encountered while receiving",
        received.errors
    ),
    interface!(
        "container_network_receive_packets_dropped_total",
        "Cumulative count of packets dropped while receiving",
        received.dropped
    ),
    interface!(
        "container_network_transmit_bytes_total",
        "Cumulative count of bytes transmitted",
        sent.bytes
    ),
    interface!(
        "container_network_transmit_packets_total",
        "Cumulative count of packets transmitted",
        sent.packets
    ),
    interface!(
        "container_network_transmit_errors_total",
        "Cumulative count of errors encountered while transmitting",
        sent.errors
    ),
    interface!(
        "container_network_transmit_packets_dropped_total",
        "Cumulative count of packets dropped while transmitting",
        sent.dropped
    ),
];

pub(super) const CONTAINER: &[Metric<OfContainer>] = &[
    labelled!(Counter "container_blkio_device_usage_total", ["device", "major", "minor", "operation"], "Bytes read from and written to block devices", device_usage),
    single!(Counter "container_cpu_cfs_periods_total", "Number of elapsed enforcement periods of the cpu quota", |of: &OfContainer| Some(of.details.periods)),
    single!(Counter "container_cpu_cfs_throttled_periods_total", "Number of throttled periods of the cpu quota", |of: &OfContainer| Some(of.details.throttled_periods)),
    single!(Counter "container_cpu_cfs_throttled_seconds_total", "Total time that it was throttled, in seconds", |of: &OfContainer| Some(of.details.throttled / NANOS)),
    single!(Counter "container_cpu_system_seconds_total", "Cumulative system cpu time consumed in seconds", |of: &OfContainer| Some(of.details.system / NANOS)),
    labelled!(Counter "container_cpu_usage_seconds_total", ["cpu"], "Cumulative cpu time consumed in seconds", |of: &OfContainer, series| series.push(whole_cpu(of.sample.usage.cpu))),
    single!(Counter "container_cpu_user_seconds_total", "Cumulative user cpu time consumed in seconds", |of: &OfContainer| Some(of.details.user / NANOS)),
    single!(Gauge "container_file_descriptors", "Number of open file descriptors", |of: &OfContainer| Some(of.processes.descriptors)),
    labelled!(Gauge "container_fs_inodes_free", ["device"], "Number of inodes that are free on its disk", |of: &OfContainer, series| series.push((vec![of.disk.device.name.clone()], of.disk.inodes_free))),
    labelled!(Gauge "container_fs_inodes_total", ["device"], "Number of inodes of its disk", |of: &OfContainer, series| series.push((vec![of.disk.device.name.clone()], of.disk.inodes))),
    labelled!(Gauge "container_fs_limit_bytes", ["device"], "Number of bytes that it can use on its disk", |of: &OfContainer, series| series.push((vec![of.disk.device.name.clone()], of.disk.bytes))),
    device!("container_fs_reads_bytes_total", "Cumulative count of bytes read", read.bytes),
    device!("container_fs_reads_total", "Cumulative count of reads completed", read.requests),
    labelled!(Gauge "container_fs_usage_bytes", ["device"], "Number of bytes that it uses on its disk", |of: &OfContainer, series| series.extend(of.written.map(|written| (vec![of.disk.device.name.clone()], written.bytes)))),
    device!("container_fs_writes_bytes_total", "Cumulative count of bytes written", write.bytes),
    device!("container_fs_writes_total", "Cumulative count of writes completed", write.requests),
    labelled!(Gauge "container_hugetlb_max_usage_bytes", ["pagesize"], "Maximum of huge pages used, in bytes", |of: &OfContainer, series| series.extend(of.details.huge.iter().map(|huge| (vec![huge.size.clone()], huge.peak)))),
    labelled!(Gauge "container_hugetlb_usage_bytes", ["pagesize"], "Huge pages used, in bytes", |of: &OfContainer, series| series.extend(of.details.huge.iter().map(|huge| (vec![huge.size.clone()], huge.usage)))),
    single!(Gauge "container_last_seen", "When it was last seen, in seconds since 1970", |_: &OfContainer| now()),
    single!(Gauge "container_memory_cache", "Size of the page cache in bytes", |of: &OfContainer| Some(of.sample.usage.memory.cache)),
    single!(Counter "container_memory_failcnt", "Number of times that memory usage hit its limit", |of: &OfContainer| Some(of.details.limit_hits)),
    labelled!(Counter "container_memory_failures_total", ["failure_type", "scope"], "Cumulative count of memory allocation failures", |of: &OfContainer, series| failures(&of.sample.usage, series)),
    single!(Gauge "container_memory_kernel_usage", "Size of kernel memory allocated, in bytes", |of: &OfContainer| Some(of.details.kernel_memory)),
    single!(Gauge "container_memory_mapped_file", "Size of memory mapped files, in bytes", |of: &OfContainer| Some(of.sample.usage.memory.mapped_file)),
    single!(Gauge "container_memory_max_usage_bytes", "Maximum memory usage recorded, in bytes", |of: &OfContainer| Some(of.details.peak_memory)),
    single!(Gauge "container_memory_rss", "Size of anonymous memory in bytes", |of: &OfContainer| Some(of.sample.usage.memory.rss)),
    single!(Gauge "container_memory_swap", "Swap used, in bytes", |of: &OfContainer| Some(of.sample.usage.memory.swap.unwrap_or(0))),
    single!(Gauge "container_memory_usage_bytes", "Current memory usage in bytes, including all memory regardless of when it was accessed", |of: &OfContainer| Some(of.sample.usage.memory.usage)),
    single!(Gauge "container_memory_working_set_bytes", "Current working set in bytes", |of: &OfContainer| Some(of.sample.usage.memory.working_set())),
    single!(Counter "container_oom_events_total", "Count of out of memory kills", |of: &OfContainer| Some(of.details.oom_kills)),
    pressure!(
        "container_pressure_cpu_stalled_seconds_total",
        "Time in which no task could go on for want of a processor, in seconds",
        cpu_pressure.full
    ),
    pressure!(
        "container_pressure_cpu_waiting_seconds_total",
        "Time in which some task waited for a processor, in seconds",
        cpu_pressure.some
    ),
    pressure!(
        "container_pressure_io_stalled_seconds_total",
        "Time in which no task could go on for input and output, in seconds",
        io_pressure.full
    ),
    pressure!(
        "container_pressure_io_waiting_seconds_total",
        "Time in which some task waited for input and output, in seconds",
        io_pressure.some
    ),
    pressure!(
        "container_pressure_memory_stalled_seconds_total",
        "Time in which no task could go on for want of memory, in seconds",
        memory_pressure.full
    ),
    pressure!(
        "container_pressure_memory_waiting_seconds_total",
        "Time in which some task waited for memory, in seconds",
        memory_pressure.some
    ),
    single!(Gauge "container_processes", "Number of processes", |of: &OfContainer| Some(of.processes.count)),
    single!(Gauge "container_sockets", "Number of open sockets", |of: &OfContainer| Some(of.processes.sockets)),
    single!(Gauge "container_spec_cpu_period", "CPU period, in microseconds", |of: &OfContainer| limit(of.resources.cpu_period)),
    single!(Gauge "container_spec_cpu_quota", "CPU quota, in microseconds", |of: &OfContainer| limit(of.resources.cpu_quota)),
    single!(Gauge "container_spec_cpu_shares", "CPU share", |of: &OfContainer| limit(of.resources.cpu_shares)),
    single!(Gauge "container_spec_memory_limit_bytes", "Memory limit, in bytes", |of: &OfContainer| limit(of.resources.memory_limit_in_bytes)),
    single!(Gauge "container_spec_memory_reservation_limit_bytes", "Memory reservation, in bytes", |of: &OfContainer| Some(of.details.reservation)),
    single!(Gauge "container_spec_memory_swap_limit_bytes", "Limit of memory and swap together, in bytes", |of: &OfContainer| limit(of.resources.memory_swap_limit_in_bytes)),
    single!(Gauge "container_start_time_seconds", "When it was started, in seconds since 1970", |of: &OfContainer| seconds(of.started_at)),
    single!(Gauge "container_threads", "Number of threads", |of: &OfContainer| of.sample.usage.tasks),
    single!(Gauge "container_threads_max", "Maximum number of threads, 0 for no limit", |of: &OfContainer| Some(of.details.tasks_limit.unwrap_or(0))),
    labelled!(Gauge "container_ulimits_soft", ["ulimit"], "Soft limit of the first process", |of: &OfContainer, series| series.extend(of.processes.open_files_limit.map(|limit| (vec!["max_open_files".to_owned()], limit)))),
];

#[cfg(test)]
mod tests {
    use super::super::descriptors;

    /// What dashboards ask for, and CRI's conformance tests with them.
    const EXPECTED: &str = "blkio_device_usage_total cpu_cfs_periods_total cpu_cfs_throttled_periods_total \
        cpu_cfs_throttled_seconds_total cpu_system_seconds_total cpu_usage_seconds_total cpu_user_seconds_total \
        file_descriptors fs_inodes_free fs_inodes_total fs_limit_bytes fs_reads_bytes_total fs_reads_total \
        fs_usage_bytes fs_writes_bytes_total fs_writes_total hugetlb_max_usage_bytes hugetlb_usage_bytes last_seen \
        memory_cache memory_failcnt memory_failures_total memory_kernel_usage memory_mapped_file \
        memory_max_usage_bytes memory_rss memory_swap memory_usage_bytes memory_working_set_bytes \
        network_receive_bytes_total network_receive_errors_total network_receive_packets_dropped_total \
        network_receive_packets_total network_transmit_bytes_total network_transmit_errors_total \
        network_transmit_packets_dropped_total network_transmit_packets_total oom_events_total \
        pressure_cpu_stalled_seconds_total pressure_cpu_waiting_seconds_total pressure_io_stalled_seconds_total \
        pressure_io_waiting_seconds_total pressure_memory_stalled_seconds_total \
        pressure_memory_waiting_seconds_total processes sockets spec_cpu_period spec_cpu_quota spec_cpu_shares \
        spec_memory_limit_bytes spec_memory_reservation_limit_bytes spec_memory_swap_limit_bytes \
        start_time_seconds threads threads_max ulimits_soft";

    #[test]
    fn all_that_are_expected_and_each_once() {
        let names: Vec<String> = descriptors().into_iter().map(|one| one.name).collect();
        let mut expected: Vec<String> =
            EXPECTED.split_whitespace().map(|name| format!("container_{name}")).collect();
        expected.sort();
        assert_eq!(names, expected);
    }

    #[test]
    fn a_name_has_the_same_labels_wherever_it_is() {
        for pod in super::POD {
            for container in super::CONTAINER.iter().filter(|one| one.name == pod.name) {
                assert_eq!(pod.descriptor(), container.descriptor());
            }
        }
    }
}
