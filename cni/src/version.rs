//! Versions of the CNI specification.

use std::fmt;

use crate::error::{Error, Result};

/// A version of the specification, ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpecVersion(u16, u16, u16);

impl SpecVersion {
    /// The oldest that we speak: results have the shape they still have.
    pub const OLDEST: SpecVersion = SpecVersion(0, 3, 0);
    /// CHECK came, and DEL got the result of the ADD.
    pub const V0_4: SpecVersion = SpecVersion(0, 4, 0);
    /// The addresses of a result lost their `version` field.
    pub const V1_0: SpecVersion = SpecVersion(1, 0, 0);
    /// GC and STATUS came. The newest that we know.
    pub const V1_1: SpecVersion = SpecVersion(1, 1, 0);

    /// Parses `major[.minor[.patch]]`, as libcni does.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parts = [0u16; 3];
        let mut given = text.split('.');
        for part in &mut parts {
            let Some(digits) = given.next() else { break };
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            *part = digits.parse().ok().filter(|_| plain).ok_or_else(|| Self::wrong(text))?;
        }
        if given.next().is_some() {
            return Err(Self::wrong(text));
        }
        Ok(SpecVersion(parts[0], parts[1], parts[2]))
    }

    fn wrong(text: &str) -> Error {
        Error::invalid(format!("{text:?} is not a version of the CNI specification"))
    }
}

impl fmt::Display for SpecVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_number() {
        let v = |text| SpecVersion::parse(text).unwrap();
        assert!(v("0.3.1") < v("0.4.0") && v("0.10.0") > v("0.9.9") && v("1.1.0") > v("1.0.0"));
        assert_eq!(v("1.0"), SpecVersion::V1_0);
        assert_eq!(v("1"), SpecVersion::V1_0);
        assert_eq!(v("1.1.0").to_string(), "1.1.0");
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in
            ["", "1.", "v1.0.0", "1.0.0.0", "+1.0", "1.0.-1", "1.0.0-rc1", "99999.0.0", " 1.0"]
        {
            assert!(SpecVersion::parse(text).is_err(), "{text}");
        }
    }
}
