//! RFC 3339 time stamps with nine digits of fraction, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

const DAY: u64 = 86_400;

/// A formatted point in time.
#[derive(Debug, Clone)]
pub(crate) struct Stamp([u8; Self::LEN]);

impl Stamp {
    /// `2006-01-02T15:04:05.000000000Z`
    pub(crate) const LEN: usize = 30;

    pub(crate) fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_unix(since.as_secs(), since.subsec_nanos())
    }

    pub(crate) fn from_unix(seconds: u64, nanoseconds: u32) -> Self {
        let (year, month, day) = date(seconds / DAY);
        let second = seconds % DAY;
        let mut text = *b"0000-00-00T00:00:00.000000000Z";
        put(&mut text[0..4], year);
        put(&mut text[5..7], month);
        put(&mut text[8..10], day);
        put(&mut text[11..13], second / 3600);
        put(&mut text[14..16], second / 60 % 60);
        put(&mut text[17..19], second % 60);
        put(&mut text[20..29], nanoseconds.into());
        Self(text)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

fn put(digits: &mut [u8], mut value: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
}

/// Year, month and day of a number of days since 1970-01-01, by counting in years that begin
/// with March, so that the leap day comes last.
fn date(days: u64) -> (u64, u64, u64) {
    const CYCLE: u64 = 146_097; // days in 400 years
    let days = days + 719_468; // since 0000-03-01
    let (cycle, day) = (days / CYCLE, days % CYCLE);
    let year = (day - day / 1460 + day / 36_524 - day / (CYCLE - 1)) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let march = (5 * day + 2) / 153;
    let month = if march < 10 { march + 3 } else { march - 9 };
    (cycle * 400 + year + u64::from(month <= 2), month, day - (153 * march + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(seconds: u64, nanoseconds: u32) -> String {
        String::from_utf8(Stamp::from_unix(seconds, nanoseconds).0.to_vec()).expect("ascii")
    }

    #[test]
    fn known_instants() {
        assert_eq!(text(0, 0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(text(951_782_399, 999_999_999), "2000-02-28T23:59:59.999999999Z");
        assert_eq!(text(951_782_400, 1), "2000-02-29T00:00:00.000000001Z");
        assert_eq!(text(1_709_251_199, 0), "2024-02-29T23:59:59.000000000Z");
        assert_eq!(text(1_795_230_548, 123_000_000), "2026-11-21T03:09:08.123000000Z");
        assert_eq!(text(4_107_542_400, 0), "2100-03-01T00:00:00.000000000Z");
    }

    #[test]
    fn days_follow_each_other() {
        let mut last = date(0);
        for day in 1..60_000 {
            let next = date(day);
            let (year, month, of_month) = last;
            assert!(
                next == (year, month, of_month + 1)
                    || next == (year, month + 1, 1)
                    || next == (year + 1, 1, 1)
            );
            last = next;
        }
    }
}
