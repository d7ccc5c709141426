//! Numbers, times and ids the way people read them.

use std::time::{SystemTime, UNIX_EPOCH};

use api::cri::v1::{ContainerState, ContainerStatus, PodSandboxState};

/// Digits of an id that are shown, and usually enough to name it.
const SHORT: usize = 12;

const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Nanoseconds since the epoch.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// How long ago, in one unit that leaves at least two of it: `90s`, `5m`, `30h`, `12d`.
pub(crate) fn age(then: i64, now: i64) -> String {
    if then <= 0 {
        return "-".into();
    }
    let seconds = (now - then).max(0) / SECOND;
    match seconds {
        s if s < 2 * MINUTE => format!("{s}s"),
        s if s < 2 * HOUR => format!("{}m", s / MINUTE),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s => format!("{}d", s / DAY),
    }
}

/// A duration of milliseconds, in one unit: `0.4s`, `90s`, `5m`, `30h`.
pub(crate) fn duration(milliseconds: u64) -> String {
    let seconds = i64::try_from(milliseconds / 1000).unwrap_or(i64::MAX);
    match seconds {
        0..10 => format!("{}.{}s", seconds, milliseconds % 1000 / 100),
        s if s < 2 * MINUTE => format!("{s}s"),
        s if s < 2 * HOUR => format!("{}m", s / MINUTE),
        s => format!("{}h", s / HOUR),
    }
}

/// A size in decimal units, with three digits: `812 B`, `52.3 MB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    // 999.5 would round up to four digits.
    while value >= 999.5 && unit < UNITS.len() - 1 {
        value /= 1000.0;
        unit += 1;
    }
    match value {
        v if unit == 0 || v >= 99.95 => format!("{v:.0} {}", UNITS[unit]),
        v if v >= 9.995 => format!("{v:.1} {}", UNITS[unit]),
        v => format!("{v:.2} {}", UNITS[unit]),
    }
}

/// The first digits of an id, without a digest's algorithm.
pub(crate) fn short(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..SHORT).unwrap_or(hex)
}

/// A reference without the digits of a digest that nobody reads.
pub(crate) fn reference(text: &str) -> String {
    match text.split_once("sha256:") {
        Some((name, hex)) if hex.len() > SHORT => format!("{name}sha256:{}", short(hex)),
        _ => text.to_owned(),
    }
}

/// Text from outside with its control characters made visible; line breaks stay.
pub(crate) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// A pod's state in a word.
pub(crate) fn pod_state(state: i32) -> &'static str {
    match PodSandboxState::try_from(state) {
        Ok(PodSandboxState::SandboxReady) => "ready",
        Ok(PodSandboxState::SandboxNotready) => "stopped",
        Err(_) => "unknown",
    }
}

/// A container's state in a word.
pub(crate) fn container_state(state: i32) -> &'static str {
    match ContainerState::try_from(state) {
        Ok(ContainerState::ContainerCreated) => "created",
        Ok(ContainerState::ContainerRunning) => "running",
        Ok(ContainerState::ContainerExited) => "exited",
        Ok(ContainerState::ContainerUnknown) | Err(_) => "unknown",
    }
}

/// A container's state with how it ended: `exited 0`, `exited 137 OOMKilled`.
pub(crate) fn ending(status: &ContainerStatus) -> String {
    if status.state() != ContainerState::ContainerExited {
        return container_state(status.state).into();
    }
    match status.reason.as_str() {
        "" | "Completed" | "Error" => format!("exited {}", status.exit_code),
        reason => format!("exited {} {reason}", status.exit_code),
    }
}

/// A time as RFC 3339 in UTC, with as many digits of the second as there are.
pub(crate) fn rfc3339(nanos: i64) -> String {
    let (seconds, nanos) = (nanos.div_euclid(SECOND), nanos.rem_euclid(SECOND));
    let (year, month, day) = date(seconds.div_euclid(DAY));
    let time = seconds.rem_euclid(DAY);
    let (hour, minute, second) = (time / HOUR, time % HOUR / MINUTE, time % MINUTE);
    let fraction = match format!("{nanos:09}").trim_end_matches('0') {
        "" => String::new(),
        digits => format!(".{digits}"),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// The Gregorian date of a day counted from 1970-01-01. Counts years from March, so that the
/// leap day comes last.
fn date(day: i64) -> (i64, i64, i64) {
    const DAYS_TO_1970: i64 = 719_468;
    const ERA: i64 = 146_097;
    let day = day + DAYS_TO_1970;
    let (era, day) = (day.div_euclid(ERA), day.rem_euclid(ERA));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + carry, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short_and_never_negative() {
        let now = 1_700_000_000 * SECOND;
        let ago = |seconds: i64| age(now - seconds * SECOND, now);
        assert_eq!(ago(-5), "0s");
        assert_eq!(ago(119), "119s");
        assert_eq!(ago(120), "2m");
        assert_eq!(ago(2 * HOUR - 1), "119m");
        assert_eq!(ago(47 * HOUR), "47h");
        assert_eq!(ago(400 * DAY), "400d");
        assert_eq!(age(0, now), "-");
    }

    #[test]
    fn sizes_have_three_digits() {
        let cases = [
            (0, "0 B"),
            (812, "812 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (52_345_678, "52.3 MB"),
            (999_499_999, "999 MB"),
            (999_500_000, "1.00 GB"),
            (u64::MAX, "18.4 EB"),
        ];
        for (bytes, shown) in cases {
            assert_eq!(size(bytes), shown);
        }
    }

    #[test]
    fn ids_and_references_are_cut() {
        let hex = "0123456789abcdef".repeat(4);
        assert_eq!(short(&hex), "0123456789ab");
        assert_eq!(short(&format!("sha256:{hex}")), "0123456789ab");
        assert_eq!(short("abc"), "abc");
        assert_eq!(reference(&format!("r.io/a@sha256:{hex}")), "r.io/a@sha256:0123456789ab");
        assert_eq!(reference("r.io/a:1"), "r.io/a:1");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_399 * SECOND + 5_000_000), "2000-02-28T23:59:59.005Z");
        assert_eq!(rfc3339(951_782_400 * SECOND), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_709_251_200 * SECOND), "2024-03-01T00:00:00Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999999999Z");
    }

    #[test]
    fn an_ending_says_what_matters() {
        let exited = |exit_code, reason: &str| ContainerStatus {
            state: ContainerState::ContainerExited.into(),
            exit_code,
            reason: reason.into(),
            ..Default::default()
        };
        assert_eq!(ending(&exited(0, "Completed")), "exited 0");
        assert_eq!(ending(&exited(3, "Error")), "exited 3");
        assert_eq!(ending(&exited(137, "OOMKilled")), "exited 137 OOMKilled");
        let running = ContainerState::ContainerRunning.into();
        assert_eq!(ending(&ContainerStatus { state: running, ..Default::default() }), "running");
    }
}
