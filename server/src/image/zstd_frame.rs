//! What a zstd frame asks for before it is inflated (RFC 8878, 3.1.1 and 3.1.2).

/// The longest header, magic number included.
pub(super) const MAX_HEADER: usize = 18;

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Of frames to be skipped; the lowest four bits are free.
const SKIPPABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];

/// Whether a frame begins so, one to be skipped included.
pub(super) fn is_one(head: &[u8]) -> bool {
    head.starts_with(&MAGIC)
        || matches!(head, [first, rest @ ..]
            if first & 0xf0 == SKIPPABLE[0] && rest.starts_with(&SKIPPABLE[1..]))
}

/// How much memory a decoder of the frame that begins so has to keep; `None` if it is no frame, or is to be skipped.
pub(super) fn window(head: &[u8]) -> Option<u64> {
    let rest = head.strip_prefix(&MAGIC)?;
    let (&descriptor, rest) = rest.split_first()?;
    if descriptor & 0x20 == 0 {
        let (exponent, mantissa) = (rest.first()? >> 3, rest.first()? & 7);
        let base = 1u64 << (10 + exponent);
        return Some(base + base / 8 * u64::from(mantissa));
    }
    // The window is the whole content, whose size comes after the dictionary's number.
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let rest = rest.get(dictionary..)?;
    let little = |count: usize| {
        let bytes = rest.get(..count)?;
        Some(bytes.iter().rev().fold(0u64, |size, byte| size << 8 | u64::from(*byte)))
    };
    match descriptor >> 6 {
        0 => little(1),
        1 => little(2).map(|size| size + 256),
        2 => little(4),
        _ => little(8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn streamed(window_log: u32) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(window_log).unwrap();
        encoder.write_all(&[7; 1000]).unwrap();
        encoder.flush().unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn windows_are_those_that_zstd_writes() {
        for log in [10, 17, 23, 27] {
            assert_eq!(window(&streamed(log)), Some(1 << log));
        }
        for size in [0, 1, 255, 256, 70_000] {
            let whole = zstd::bulk::compress(&vec![b'x'; size], 3).unwrap();
            assert!(is_one(&whole));
            assert_eq!(window(&whole), Some(size as u64), "a frame of {size} bytes");
        }
        let largest = [0x28, 0xb5, 0x2f, 0xfd, 0, 0xff];
        assert_eq!(window(&largest), Some((1 << 41) + (1 << 38) * 7));
    }

    #[test]
    fn others_have_none() {
        for head in [&b"\x28\xb5\x2f"[..], b"\x28\xb5\x2f\xfd", b"\x28\xb5\x2f\xfd\xe0\0\0", b"tar"]
        {
            assert_eq!(window(head), None);
        }
        assert!(is_one(b"\x5f\x2a\x4d\x18") && window(b"\x5f\x2a\x4d\x18\0\0\0\0").is_none());
        assert!(!is_one(b"\x60\x2a\x4d\x18") && !is_one(b""));
    }
}
