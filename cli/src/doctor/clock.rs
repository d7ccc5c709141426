//! The clock: certificates, leases and the order of events depend on it.

use std::time::{Duration, SystemTime};

use super::node::Node;
use super::{Finding, fix, ok, warning};

const ABOUT: &str = "clock";
/// What a file may be newer than the clock.
const TOLERANCE: Duration = Duration::from_secs(120);

pub(super) fn finding(node: &Node) -> Finding {
    // It cannot be earlier than when this program was put here.
    let program = std::env::current_exe().and_then(std::fs::metadata);
    let written = program.and_then(|found| found.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    judged(node, SystemTime::now(), written)
}

fn judged(node: &Node, now: SystemTime, written: SystemTime) -> Finding {
    if written > now + TOLERANCE {
        let text = "it is behind: this program is newer, and so may certificates be";
        return fix(
            ABOUT,
            text,
            "set it, and start a service that keeps it (chrony, systemd-timesyncd)",
        );
    }
    if node.has("/run/systemd/timesync/synchronized") {
        return ok(ABOUT, "systemd-timesyncd keeps it");
    }
    let keeps = |name: &str| node.has(format!("/run/{name}"));
    let keeper =
        ["chrony/chronyd.pid", "chronyd.pid", "chrony.pid", "ntpd.pid", "openntpd/ntpd.sock"];
    match keeper.into_iter().find(|name| keeps(name)) {
        Some(name) => ok(ABOUT, format!("{} keeps it", service(name))),
        None => warning(
            ABOUT,
            "no service is seen that keeps it",
            "start chrony or systemd-timesyncd, unless the host of this virtual machine keeps it",
        ),
    }
}

/// `chronyd` of `chrony/chronyd.pid`.
fn service(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::super::node::fake::Fake;
    use super::*;

    #[test]
    fn who_keeps_it_and_whether_it_is_behind() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let told = |files: &[(&str, &str)], written| judged(&Fake::new(files).node, now, written);
        assert_eq!(told(&[], now + Duration::from_secs(3600)).verdict, Verdict::Fix);
        assert_eq!(told(&[], now + Duration::from_secs(1)).verdict, Verdict::Warning);
        let chrony = told(&[("/run/chrony/chronyd.pid", "7")], now);
        assert_eq!((chrony.verdict, chrony.text.as_str()), (Verdict::Ok, "chronyd keeps it"));
        assert_eq!(told(&[("/run/systemd/timesync/synchronized", "")], now).verdict, Verdict::Ok);
    }
}
