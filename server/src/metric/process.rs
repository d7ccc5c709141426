//! The daemon itself, under the names that every exporter gives its process.

use rustix::process::{Resource, getrlimit};

use super::{Kind, Text};

/// Clock ticks a second, as /proc counts a process's time on every architecture that Linux has (USER_HZ).
const TICKS: f64 = 100.0;

/// Writes what /proc says of this process. What cannot be read has no sample.
pub(crate) fn process(text: &mut Text) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let field = |number: usize| stat_field(&stat, number);
    let ticks = field(14).zip(field(15)).map(|(user, system)| (user + system) / TICKS);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = |key: &str| after(&status, key).map(|kilobytes| kilobytes * 1024.0);
    let system = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let started = after(&system, "btime").zip(field(22)).map(|(boot, ticks)| boot + ticks / TICKS);
    // The directory that is being read is one of them.
    #[allow(clippy::cast_precision_loss, reason = "descriptors of a process")]
    let open = std::fs::read_dir("/proc/self/fd").ok().map(|dir| (dir.count() - 1) as f64);
    let mut gauge = |name, help, value| text.one(Kind::Gauge, name, help, value);
    gauge("process_resident_memory_bytes", "Resident memory size in bytes.", kilobytes("VmRSS:"));
    gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", kilobytes("VmSize:"));
    gauge("process_threads", "Number of OS threads in the process.", after(&status, "Threads:"));
    gauge("process_open_fds", "Number of open file descriptors.", open);
    #[allow(clippy::cast_precision_loss, reason = "descriptors of a process")]
    let most = getrlimit(Resource::Nofile).current.map(|most| most as f64);
    gauge("process_max_fds", "Maximum number of open file descriptors.", most);
    let help = "Start time of the process since unix epoch in seconds.";
    gauge("process_start_time_seconds", help, started);
    let help = "Total user and system CPU time spent in seconds.";
    text.one(Kind::Counter, "process_cpu_seconds_total", help, ticks);
}

/// A field of /proc/PID/stat, numbered as proc(5) does. The name, in parentheses, may hold anything.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(number - 3)?.parse().ok()
}

/// The number behind a word at the beginning of a line.
fn after(text: &str, word: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(word))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}
