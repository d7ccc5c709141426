//! The frames of SPDY as a target of `crate::fuzz`.

use std::collections::BTreeMap;

use bytes::BytesMut;

use super::frame::{Decoder, Event};

/// A connection's bytes, after a first byte that says in which pieces they come. However they come, it is the same.
pub(crate) fn frames(data: &[u8]) {
    let Some((piece, bytes)) = data.split_first() else { return };
    let (whole, in_pieces) = (read(bytes, bytes.len()), read(bytes, usize::from(*piece)));
    assert_eq!(whole, in_pieces);
}

/// What was said beside data, the data of each stream and whether it ended, whether the protocol was kept.
type Read = (Vec<Event>, BTreeMap<u32, (Vec<u8>, usize)>, Option<&'static str>);

fn read(bytes: &[u8], piece: usize) -> Read {
    let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
    let (mut said, mut streams, mut broken) = (Vec::new(), BTreeMap::new(), None);
    let mut total = 0;
    'all: for piece in bytes.chunks(piece.max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.next(&mut buffer) {
                Ok(None) => break,
                Ok(Some(Event::Data { id, bytes, end })) => {
                    total += bytes.len();
                    let stream: &mut (Vec<u8>, usize) = streams.entry(id).or_default();
                    stream.0.extend_from_slice(&bytes);
                    stream.1 += usize::from(end);
                }
                Ok(Some(event)) => said.push(event),
                Err(violation) => {
                    broken = Some(violation.0);
                    break 'all;
                }
            }
        }
    }
    assert!(total <= bytes.len(), "no data but what came");
    (said, streams, broken)
}
