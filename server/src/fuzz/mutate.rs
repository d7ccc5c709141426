//! Mutations of inputs, the same ones for the same seed.

/// Longest input.
const MAX: usize = 16 << 10;
/// Numbers at which parsers break.
const NUMBERS: [u32; 10] =
    [0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff];
/// Texts at which parsers break.
const WORDS: [&str; 22] = [
    "",
    "/",
    "..",
    "../",
    "\0",
    "\n",
    "\"",
    "\\",
    ":",
    "@",
    "=",
    ",",
    "[",
    "{",
    "null",
    "-1",
    "4294967296",
    "sha256:",
    "%2e%2e",
    "\u{202e}",
    "é",
    "ALL",
];

/// xorshift64*.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `end`, which is not 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap_or(0)
    }

    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let from = self.below(length + 1);
        from..from + self.below((length - from).min(64) + 1)
    }
}

/// One to four changes. `other` is another input, to take a part of.
pub(super) fn mutate(random: &mut Random, input: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=random.below(4) {
        change(random, input, other);
    }
    input.truncate(MAX);
}

fn change(random: &mut Random, input: &mut Vec<u8>, other: &[u8]) {
    let length = input.len();
    let range = random.range(length);
    match random.below(8) {
        0 if length > 0 => input[random.below(length)] ^= 1 << random.below(8),
        1 if length > 0 => input[random.below(length)] = random.next() as u8,
        2 => drop(input.drain(range)),
        3 => {
            let again = input[range.clone()].to_vec();
            input.splice(range.end..range.end, again);
        }
        4 => {
            let number = NUMBERS[random.below(NUMBERS.len())].to_be_bytes();
            let count = 1 << random.below(3);
            input.splice(
                range.start..(range.start + count).min(length),
                number[4 - count..].to_vec(),
            );
        }
        5 => {
            let word = WORDS[random.below(WORDS.len())].as_bytes();
            input.splice(range, word.to_vec());
        }
        6 => {
            let part = other[random.range(other.len())].to_vec();
            input.splice(range, part);
        }
        _ => {
            let fresh: Vec<u8> = (0..random.below(9)).map(|_| random.next() as u8).collect();
            input.splice(range.start..range.start, fresh);
        }
    }
}
