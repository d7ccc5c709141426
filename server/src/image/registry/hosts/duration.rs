//! Durations as Go writes them: `30s`, `1m30s`, `1.5h`.

use std::time::Duration;

/// `None`: the text is no duration, or a negative one.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    loop {
        let unit = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..unit].parse().ok()?;
        rest = &rest[unit..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let factor = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * factor).ok()?)?;
        rest = &rest[end..];
        if rest.is_empty() {
            return Some(total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_takes() {
        for (text, want) in [
            ("0", Some(0)),
            ("+5s", Some(5000)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("2h45m.5s", Some(9_900_500)),
            ("300ms", Some(300)),
            ("1500us", None),
            ("5", None),
            ("", None),
            ("s", None),
            ("-1s", None),
            ("1 s", None),
            ("1d", None),
            (".s", None),
            ("1.2.3s", None),
            ("1e9h", None),
            ("99999999999999999999h", None),
        ] {
            if text == "1500us" {
                assert_eq!(parse(text), Some(Duration::from_micros(1500)));
                continue;
            }
            assert_eq!(parse(text), want.map(Duration::from_millis), "{text}");
        }
    }
}
