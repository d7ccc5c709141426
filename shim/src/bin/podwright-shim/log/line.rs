//! From a container's bytes to the lines of a CRI log file.
//!
//! A line is what lies before a `\n`, without one `\r` at its end. It is cut into parts of at
//! most `max` bytes; the last part is tagged `F`, those before it `P`. What follows the last
//! `\n` of the stream is a line too, whose last part is tagged `P`, since it was never finished.
//! The result does not depend on how the bytes were cut into reads.

use super::stamp::Stamp;

/// What the kubelet's readers cope with, and what containerd splits at.
pub(crate) const DEFAULT_MAX: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// Output of one batch: whole lines, ready for one `write(2)`.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) lines: u64,
}

impl Batch {
    fn push(&mut self, head: &Head, full: bool, parts: [&[u8]; 2]) {
        self.bytes.extend_from_slice(if full { &head.full } else { &head.partial });
        self.bytes.extend_from_slice(parts[0]);
        self.bytes.extend_from_slice(parts[1]);
        self.bytes.push(b'\n');
        self.lines += 1;
    }
}

/// The two line beginnings of one read: `<time> <stream> F ` and `… P `.
pub(crate) struct Head {
    full: [u8; Self::LEN],
    partial: [u8; Self::LEN],
}

impl Head {
    const LEN: usize = Stamp::LEN + 10;

    pub(crate) fn new(stamp: &Stamp, stream: Stream) -> Self {
        let mut full = [b' '; Self::LEN];
        full[..Stamp::LEN].copy_from_slice(stamp.as_bytes());
        full[Stamp::LEN + 1..Self::LEN - 3].copy_from_slice(match stream {
            Stream::Stdout => b"stdout",
            Stream::Stderr => b"stderr",
        });
        let mut partial = full;
        full[Self::LEN - 2] = b'F';
        partial[Self::LEN - 2] = b'P';
        Self { full, partial }
    }
}

/// Cuts one stream into lines.
#[derive(Debug)]
pub(crate) struct Splitter {
    max: usize,
    /// The beginning of a line whose end has not been read yet: at most `max` bytes, or one
    /// more when the last of them is a `\r` of which it is not known yet whether it counts.
    carry: Vec<u8>,
}

impl Splitter {
    pub(crate) fn new(max: usize) -> Self {
        Self { max: max.max(1), carry: Vec::new() }
    }

