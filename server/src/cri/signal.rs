//! CRI's signals, which count otherwise than the kernel's.

use api::cri::v1::Signal;

use super::from_proto::known;
use crate::error::Result;

/// The kernel's number of each, by CRI's number from 1. From 35 (SIGRTMIN) to 65 (SIGRTMAX) CRI is one ahead.
const NUMBERS: [i32; 34] = [
    6, 14, 7, 17, 17, 18, 8, 1, 4, 2, 29, 6, 9, 13, 29, 27, 30, 3, 11, 16, 19, 31, 15, 5, 20, 21,
    22, 23, 10, 12, 26, 28, 24, 25,
];

/// The kernel's number; `None` where the request leaves it to image and runtime.
///
/// # Errors
/// `Invalid` for a number that is no signal of the CRI.
pub(super) fn number(signal: i32) -> Result<Option<i32>> {
    let signal: Signal = known("stop_signal", signal)?;
    let value = signal as i32;
    Ok(match usize::try_from(value) {
        Ok(0) | Err(_) => None,
        Ok(index) => Some(NUMBERS.get(index - 1).copied().unwrap_or(value - 1)),
    })
}

/// CRI's signal for a number of the kernel; the default for one that CRI has no name for.
pub(super) fn of_number(number: i32) -> Signal {
    let value = match NUMBERS.iter().position(|known| *known == number) {
        Some(index) => i32::try_from(index + 1).unwrap_or_default(),
        None if (34..=64).contains(&number) => number + 1,
        None => 0,
    };
    Signal::try_from(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_signal_has_the_number_that_its_name_says() {
        for value in 1..=65 {
            let name = Signal::try_from(value).unwrap().as_str_name();
            let name =
                name.strip_prefix("SIGNAL_").unwrap().replace("PLUS", "+").replace("MINUS", "-");
            let number = number(value).unwrap();
            assert_eq!(number, crate::container::signal::parse(&name), "{name}");
            let back = of_number(number.unwrap());
            let alias = matches!(name.as_str(), "SIGCLD" | "SIGIOT" | "SIGPOLL");
            assert!(alias || back as i32 == value, "{name}");
        }
        assert_eq!(number(0).unwrap(), None);
        assert!(number(66).is_err());
        assert_eq!(of_number(32), Signal::RuntimeDefault);
    }
}
