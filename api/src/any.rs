//! Messages inside an `Any`, named the way containerd names them: by their full name, without
//! the host that other users of protobuf put before it.

use std::fmt;

use prost::{DecodeError, Name};
use prost_types::Any;

/// Packs a message under its full name.
pub fn pack<M: Name>(message: &M) -> Any {
    Any { type_url: M::full_name(), value: message.encode_to_vec() }
}

/// Unpacks a message, if `any` holds one of its kind. What stands before the last `/` of the
/// type URL is ignored.
pub fn unpack<M: Name + Default>(any: &Any) -> Result<M, NotPacked> {
    let found = any.type_url.rsplit('/').next().unwrap_or_default();
    let wanted = M::full_name();
    if found != wanted {
        return Err(NotPacked::Other { wanted, found: any.type_url.clone() });
    }
    M::decode(any.value.as_slice()).map_err(|source| NotPacked::Malformed { wanted, source })
}

/// Why an `Any` did not yield the message that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotPacked {
    /// It holds another message.
    Other {
        /// The full name asked for.
        wanted: String,
        /// The type URL it carries.
        found: String,
    },
    /// Its bytes are not such a message.
    Malformed {
        /// The full name asked for.
        wanted: String,
        /// What is wrong with them.
        source: DecodeError,
    },
}

impl fmt::Display for NotPacked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other { wanted, found } => write!(f, "expected {wanted}, found {found:?}"),
            Self::Malformed { wanted, .. } => write!(f, "malformed {wanted}"),
        }
    }
}

impl std::error::Error for NotPacked {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Other { .. } => None,
            Self::Malformed { source, .. } => Some(source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{podwright::Namespaces, runc::Options};

    #[test]
    fn a_message_comes_back() {
        let namespaces = Namespaces { ipc: "/proc/7/fd/3".into(), ..Default::default() };
        let mut any = pack(&namespaces);
        assert_eq!(any.type_url, "podwright.shim.v1.Namespaces");
        assert_eq!(unpack::<Namespaces>(&any).as_ref(), Ok(&namespaces));
        any.type_url = format!("type.googleapis.com/{}", any.type_url);
        assert_eq!(unpack::<Namespaces>(&any), Ok(namespaces));
    }

    #[test]
    fn another_message_is_told_by_name() {
        let error = unpack::<Options>(&pack(&Namespaces::default())).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"expected containerd.runc.v1.Options, found "podwright.shim.v1.Namespaces""#
        );
    }

    #[test]
    fn broken_bytes_are_malformed() {
        let any = Any { type_url: Options::full_name(), value: vec![0xff] };
        assert!(matches!(unpack::<Options>(&any), Err(NotPacked::Malformed { .. })));
    }
}
