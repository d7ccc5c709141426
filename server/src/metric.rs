//! What the daemon counts of its own work, and how Prometheus reads it.
//!
//! An instrument is a static: whoever has something to count names it, and nobody hands it around. Counting takes no
//! lock, never blocks, and allocates only when a combination of labels is seen for the first time. What can be told
//! at any moment (pods, shims, the process itself) is not counted but read when somebody asks: see `scrape`.
//!
//! A name has the form `podwright_<what>_<base unit>`. Labels come from sets that our own code bounds, and a family
//! that is full all the same counts the rest under `other`.

mod family;
mod histogram;
mod process;
mod text;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) use family::Family;
pub(crate) use histogram::Histogram;
pub(crate) use process::process;
pub(crate) use text::{CONTENT_TYPE, Kind, Text};

/// A number that only rises.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// From a call that reads memory to one that waits for a container.
const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];
/// Of one commit: a power of two up to the largest batch.
const RECORDS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

fn records() -> Histogram {
    Histogram::new(RECORDS)
}

macro_rules! instruments {
    ($($(#[$doc:meta])* $name:ident: $labels:literal of $of:ty = $make:expr, $text:literal, $label_names:expr, $help:literal;)+) => {
        $($(#[$doc])* pub(crate) static $name: Family<$labels, $of> = Family::new($text, $help, $label_names, $make);)+

        /// Writes all that was counted.
        pub(crate) fn counted(text: &mut Text) {
            $($name.write(text);)+
        }
    };
}

instruments! {
    RPCS: 3 of Counter = Counter::default, "podwright_rpc_requests_total",
        ["service", "method", "code"],
        "Calls that were answered, by gRPC status; Cancelled: the caller went away.";
    RPC_SECONDS: 2 of Histogram = seconds, "podwright_rpc_duration_seconds",
        ["service", "method"],
        "From a call to the end of its answer.";
    OPERATIONS: 2 of Counter = Counter::default, "podwright_operations_total",
        ["operation", "result"],
        "Operations that have ended: ok, error or cancelled.";
    SPANS: 1 of Counter = Counter::default, "podwright_trace_spans_total",
        ["result"],
        "Ended spans: exported, failed where the collector did not take them, dropped where the queue was full.";
    SLOW: 1 of Counter = Counter::default, "podwright_operations_slow_total",
        ["operation"],
        "Operations that took longer than slow_operation_seconds, or a multiple of it for those that move images.";
    STAGE_SECONDS: 2 of Histogram = seconds, "podwright_operation_stage_duration_seconds",
        ["operation", "stage"],
        "How long operations were in each of their stages.";
    PULL_SECONDS: 1 of Histogram = seconds, "podwright_image_pull_duration_seconds",
        ["result"],
        "Whole pulls, from the first request to the durable record.";
    PULL_BYTES: 0 of Counter = Counter::default, "podwright_image_pull_bytes_total",
        [],
        "Bytes of layers that came over the wire, also of pulls that failed.";
    UNPACKED_BYTES: 0 of Counter = Counter::default, "podwright_image_unpacked_bytes_total",
        [],
        "Bytes that layers became once they were inflated.";
    LAYERS: 1 of Counter = Counter::default, "podwright_image_layers_total",
        ["result"],
        "Layers that pulls wanted: fetched, present before, or failed.";
    LOG_BYTES: 0 of Counter = Counter::default, "podwright_container_log_bytes_total",
        [],
        "Bytes that went into logs, with what stands before each line.";
    LOG_LOST_BYTES: 0 of Counter = Counter::default, "podwright_container_log_lost_bytes_total",
        [],
        "Bytes of output that the logs' disk did not take.";
    LOG_LOST_LINES: 0 of Counter = Counter::default, "podwright_container_log_lost_lines_total",
        [],
        "Lines of output that the logs' disk did not take.";
    COMMIT_SECONDS: 1 of Histogram = seconds, "podwright_store_commit_duration_seconds",
        ["store"],
        "Durable commits, from the first write to the end of the sync.";
    COMMIT_RECORDS: 1 of Histogram = records, "podwright_store_commit_records",
        ["store"],
        "Records written by one commit.";
    COMMIT_FAILURES: 1 of Counter = Counter::default, "podwright_store_commit_failures_total",
        ["store"],
        "Commits that the disk did not take.";
}

/// What the last start found. Told once it is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recovered {
    pub took: Duration,
    pub sandboxes: usize,
    /// Creates that a crash had cut off.
    pub cut: usize,
    /// Owners of what no record named.
    pub swept: usize,
}

/// Set by `recover`.
pub(crate) static RECOVERED: std::sync::OnceLock<Recovered> = std::sync::OnceLock::new();

/// Writes what the start found.
#[allow(clippy::cast_precision_loss, reason = "numbers of pods")]
pub(crate) fn recovered(text: &mut Text) {
    let found = RECOVERED.get();
    let mut tell = |name, help, value: fn(&Recovered) -> f64| {
        text.one(Kind::Gauge, name, help, found.map(value));
    };
    let help = "How long the start took to bring memory, records and host to agreement.";
    tell("podwright_recovery_duration_seconds", help, |found| found.took.as_secs_f64());
    let help = "Sandboxes that the start found on record.";
    tell("podwright_recovery_sandboxes", help, |found| found.sandboxes as f64);
    let help = "Creates that the start found cut off, and undid.";
    tell("podwright_recovery_cut_off", help, |found| found.cut as f64);
    let help = "Owners without a record whose things the start gave back.";
    tell("podwright_recovery_leftovers", help, |found| found.swept as f64);
}

#[cfg(test)]
mod tests;
