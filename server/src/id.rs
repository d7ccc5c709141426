//! Identifiers: what a sandbox, a container and a content digest are called.
//!
//! An id is 64 lower-case hexadecimal digits, since cAdvisor finds a container's cgroup by that pattern
//! and every CRI client expects it. Inside the daemon only whole, checked ids exist; the unique prefixes
//! that clients may send are resolved at the edge.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Length of an id in characters.
pub(crate) const ID_LEN: usize = 64;

fn is_id(text: &str) -> bool {
    text.len() == ID_LEN && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Fills `bytes` with what nobody can guess.
pub(crate) fn fill_random(bytes: &mut [u8]) {
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => {}
            // getrandom(2) with no flags has no other failure on a kernel that has the call.
            Err(err) => panic!("getrandom: {err}"),
        }
    }
}

fn random_hex() -> String {
    let mut bytes = [0u8; ID_LEN / 2];
    fill_random(&mut bytes);
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub(crate) struct $name(std::sync::Arc<str>);

        impl $name {
            /// A fresh random id.
            pub(crate) fn random() -> Self {
                Self(random_hex().into())
            }

            /// The id as text.
            pub(crate) fn as_str(&self) -> &str {
                &self.0
            }

            /// The first characters, for names that have to stay short (interfaces, netns files).
            pub(crate) fn short(&self) -> &str {
                &self.0[..13]
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                if is_id(&text) {
                    Ok(Self(text.into()))
                } else {
                    Err(format!("{text:?} is not an id of {ID_LEN} hexadecimal digits"))
                }
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.to_string()
            }
        }

        /// So that tables keyed by ids can be searched by text; the order is that of the text.
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id! {
    /// A pod sandbox.
    SandboxId
}
id! {
    /// A container.
    ContainerId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_id_parses_and_differs_from_the_next() {
        let id = ContainerId::random();
        assert_eq!(ContainerId::try_from(id.to_string()), Ok(id.clone()));
        assert_ne!(id, ContainerId::random());
    }

    #[test]
    fn a_short_or_upper_case_text_is_no_id() {
        assert!(SandboxId::try_from("abc".to_owned()).is_err());
        assert!(SandboxId::try_from("A".repeat(64)).is_err());
    }
}
