//! Frames: bytes to events, and answers to bytes.
//!
//! ```text
//! control: 1 | version 3 (15 bits) | type (16) | flags (8) | length (24) | payload
//! data:    0 | stream id (31)                  | flags (8) | length (24) | payload
//! ```
//!
//! A control frame is taken whole and is small. A data frame may be as long as its field allows and is handed on
//! as it arrives, so its length costs nothing.

use bytes::{Buf, Bytes, BytesMut};

use super::header::{Deflater, Headers, Inflater};

pub(super) const HEAD: usize = 8;
/// Of a control frame's payload; a stream's few headers are a hundred bytes.
const MAX_CONTROL: usize = 64 << 10;
const VERSION: u16 = 3;
const FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// The peer broke the protocol; the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Violation(pub &'static str);

/// What a peer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A new stream; with `end` its sender will say nothing on it.
    Open { id: u32, end: bool, headers: Headers },
    /// Part of a data frame, or all of it. `end` comes with the last part of a stream.
    Data { id: u32, bytes: Bytes, end: bool },
    /// The stream is over, in both directions.
    Reset { id: u32 },
    /// To be answered with the same.
    Ping { id: u32 },
    /// The peer will open no more streams and is about to leave.
    GoAway,
    /// Headers after the first, replies, settings, windows and what is newer than we are.
    Other,
}

/// Why a stream is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Refused = 3,
    Cancel = 5,
}

/// Takes one direction of a connection apart.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    inflater: Inflater,
    /// What is left of the data frame that is being read.
    data: Option<Data>,
}

#[derive(Debug, Clone, Copy)]
struct Data {
    id: u32,
    left: usize,
    end: bool,
}

impl Decoder {
    /// Takes the next event out of `bytes`; `None` until there are more.
    pub(super) fn next(&mut self, bytes: &mut BytesMut) -> Result<Option<Event>, Violation> {
        if let Some(data) = self.data {
            return Ok(self.data(data, bytes));
        }
        let Some(head) = bytes.first_chunk::<HEAD>() else { return Ok(None) };
        let (first, second) = (u32_at(head, 0), u32_at(head, 4));
        let flags = head[4];
        let length = usize::try_from(second & 0xff_ffff).unwrap_or(usize::MAX);
        if first >> 31 == 0 {
            bytes.advance(HEAD);
            let data = Data { id: first, left: length, end: flags & FIN != 0 };
            return Ok(self.data(data, bytes));
        }
        let (version, kind) = (u16_at(head, 0) & 0x7fff, u16_at(head, 2));
        if version != VERSION {
            return Err(Violation("a frame of another version"));
        }
        if length > MAX_CONTROL {
            return Err(Violation("a control frame that is too long"));
        }
        if bytes.len() < HEAD + length {
            return Ok(None);
        }
        bytes.advance(HEAD);
        let payload = bytes.split_to(length);
        self.control(kind, flags, &payload).map(Some)
    }

    fn data(&mut self, data: Data, bytes: &mut BytesMut) -> Option<Event> {
        let count = data.left.min(bytes.len());
        if count == 0 && data.left > 0 {
            self.data = Some(data);
            return None;
        }
        let left = data.left - count;
        self.data = (left > 0).then_some(Data { left, ..data });
        let end = data.end && left == 0;
        Some(Event::Data { id: data.id, bytes: bytes.split_to(count).freeze(), end })
    }

    fn control(&mut self, kind: u16, flags: u8, payload: &[u8]) -> Result<Event, Violation> {
        /// Of the fields before the headers.
        const SYN_STREAM_FIXED: usize = 10;
        const SHORT: Violation = Violation("a control frame that is too short");
        let id = || payload.first_chunk::<4>().map(|id| u32::from_be_bytes(*id) & !(1 << 31));
        let after = |fixed: usize| payload.get(fixed..).ok_or(SHORT);
        match kind {
            SYN_STREAM => {
                let headers = self.inflater.read(after(SYN_STREAM_FIXED)?)?;
                Ok(Event::Open { id: id().ok_or(SHORT)?, end: flags & FIN != 0, headers })
            }
            // Read all the same: the window that the next headers are read with depends on them.
            SYN_REPLY | HEADERS => self.inflater.read(after(4)?).map(|_| Event::Other),
            RST_STREAM => Ok(Event::Reset { id: id().ok_or(SHORT)? }),
            PING => {
                let id = payload.first_chunk::<4>().ok_or(SHORT)?;
                Ok(Event::Ping { id: u32::from_be_bytes(*id) })
            }
            GOAWAY => Ok(Event::GoAway),
            _ => Ok(Event::Other),
        }
    }
}

fn u32_at(head: &[u8; HEAD], at: usize) -> u32 {
    u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
}

fn u16_at(head: &[u8; HEAD], at: usize) -> u16 {
    u16::from_be_bytes([head[at], head[at + 1]])
}

/// The head of a data frame; `length` is at most what [`MAX_DATA`] allows.
pub(super) fn data_head(id: u32, length: usize, end: bool) -> [u8; HEAD] {
    debug_assert!(length <= MAX_DATA);
    let length = u32::try_from(length).unwrap_or(0) | u32::from(end) << 24;
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&id.to_be_bytes());
    head[4..].copy_from_slice(&length.to_be_bytes());
    head
}

/// What fits one data frame.
pub(super) const MAX_DATA: usize = (1 << 24) - 1;

fn control(kind: u16, payload: &[&[u8]]) -> Vec<u8> {
    let payload = payload.concat();
    let mut frame = (VERSION | 1 << 15).to_be_bytes().to_vec();
    frame.extend(kind.to_be_bytes());
    frame.extend(u32::try_from(payload.len()).unwrap_or(0).to_be_bytes());
    frame.extend(payload);
    frame
}

