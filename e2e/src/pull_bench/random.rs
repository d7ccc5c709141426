//! Bytes that look like files and are the same in every run.

/// Words that a text is made of, and how long runs of them and of noise are.
const WORDS: usize = 768;
const RUN: u64 = 48;
const NOISE: u64 = 32;

/// A sequence of numbers that its seed decides (xorshift64*).
#[derive(Debug)]
pub(super) struct Random {
    state: u64,
    words: Vec<Vec<u8>>,
}

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        let mut words = Self { state: 0x9e37_79b9_7f4a_7c15, words: Vec::new() };
        let words = (0..WORDS).map(|_| words.word()).collect();
        // Zero is the one state that never changes.
        Self { state: seed.wrapping_mul(0xd134_2543_de82_ef95) | 1, words }
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound.max(1)
    }

    fn word(&mut self) -> Vec<u8> {
        let length = 3 + self.below(9);
        (0..length).map(|_| b'a' + self.below(26) as u8).chain([b' ']).collect()
    }

    /// `size` bytes of words, the first ones more often than others, with noise in between.
    pub(super) fn text(&mut self, size: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity(size + 256);
        while text.len() < size {
            for _ in 0..self.below(RUN) {
                let most = 1 + self.below(WORDS as u64);
                let word = self.below(most) as usize;
                text.extend_from_slice(&self.words[word]);
            }
            for _ in 0..self.below(NOISE) / 8 {
                text.extend_from_slice(&self.next().to_le_bytes());
            }
        }
        text.truncate(size);
        text
    }
}
