//! The names that callers give: layers by digest, snapshots by key.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// A layer's name: `sha256:` and 64 lower-case hex digits. For a layer as a registry serves it this
/// is the diff id, the digest of its uncompressed tar stream.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerId(String);

const ALGORITHM: &str = "sha256:";

impl LayerId {
    /// The hex digits.
    pub fn hex(&self) -> &str {
        &self.0[ALGORITHM.len()..]
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn from_digest(digest: &[u8]) -> Self {
        let mut id = ALGORITHM.to_owned();
        for byte in digest {
            id.push_str(&format!("{byte:02x}"));
        }
        LayerId(id)
    }

    /// The name of what was made, for the purpose `what`, out of `layers` in this order.
    pub(crate) fn derived(what: &str, layers: &[LayerId]) -> Self {
        let mut hash = Sha256::new_with_prefix(what);
        for layer in layers {
            hash.update(b" ");
            hash.update(layer.as_str());
        }
        Self::from_digest(&hash.finalize())
    }
}

impl FromStr for LayerId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        match text.strip_prefix(ALGORITHM) {
            Some(digits) if digits.len() == 64 && digits.bytes().all(hex) => {
                Ok(LayerId(text.to_owned()))
            }
            _ => Err(Error::BadLayerId(text.to_owned())),
        }
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Refuses what could not be the name of a directory of ours.
pub(crate) fn check_key(key: &str) -> Result<&str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let starts = key.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if starts && key.len() <= 128 && key.bytes().all(allowed) {
        Ok(key)
    } else {
        Err(Error::BadKey(key.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_digests_are_layer_ids() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(good.parse::<LayerId>().unwrap().hex(), "0a".repeat(32));
        let bad = [
            String::new(),
            "0a".repeat(32),
            format!("sha256:{}", "0A".repeat(32)),
            format!("sha256:{}", "0a".repeat(31)),
            format!("sha512:{}", "0a".repeat(32)),
            format!("sha256:../{}", "0".repeat(61)),
        ];
        for text in bad {
            assert!(text.parse::<LayerId>().is_err(), "{text}");
        }
    }

    #[test]
    fn keys_are_single_plain_names() {
        for key in ["a", "0f-3_x", &"a".repeat(128)] {
            assert!(check_key(key).is_ok(), "{key}");
        }
        for key in ["", ".", "..", "a/b", "-a", "a\0", "a.b", &"a".repeat(129)] {
            assert!(check_key(key).is_err(), "{key}");
        }
    }

    #[test]
    fn derived_names_depend_on_purpose_and_order() {
        let layer = |n: u8| LayerId::from_digest(&[n; 32]);
        let one = LayerId::derived("x", &[layer(1), layer(2)]);
        assert_ne!(one, LayerId::derived("x", &[layer(2), layer(1)]));
        assert_ne!(one, LayerId::derived("y", &[layer(1), layer(2)]));
    }
}
