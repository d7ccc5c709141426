//! `vendor.com/class=device`.

use std::fmt;

/// The whole name of a device.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Name {
    pub kind: String,
    pub device: String,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind, self.device)
    }
}

impl Name {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (kind, device) = text
            .split_once('=')
            .ok_or_else(|| format!("{text:?} is no device such as vendor.com/class=name"))?;
        check_kind(kind)
            .and_then(|()| check_device(device))
            .map_err(|err| format!("{text:?} is no device such as vendor.com/class=name: {err}"))?;
        Ok(Self { kind: kind.to_owned(), device: device.to_owned() })
    }
}

/// `vendor.com/class`.
pub(super) fn check_kind(kind: &str) -> Result<(), String> {
    let (vendor, class) = kind.split_once('/').ok_or("its kind has no class")?;
    for (what, part, inner) in [("vendor", vendor, "_-."), ("class", class, "_-.")] {
        let starts = part.starts_with(|c: char| c.is_ascii_alphabetic());
        let ends = part.ends_with(|c: char| c.is_ascii_alphanumeric());
        if !starts || !ends || !made_of(part, inner) {
            return Err(format!("{part:?} is no {what}"));
        }
    }
    Ok(())
}

/// A device's name within its kind.
pub(super) fn check_device(name: &str) -> Result<(), String> {
    let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let ends = name.ends_with(|c: char| c.is_ascii_alphanumeric());
    if starts && ends && made_of(name, "_-.:") {
        return Ok(());
    }
    Err(format!("{name:?} is no device's name"))
}

fn made_of(text: &str, more: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
}
