//! The frames of ttrpc, which carry every call between a daemon and its shims.
//!
//! A frame is ten bytes of header (payload length and stream number, both big-endian 32 bits,
//! kind, flags) and a protobuf message. Nothing is believed before it has been checked: a frame
//! over [`MAX`] is an error, and memory grows only with bytes that have arrived.

use prost::Message;

/// The longest payload of a frame.
pub const MAX: usize = 4 << 20;
/// The length of a frame's header.
pub const HEADER: usize = 10;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A call, [`api::ttrpc::Request`].
    Request,
    /// Its answer, [`api::ttrpc::Response`].
    Response,
    /// Part of a stream, or something newer than we are.
    Other(u8),
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Other(number) => number,
        }
    }

    fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Request,
            2 => Self::Response,
            number => Self::Other(number),
        }
    }
}

/// One frame, received whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The call it belongs to; odd when the client began it.
    pub stream: u32,
    /// What the payload is.
    pub kind: Kind,
    /// The message's bytes.
    pub payload: Vec<u8>,
}

/// A payload over [`MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of {0} bytes is over the limit of {MAX}")]
pub struct TooLong(pub usize);

/// The bytes of a frame that carries `message`.
pub fn encode(stream: u32, kind: Kind, message: &impl Message) -> Result<Vec<u8>, TooLong> {
    let length = message.encoded_len();
    let wire_length = u32::try_from(length).ok().filter(|_| length <= MAX);
    let wire_length = wire_length.ok_or(TooLong(length))?;
    let mut bytes = Vec::with_capacity(HEADER + length);
    bytes.extend_from_slice(&wire_length.to_be_bytes());
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.push(kind.number());
    bytes.push(0);
    // Into a vector: cannot run out of room.
    let _ = message.encode(&mut bytes);
    Ok(bytes)
}

/// Puts frames together from whatever pieces a socket returns.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if it has arrived. After an error the connection is of no use.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, TooLong> {
        let Some((head, rest)) = self.buffer.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let [l0, l1, l2, l3, s0, s1, s2, s3, kind, _flags] = *head;
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        if length > MAX {
            return Err(TooLong(length));
        }
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let stream = u32::from_be_bytes([s0, s1, s2, s3]);
        let frame = Frame { stream, kind: Kind::from_number(kind), payload: payload.to_vec() };
        self.buffer.drain(..HEADER + length);
        if self.buffer.is_empty() {
            self.buffer = Vec::new();
        }
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use api::ttrpc::Request;
    use proptest::prelude::*;

    use super::*;

    fn request(method: &str, size: usize) -> Request {
        Request { method: method.into(), payload: vec![7; size], ..Request::default() }
    }

    #[test]
    fn the_header_is_as_ttrpc_says() {
        let bytes = encode(3, Kind::Request, &request("M", 0)).expect("small");
        assert_eq!(bytes[..10], [0, 0, 0, 3, 0, 0, 0, 3, 1, 0]);
        assert_eq!(bytes[10..], [0x12, 1, b'M']);
    }

    #[test]
    fn an_oversized_frame_is_refused_both_ways() {
        assert!(encode(1, Kind::Request, &request("M", MAX)).is_err());
        let mut decoder = Decoder::default();
        decoder.push(&[0xff; HEADER]);
        assert_eq!(decoder.next_frame(), Err(TooLong(u32::MAX as usize)));
    }

    proptest! {
        #[test]
        fn frames_survive_any_chunking(
            sizes in proptest::collection::vec(0_usize..300, 1..6),
            chunk in 1_usize..40,
        ) {
            let mut wire = Vec::new();
            for (number, size) in sizes.iter().enumerate() {
                let stream = u32::try_from(number * 2 + 1).expect("few");
                wire.extend(encode(stream, Kind::Request, &request("M", *size)).expect("small"));
            }
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for piece in wire.chunks(chunk) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame().expect("valid") {
                    let message = Request::decode(&frame.payload[..]).expect("valid");
                    seen.push((frame.stream, message.payload.len()));
                }
            }
            let expected: Vec<_> =
                sizes.iter().zip(0_u32..).map(|(size, n)| (n * 2 + 1, *size)).collect();
            prop_assert_eq!(seen, expected);
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(frame)) = decoder.next_frame() {
                let _ = Request::decode(&frame.payload[..]);
            }
        }
    }
}