/// Accepts a stream.
pub(super) fn reply(id: u32, headers: &mut Deflater) -> Vec<u8> {
    control(SYN_REPLY, &[&id.to_be_bytes(), &headers.empty()])
}

pub(super) fn reset(id: u32, reason: Reason) -> Vec<u8> {
    control(RST_STREAM, &[&id.to_be_bytes(), &(reason as u32).to_be_bytes()])
}

pub(super) fn ping(id: u32) -> Vec<u8> {
    control(PING, &[&id.to_be_bytes()])
}

/// The last frame of a connection that ends well.
pub(super) fn go_away(last: u32) -> Vec<u8> {
    control(GOAWAY, &[&last.to_be_bytes(), &0_u32.to_be_bytes()])
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::super::header::tests::Writer;
    use super::*;

    /// A client's SYN_STREAM.
    pub(crate) fn syn(writer: &mut Writer, id: u32, pairs: &[(&str, &str)]) -> Vec<u8> {
        control(SYN_STREAM, &[&id.to_be_bytes(), &[0; 6], &writer.block(pairs)])
    }

    fn data(id: u32, bytes: &[u8], end: bool) -> Vec<u8> {
        [&data_head(id, bytes.len(), end)[..], bytes].concat()
    }

    /// All events of a byte stream that arrives in these pieces, with neighbouring data joined.
    fn events<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Event>, Violation> {
        let (mut decoder, mut bytes, mut all) = (Decoder::default(), BytesMut::new(), Vec::new());
        let mut open = false;
        for chunk in chunks {
            bytes.extend_from_slice(chunk);
            while let Some(event) = decoder.next(&mut bytes)? {
                let continues = std::mem::replace(&mut open, decoder.data.is_some());
                match (all.last_mut(), event) {
                    (
                        Some(Event::Data { bytes: before, end, .. }),
                        Event::Data { bytes, end: last, .. },
                    ) if continues => {
                        *before = [&before[..], &bytes].concat().into();
                        *end = last;
                    }
                    (_, event) => all.push(event),
                }
            }
        }
        Ok(all)
    }

    #[test]
    fn frames_are_read_as_the_protocol_has_them() {
        let mut writer = Writer::new();
        let stream = [
            syn(&mut writer, 1, &[("streamtype", "error")]),
            data(1, b"", true),
            ping(5),
            data(3, b"hello", false),
            control(4, &[&[0; 12]]),
            reset(3, Reason::Cancel),
            go_away(3),
        ]
        .concat();
        let read = events([&stream[..]]).unwrap();
        assert!(
            matches!(&read[0], Event::Open { id: 1, end: false, headers } if headers.get("streamtype") == Some("error"))
        );
        let rest = [
            Event::Data { id: 1, bytes: Bytes::new(), end: true },
            Event::Ping { id: 5 },
            Event::Data { id: 3, bytes: Bytes::from_static(b"hello"), end: false },
            Event::Other,
            Event::Reset { id: 3 },
            Event::GoAway,
        ];
        assert_eq!(read[1..], rest);
    }

    #[test]
    fn a_long_data_frame_is_handed_on_as_it_comes() {
        let (mut decoder, mut bytes) = (Decoder::default(), BytesMut::new());
        bytes.extend_from_slice(&data_head(1, MAX_DATA, true));
        assert_eq!(decoder.next(&mut bytes), Ok(None));
        bytes.extend_from_slice(b"ab");
        let part = Event::Data { id: 1, bytes: Bytes::from_static(b"ab"), end: false };
        assert_eq!(decoder.next(&mut bytes), Ok(Some(part)));
        assert_eq!(decoder.next(&mut bytes), Ok(None));
    }

    #[test]
    fn what_is_no_frame_of_ours_ends_the_connection() {
        let another = [0x80, 2, 0, 1, 0, 0, 0, 0];
        assert!(events([&another[..]]).is_err());
        let long = [0x80, 3, 0, 1, 0, 1, 0, 1];
        assert!(events([&long[..]]).is_err());
        assert!(events([&control(PING, &[&[0; 3]])[..]]).is_err());
        assert!(events([&control(SYN_STREAM, &[&[0; 9]])[..]]).is_err());
    }

    proptest! {
        #[test]
        fn cuts_make_no_difference(
            contents in proptest::collection::vec((1_u32..9, proptest::collection::vec(any::<u8>(), 0..60), any::<bool>()), 0..8),
            sizes in proptest::collection::vec(1_usize..40, 1..20),
        ) {
            let mut writer = Writer::new();
            let mut stream = Vec::new();
            for (id, bytes, end) in &contents {
                stream.extend(syn(&mut writer, *id, &[("port", "80"), ("streamtype", "data")]));
                stream.extend(data(*id, bytes, *end));
            }
            let whole = events([&stream[..]]).unwrap();
            let (mut cut, mut rest) = (Vec::new(), &stream[..]);
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, more) = rest.split_at(rest.len().min(*size));
                cut.push(chunk);
                rest = more;
            }
            prop_assert_eq!(&events(cut).unwrap(), &whole);
            prop_assert_eq!(whole.len(), 2 * contents.len());
        }

        #[test]
        fn no_bytes_confuse_it(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..6)) {
            let _ = events(chunks.iter().map(Vec::as_slice));
        }

        /// As above, behind heads that are valid.
        #[test]
        fn no_payload_confuses_it(kind in 0_u16..12, flags in any::<u8>(), payload in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut frame = control(kind, &[&payload]);
            frame[4] = flags;
            let _ = events([&frame[..]]);
        }
    }
}
