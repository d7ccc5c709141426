//! The kernel's small files: one number, keys with numbers, and pressure.

use std::io::Read;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, openat};

use super::{Pressure, Stall};

/// Larger than any file of a cgroup that is read but `cgroup.procs` of one with ten thousand processes.
const LIMIT: usize = 128 << 10;
/// As much as a read of a file takes at most where the kernel gives it a page.
const USUAL: usize = 4 << 10;
/// What is shorter is whole: the kernel breaks a list off between two lines, where its page is nearly full. One call
/// instead of two, as there are dozens of these files for each pod.
const SURELY_WHOLE: usize = 3 << 10;

/// The content of `name` in the directory; `None` if it is not there, or the cgroup is gone.
pub(super) fn read(dir: &OwnedFd, name: &str) -> Option<String> {
    let file = openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut usual = [0; USUAL];
    let count = rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut usual)).ok()?;
    let mut bytes = usual[..count].to_vec();
    if count > SURELY_WHOLE {
        let rest = (LIMIT - count) as u64;
        std::fs::File::from(file).take(rest).read_to_end(&mut bytes).ok()?;
    }
    String::from_utf8(bytes).ok()
}

/// The only number of a file. `max` and v1's largest possible limit are none.
pub(super) fn number(dir: &OwnedFd, name: &str) -> Option<u64> {
    read(dir, name)?.trim().parse().ok().and_then(bounded)
}

/// v1 says "no limit" by the largest multiple of a page that a signed number holds.
pub(super) fn bounded(limit: u64) -> Option<u64> {
    const NONE_FROM: u64 = 1 << 62;
    (limit < NONE_FROM).then_some(limit)
}

/// The values behind those keys, in a text of `key value` lines; 0 for what is not there.
pub(super) fn values<const N: usize>(text: &str, keys: [&str; N]) -> [u64; N] {
    found(text, keys).map(Option::unwrap_or_default)
}

/// As `values`, where not being there matters.
pub(super) fn found<const N: usize>(text: &str, keys: [&str; N]) -> [Option<u64>; N] {
    let mut found = [None; N];
    for (key, value) in text.lines().filter_map(|line| line.split_once(' ')) {
        if let Some(at) = keys.iter().position(|wanted| *wanted == key) {
            found[at] = value.trim().parse().ok();
        }
    }
    found
}

/// A pressure file. The line `full` of the processor's is missing in old kernels.
pub(super) fn pressure(text: &str) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let (kind, fields) = line.split_once(' ')?;
        let stall = stall(fields)?;
        match kind {
            "some" => pressure.some = stall,
            "full" => pressure.full = stall,
            _ => {}
        }
    }
    (!text.is_empty()).then_some(pressure)
}

fn stall(fields: &str) -> Option<Stall> {
    const NANOS_PER_MICRO: u64 = 1000;
    let mut stall = Stall::default();
    for (key, value) in fields.split(' ').filter_map(|field| field.split_once('=')) {
        match key {
            "avg10" => stall.averages[0] = value.parse().ok()?,
            "avg60" => stall.averages[1] = value.parse().ok()?,
            "avg300" => stall.averages[2] = value.parse().ok()?,
            "total" => stall.total = value.parse::<u64>().ok()?.saturating_mul(NANOS_PER_MICRO),
            _ => {}
        }
    }
    Some(stall)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_any_length_are_read_whole() {
        let path = tempfile::tempdir().unwrap();
        let dir = super::super::directory(path.path()).unwrap();
        for size in [0, 1, SURELY_WHOLE, SURELY_WHOLE + 1, USUAL, USUAL + 1, LIMIT] {
            std::fs::write(path.path().join("f"), "x".repeat(size)).unwrap();
            assert_eq!(read(&dir, "f").unwrap().len(), size);
        }
        assert_eq!(read(&dir, "g"), None);
        // A list of the kernel's, which comes in several reads.
        let process = super::super::directory(std::path::Path::new("/proc/self")).unwrap();
        assert!(read(&process, "smaps").unwrap().len() > 2 * USUAL);
    }

    #[test]
    fn keys_and_numbers() {
        let text = "cache 7\nrss 9\nbroken\nother x\n";
        assert_eq!(values(text, ["rss", "cache", "none", "other"]), [9, 7, 0, 0]);
        assert_eq!(found(text, ["rss", "none"]), [Some(9), None]);
        assert_eq!(bounded(9_223_372_036_854_771_712), None);
        assert_eq!(bounded(5), Some(5));
    }

    #[test]
    fn pressure_in_nanoseconds_and_percent() {
        let text = "some avg10=0.12 avg60=1.00 avg300=99.99 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.50 total=3\n";
        let pressure = super::pressure(text).unwrap();
        assert_eq!(pressure.some, Stall { averages: [0.12, 1.0, 99.99], total: 12_000 });
        assert_eq!(pressure.full, Stall { averages: [0.0, 0.0, 0.5], total: 3_000 });
        assert_eq!(
            super::pressure(""),
            None,
            "a kernel that was started without it reads empty or fails"
        );
        assert_eq!(super::pressure("some avg10=x"), None);
    }
}
