//! As much of DER as public keys and certificates need: one element after the other, with definite lengths.

/// Tags of X.690 that are looked for.
pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OBJECT_ID: u8 = 0x06;
pub(super) const UTF8_STRING: u8 = 0x0c;
pub(super) const SEQUENCE: u8 = 0x30;

/// The content of the first element, if it has that tag, and what follows it.
pub(super) fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    any(der).filter(|(first, ..)| *first == tag).map(|(_, content, rest)| (content, rest))
}

/// Tag and content of the first element, and what follows it.
pub(super) fn any(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match *length {
        short if short < 0x80 => (usize::from(short), rest),
        0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
        0x82 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), rest.get(2..)?),
        // Nothing that is read here is longer than 64 KiB.
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*first, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_as_long_as_they_say() {
        assert_eq!(element(&[0x30, 2, 1, 2, 9], SEQUENCE), Some((&[1, 2][..], &[9][..])));
        assert_eq!(element(&[0x30, 0x81, 1, 7], SEQUENCE), Some((&[7][..], &[][..])));
        let mut long = vec![0x03, 0x82, 1, 0];
        long.extend([5; 256]);
        assert_eq!(element(&long, BIT_STRING).unwrap().0.len(), 256);
        for wrong in [
            &[][..],
            &[0x30],
            &[0x30, 3, 1, 2],
            &[0x30, 0x80, 0, 0],
            &[0x30, 0x83, 0, 0, 1, 7],
            &[0x30, 0x81],
            &[0x30, 0x82, 1],
            &[0x31, 0],
        ] {
            assert_eq!(element(wrong, SEQUENCE), None, "{wrong:?}");
        }
    }
}