    /// Takes what one read returned.
    pub(crate) fn feed(&mut self, mut data: &[u8], head: &Head, out: &mut Batch) {
        while !self.carry.is_empty() && !data.is_empty() {
            data = self.complete(data, head, out);
        }
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', data) {
            self.line(&data[start..end], head, out);
            start = end + 1;
        }
        let rest = self.cut(&data[start..], head, out);
        if !rest.is_empty() {
            self.carry.extend_from_slice(rest);
        }
    }

    /// The stream is over.
    pub(crate) fn finish(&mut self, head: &Head, out: &mut Batch) {
        let carry = std::mem::take(&mut self.carry);
        let mut rest = &carry[..];
        while rest.len() > self.max {
            let (part, more) = rest.split_at(self.max);
            out.push(head, false, [part, b""]);
            rest = more;
        }
        if !rest.is_empty() {
            out.push(head, false, [rest, b""]);
        }
    }

    /// A line that ends inside this read and began in it.
    fn line(&self, line: &[u8], head: &Head, out: &mut Batch) {
        let mut line = line.strip_suffix(b"\r").unwrap_or(line);
        while line.len() > self.max {
            let (part, more) = line.split_at(self.max);
            out.push(head, false, [part, b""]);
            line = more;
        }
        out.push(head, true, [line, b""]);
    }

    /// Emits the full parts of an unfinished line and returns what has to wait.
    fn cut<'a>(&self, mut rest: &'a [u8], head: &Head, out: &mut Batch) -> &'a [u8] {
        while rest.len() > self.max + 1 || (rest.len() > self.max && rest.last() != Some(&b'\r')) {
            let (part, more) = rest.split_at(self.max);
            out.push(head, false, [part, b""]);
            rest = more;
        }
        rest
    }

    /// Joins the carried bytes with the beginning of `data` and returns what is left of it.
    fn complete<'a>(&mut self, data: &'a [u8], head: &Head, out: &mut Batch) -> &'a [u8] {
        let mut carry = std::mem::take(&mut self.carry);
        // Far enough to settle the carried part: its line's end, or one byte over its limit.
        let reach = data.len().min((self.max + 2).saturating_sub(carry.len()));
        if let Some(end) = memchr::memchr(b'\n', &data[..reach]) {
            if end > 0 && carry.len() + end <= self.max && data[end - 1] != b'\r' {
                out.push(head, true, [&carry, &data[..end]]);
            } else {
                carry.extend_from_slice(&data[..end]);
                self.line(&carry, head, out);
            }
            carry.clear();
            // Kept for the next partial line of this stream, at most a line's length.
            self.carry = carry;
            return &data[end + 1..];
        }
        carry.extend_from_slice(&data[..reach]);
        let waits = self.cut(&carry, head, out).len();
        carry.drain(..carry.len() - waits);
        self.carry = carry;
        &data[reach..]
    }

    /// Whether part of a line waits for its end.
    pub(crate) fn pending(&self) -> bool {
        !self.carry.is_empty()
    }

    /// Gives back the memory of a line that is over.
    pub(crate) fn shrink(&mut self) {
        if self.carry.is_empty() {
            self.carry = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head() -> Head {
        Head::new(&Stamp::from_unix(0, 0), Stream::Stdout)
    }

    /// `(tag, content)` of each line that comes out when the input arrives in these chunks.
    fn lines<'a>(max: usize, chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<(char, Vec<u8>)> {
        let (mut splitter, mut out) = (Splitter::new(max), Batch::default());
        for chunk in chunks {
            splitter.feed(chunk, &head(), &mut out);
            assert!(splitter.carry.len() <= max + 1);
        }
        splitter.finish(&head(), &mut out);
        let mut lines = Vec::new();
        for line in out.bytes.split_inclusive(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\n").expect("whole lines");
            let (begin, content) = line.split_at(Head::LEN);
            assert_eq!(&begin[..38], b"1970-01-01T00:00:00.000000000Z stdout ");
            lines.push((char::from(begin[38]), content.to_vec()));
        }
        assert_eq!(out.lines, lines.len() as u64);
        lines
    }

    /// The contract at the top of this file, written down a second time.
    fn expected(max: usize, input: &[u8]) -> Vec<(char, Vec<u8>)> {
        let mut expected = Vec::new();
        let mut rest = input;
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == b'\n');
            let (line, more, last) = match end {
                Some(end) => {
                    let line = &rest[..end];
                    (line.strip_suffix(b"\r").unwrap_or(line), &rest[end + 1..], 'F')
                }
                None => (rest, &rest[rest.len()..], 'P'),
            };
            let parts = line.len().div_ceil(max).max(1);
            for part in 0..parts {
                let content = &line[part * max..line.len().min((part + 1) * max)];
                expected.push((if part + 1 == parts { last } else { 'P' }, content.to_vec()));
            }
            rest = more;
        }
        expected
    }

    fn line(tag: char, content: &str) -> (char, Vec<u8>) {
        (tag, content.as_bytes().to_vec())
    }

    #[test]
    fn cuts_as_the_contract_says() {
        let full = |text| line('F', text);
        let part = |text| line('P', text);
        assert_eq!(lines(4, [&b"a\n\nbc\r\n"[..]]), [full("a"), full(""), full("bc")]);
        assert_eq!(lines(4, [&b"abcd\nabcde\n"[..]]), [full("abcd"), part("abcd"), full("e")]);
        assert_eq!(lines(4, [&b"abcd"[..], b"\r\n"]), [full("abcd")]);
        assert_eq!(lines(4, [&b"abcd\r"[..], b"x\n"]), [part("abcd"), full("\rx")]);
        assert_eq!(lines(4, [&b"ab"[..]]), [part("ab")]);
        assert_eq!(lines(4, [&b""[..]]), []);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn chunks_make_no_difference(
            input in proptest::collection::vec(
                prop_oneof![4 => Just(b'x'), 1 => Just(b'\r'), 2 => Just(b'\n'), 1 => any::<u8>()],
                0..200,
            ),
            sizes in proptest::collection::vec(1_usize..9, 1..20),
            max in 1_usize..12,
        ) {
            let mut chunks = Vec::new();
            let mut rest = &input[..];
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, more) = rest.split_at(rest.len().min(*size));
                chunks.push(chunk);
                rest = more;
            }
            prop_assert_eq!(lines(max, chunks), expected(max, &input));
            prop_assert_eq!(lines(max, [&input[..]]), expected(max, &input));
        }
    }
}
