//! The answers that list sandboxes and containers, with entries that stay encoded.
//!
//! On the wire a repeated message is a repeated run of bytes, so a server that keeps each entry as it was encoded once
//! answers a list by copying. A client decodes the entries when it wants them.

use prost::bytes::Bytes;
use prost::{DecodeError, Message, Name};

use super::v1::{Container, PodSandbox};

macro_rules! encoded {
    ($($(#[$doc:meta])* $list:ident of $entry:ty;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Message)]
        pub struct $list {
            /// Each an encoded message.
            #[prost(bytes = "bytes", repeated, tag = "1")]
            pub entries: Vec<Bytes>,
        }

        impl $list {
            /// The entries as messages.
            ///
            /// # Errors
            /// When one is not what it should be.
            pub fn decoded(self) -> Result<Vec<$entry>, DecodeError> {
                self.entries.into_iter().map(<$entry>::decode).collect()
            }
        }

        impl From<&[$entry]> for $list {
            fn from(entries: &[$entry]) -> Self {
                Self { entries: entries.iter().map(|one| one.encode_to_vec().into()).collect() }
            }
        }

        impl Name for $list {
            const NAME: &'static str = stringify!($list);
            const PACKAGE: &'static str = "runtime.v1";
        }
    )*};
}

encoded! {
    /// The answer to ListPodSandbox: `items` of [`PodSandbox`].
    ListPodSandboxResponse of PodSandbox;
    /// The answer to ListContainers: `containers` of [`Container`].
    ListContainersResponse of Container;
    /// A message of StreamPodSandboxes: `pod_sandboxes` of [`PodSandbox`].
    StreamPodSandboxesResponse of PodSandbox;
    /// A message of StreamContainers: `containers` of [`Container`].
    StreamContainersResponse of Container;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The field of entries is the first in each of them, as in `service.proto`; a client that knows it only as
    /// messages is the end-to-end suite's.
    #[test]
    fn entries_come_back_as_they_were() {
        let containers = [
            Container { id: "a".into(), created_at: 5, ..Default::default() },
            Container { id: "b".into(), ..Default::default() },
        ];
        let list = ListContainersResponse::from(&containers[..]);
        let wire = list.encode_to_vec();
        assert_eq!(&wire[..2], [1 << 3 | 2, list.entries[0].len() as u8]);
        let read = ListContainersResponse::decode(&wire[..]).unwrap();
        assert_eq!(read.decoded().unwrap(), containers);
        let broken = ListContainersResponse { entries: vec![Bytes::from_static(&[0xff])] };
        assert!(broken.decoded().is_err());
    }
}
