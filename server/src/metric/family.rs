//! An instrument for each combination of labels.
//!
//! A table of fixed size with open addressing, in which an entry is made once and never moved or taken away: finding
//! one is a hash and a few loads.

use std::fmt::Debug;
use std::sync::OnceLock;

use super::text::Text;
use super::{Counter, Histogram, Kind};

/// Combinations of labels in one family. There are some sixty stages; the rest is room.
pub(super) const PLACES: usize = 256;
/// The labels of what found no place.
const OTHER: &str = "other";

/// What a family is of.
pub(crate) trait Instrument: Debug {
    const KIND: Kind;
    /// Writes its samples under the family's name.
    fn write(&self, text: &mut Text, name: &str, labels: &[(&str, &str)]);
}

impl Instrument for Counter {
    const KIND: Kind = Kind::Counter;

    fn write(&self, text: &mut Text, name: &str, labels: &[(&str, &str)]) {
        text.whole(name, labels, self.value());
    }
}

impl Instrument for Histogram {
    const KIND: Kind = Kind::Histogram;

    fn write(&self, text: &mut Text, name: &str, labels: &[(&str, &str)]) {
        let read = self.read();
        let buckets = format!("{name}_bucket");
        for (bound, count) in &read.buckets {
            let bound = if bound.is_infinite() { "+Inf".to_owned() } else { bound.to_string() };
            let mut labels = labels.to_vec();
            labels.push(("le", &bound));
            text.whole(&buckets, &labels, *count);
        }
        text.sample(&format!("{name}_sum"), labels, read.sum);
        text.whole(&format!("{name}_count"), labels, read.count());
    }
}

#[derive(Debug)]
struct Entry<const L: usize, T> {
    labels: [Box<str>; L],
    instrument: T,
}

/// Instruments of one name, by their `L` labels.
#[derive(Debug)]
pub(crate) struct Family<const L: usize, T> {
    name: &'static str,
    help: &'static str,
    labels: [&'static str; L],
    make: fn() -> T,
    places: [OnceLock<Box<Entry<L, T>>>; PLACES],
    rest: OnceLock<Box<Entry<L, T>>>,
}

impl<const L: usize, T: Instrument> Family<L, T> {
    pub(super) const fn new(
        name: &'static str,
        help: &'static str,
        labels: [&'static str; L],
        make: fn() -> T,
    ) -> Self {
        let places = [const { OnceLock::new() }; PLACES];
        Self { name, help, labels, make, places, rest: OnceLock::new() }
    }

    fn entry(&self, labels: [&str; L]) -> Box<Entry<L, T>> {
        Box::new(Entry { labels: labels.map(Into::into), instrument: (self.make)() })
    }

    /// The instrument of these labels.
    pub(crate) fn of(&self, labels: [&str; L]) -> &T {
        let first = hash(&labels);
        for step in 0..PLACES {
            let place = &self.places[(first + step) % PLACES];
            // Another thread may take the place in between, for the same labels or for others.
            let entry = place.get_or_init(|| self.entry(labels));
            if entry.labels.iter().map(|label| &**label).eq(labels) {
                return &entry.instrument;
            }
        }
        &self.rest.get_or_init(|| self.entry([OTHER; L])).instrument
    }

    /// Writes all of it, in the order of the labels.
    pub(super) fn write(&self, text: &mut Text) {
        text.head(T::KIND, self.name, self.help);
        if L == 0 {
            // Without labels there is one instrument, which counts from nothing on.
            self.of([""; L]);
        }
        let mut entries: Vec<_> =
            self.places.iter().chain([&self.rest]).filter_map(OnceLock::get).collect();
        entries.sort_by(|a, b| a.labels.cmp(&b.labels));
        for entry in entries {
            let labels =
                self.labels.iter().zip(&entry.labels).map(|(name, value)| (*name, &**value));
            entry.instrument.write(text, self.name, &labels.collect::<Vec<_>>());
        }
    }
}

/// FNV-1a: labels are short, and nobody gains by making them collide.
fn hash(labels: &[&str]) -> usize {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in labels.iter().flat_map(|label| label.bytes().chain([0xff])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    usize::try_from(hash % PLACES as u64).unwrap_or(0)
}
