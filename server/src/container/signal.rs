//! Signals by number: as images and requests write them, and the one that asks a container to end.

/// What ends a container that names none.
pub(crate) const SIGTERM: i32 = 15;
/// glibc keeps 32 and 33 for itself.
const SIGRTMIN: i32 = 34;
const SIGRTMAX: i32 = 64;

/// By number from 1; 32 and 33 have no name. Numbers are those of every architecture but alpha, mips, parisc and sparc.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
const ALIASES: [(&str, i32); 3] = [("IOT", 6), ("CLD", 17), ("POLL", 29)];

/// The signal that a text names: a number, or a name in any case with or without `SIG`.
pub(crate) fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=SIGRTMAX).contains(&number).then_some(number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some(index) = NAMES.iter().position(|known| *known == name) {
        return i32::try_from(index).ok().map(|index| index + 1);
    }
    if let Some((_, number)) = ALIASES.iter().find(|(alias, _)| *alias == name) {
        return Some(*number);
    }
    real_time(name)
}

/// `RTMIN`, `RTMIN+n`, `RTMAX-n`, `RTMAX`.
fn real_time(name: &str) -> Option<i32> {
    let offset = |text: &str, sign: char| match text.strip_prefix(sign) {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse::<i32>().ok(),
        Some(_) => None,
        None => text.is_empty().then_some(0),
    };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        SIGRTMIN.checked_add(offset(rest, '+')?)?
    } else {
        SIGRTMAX.checked_sub(offset(name.strip_prefix("RTMAX")?, '-')?)?
    };
    (SIGRTMIN..=SIGRTMAX).contains(&number).then_some(number)
}

/// The signal that asks a container to end: the request's, else the image's, else SIGTERM. An image that names
/// none that exists is treated as if it named none.
pub(crate) fn stop(requested: Option<i32>, image: &str) -> i32 {
    requested.or_else(|| parse(image)).unwrap_or(SIGTERM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_signal() {
        for (text, number) in [
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("15", Some(15)),
            ("SIGKILL", Some(9)),
            ("SIGSYS", Some(31)),
            ("SIGCLD", Some(17)),
            ("SIGRTMIN", Some(34)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-14", Some(50)),
            ("SIGRTMAX", Some(64)),
            ("SIGRTMIN+31", None),
            ("SIGRTMIN-1", None),
            ("SIGRTMIN+-1", None),
            ("SIGRTMIN+99999999999", None),
            ("0", None),
            ("65", None),
            ("-9", None),
            ("", None),
            ("SIGNOTHING", None),
        ] {
            assert_eq!(parse(text), number, "{text}");
        }
    }

    #[test]
    fn the_request_then_the_image_then_term() {
        assert_eq!(stop(Some(2), "SIGQUIT"), 2);
        assert_eq!(stop(None, "SIGQUIT"), 3);
        assert_eq!(stop(None, "rm -rf"), 15);
        assert_eq!(stop(None, ""), 15);
    }
}
