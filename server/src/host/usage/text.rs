//! The kernel's small files: one number, keys with numbers, and pressure.

use super::files::Files;
use super::{Pressure, Stall};

/// The only number of a file. `max` and v1's largest possible limit are none.
pub(super) fn number(dir: &Files, name: &'static str) -> Option<u64> {
    dir.read(name).and_then(|text| the_number(&text))
}

/// The same of a file's text.
pub(super) fn the_number(text: &str) -> Option<u64> {
    text.trim().parse().ok().and_then(bounded)
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
