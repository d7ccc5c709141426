//! What reached the disk, in order, and what may be left of it when power fails.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// One thing done to the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    Write {
        offset: u64,
        bytes: Vec<u8>,
    },
    /// Every write before it is on the platter.
    Flush,
}

/// In the place of a write's offset.
const FLUSH: u64 = u64::MAX;
/// Offset and length.
const HEADER: usize = 16;

impl Entry {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (offset, bytes) = match self {
            Self::Write { offset, bytes } => (*offset, bytes.as_slice()),
            Self::Flush => (FLUSH, &[][..]),
        };
        [&offset.to_le_bytes()[..], &(bytes.len() as u64).to_le_bytes(), bytes].concat()
    }

    fn length(&self) -> u64 {
        let bytes = match self {
            Self::Write { bytes, .. } => bytes.len(),
            Self::Flush => 0,
        };
        (HEADER + bytes) as u64
    }
}

/// All that was done to a disk.
#[derive(Debug, Clone)]
pub struct Log {
    entries: Vec<Entry>,
    /// Where each entry ends.
    ends: Vec<u64>,
}

/// A moment at which power fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// How many entries the disk had been given.
    pub entries: usize,
    /// `None`: it had written all of them. Else which of the writes since the last flush it had, at random.
    pub seed: Option<u64>,
}

impl Log {
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut bytes = Vec::new();
        File::open(path)?.read_to_end(&mut bytes)?;
        Ok(Self::new(decode(&bytes)))
    }

    fn new(entries: Vec<Entry>) -> Self {
        let mut end = 0;
        let ends = entries.iter().map(|entry| {
            end += entry.length();
            end
        });
        let ends = ends.collect();
        Self { entries, ends }
    }

    /// The position up to which a disk with so many entries had come.
    pub fn position(&self, entries: usize) -> u64 {
        entries.checked_sub(1).map_or(0, |last| self.ends[last])
    }

    /// The number of entries that had been recorded at a position.
    pub fn entries_at(&self, position: u64) -> usize {
        self.ends.partition_point(|end| *end <= position)
    }

    /// The moment after each flush that had something to flush, from a position on.
    pub fn barriers(&self, from: u64) -> Vec<usize> {
        let first = self.entries_at(from);
        (first.max(1)..self.entries.len())
            .filter(|&n| self.entries[n] == Entry::Flush && self.entries[n - 1] != Entry::Flush)
            .map(|n| n + 1)
            .collect()
    }

    /// The moments between two flushes, after each write.
    pub fn between(&self, from: u64) -> Vec<usize> {
        let first = self.entries_at(from);
        (first..self.entries.len())
            .filter(|&n| self.entries[n] != Entry::Flush)
            .map(|n| n + 1)
            .collect()
    }

    /// Writes to `image` what is on the disk after a cut. `base` is what was there before the first entry.
    pub fn replay(&self, base: &Path, cut: Cut, image: &Path) -> io::Result<()> {
        std::fs::copy(base, image)?;
        let file = File::options().write(true).open(image)?;
        let flushed = self.flushed(cut.entries);
        let mut dice = cut.seed.map(Dice);
        let dense = dice.as_mut().map_or(0, |dice| dice.roll() % 101);
        for (number, entry) in self.entries[..cut.entries].iter().enumerate() {
            let Entry::Write { offset, bytes } = entry else { continue };
            let lost =
                number >= flushed && dice.as_mut().is_some_and(|dice| dice.roll() % 100 >= dense);
            if !lost {
                file.write_all_at(bytes, *offset)?;
            }
        }
        Ok(())
    }

    /// How many of the first entries were followed by a flush.
    fn flushed(&self, entries: usize) -> usize {
        self.entries[..entries]
            .iter()
            .rposition(|entry| *entry == Entry::Flush)
            .map_or(0, |last| last + 1)
    }
}

/// An entry that is cut short, by the end of the one who wrote it, was never answered.
fn decode(mut bytes: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    while bytes.len() >= HEADER {
        let (offset, length) = (number(&bytes[..8]), number(&bytes[8..HEADER]));
        let Ok(length) = usize::try_from(length) else { break };
        let Some(content) = bytes[HEADER..].get(..length) else { break };
        entries.push(match offset {
            FLUSH => Entry::Flush,
            _ => Entry::Write { offset, bytes: content.into() },
        });
        bytes = &bytes[HEADER + length..];
    }
    entries
}

/// A sequence that its seed repeats (splitmix64).
#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Puts a list into a random order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            let other = usize::try_from(self.roll() % (last as u64 + 1)).expect("an index");
            list.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(offset: u64, byte: u8) -> Entry {
        Entry::Write { offset, bytes: vec![byte; 4] }
    }

    #[test]
    fn only_what_was_flushed_is_certain() {
        let log = Log::new(vec![write(0, 1), Entry::Flush, Entry::Flush, write(4, 2), write(8, 3)]);
        let encoded: Vec<u8> = log.entries.iter().flat_map(Entry::encode).collect();
        assert_eq!(decode(&encoded), log.entries);
        assert_eq!(decode(&encoded[..encoded.len() - 1]).len(), 4);
        assert_eq!((log.barriers(0), log.between(0)), (vec![2], vec![1, 4, 5]));
        assert_eq!(log.entries_at(log.position(3)), 3);

        let dir = tempfile::tempdir().unwrap();
        let (base, image) = (dir.path().join("base"), dir.path().join("image"));
        std::fs::write(&base, [0; 12]).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for seed in (0..64).map(Some).chain([None]) {
            log.replay(&base, Cut { entries: 5, seed }, &image).unwrap();
            let bytes = std::fs::read(&image).unwrap();
            assert_eq!(bytes[..4], [1; 4], "flushed");
            seen.insert((bytes[4], bytes[8]));
        }
        assert_eq!(seen.len(), 4, "each of the two writes is there or not: {seen:?}");
    }
}
