//! When to read next. A program that writes line by line wakes its reader for each of them, which costs both more than
//! the lines: so output that keeps coming in drops is let gather for a moment. What comes after a silence, or a few lines
//! of it, is read at once, and so is what comes in bulk.

use std::time::{Duration, Instant};

/// How long drops gather: less than anybody who looks on can see.
const PAUSE: Duration = Duration::from_millis(1);
/// Rounds further apart than this have nothing to do with each other.
const APART: Duration = Duration::from_millis(4);
/// So many small rounds in a row, and there will be more.
const STREAK: u32 = 32;
/// A round that moves so much is worth its costs, and the pipe may be full again soon.
const BULK: usize = 64 * 1024;

/// How output came lately.
#[derive(Default)]
pub(super) struct Pace {
    last: Option<Instant>,
    drops: u32,
}

impl Pace {
    /// After a round that moved so many bytes: how long to let output gather.
    pub(super) fn pause(&mut self, now: Instant, bytes: usize) -> Option<Duration> {
        if bytes == 0 {
            return None;
        }
        let soon = self.last.is_some_and(|last| now.saturating_duration_since(last) <= APART);
        self.drops = if soon && bytes < BULK { self.drops.saturating_add(1) } else { 0 };
        self.last = Some(now);
        (self.drops >= STREAK).then_some(PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether there was a pause after each of these rounds, so far apart.
    fn pauses(rounds: impl IntoIterator<Item = (u64, usize)>) -> Vec<bool> {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        let round = |(micros, bytes)| {
            now += Duration::from_micros(micros);
            pace.pause(now, bytes).is_some()
        };
        rounds.into_iter().map(round).collect()
    }

    #[test]
    fn drops_gather_once_there_are_many() {
        let pauses = pauses([(10, 64); 100]);
        assert_eq!(pauses.iter().position(|pause| *pause), Some(STREAK as usize));
        assert!(pauses[STREAK as usize..].iter().all(|pause| *pause));
    }

    #[test]
    fn a_few_lines_and_those_after_a_silence_are_read_at_once() {
        assert!(!pauses([(10, 64); STREAK as usize]).contains(&true));
        assert!(!pauses([(5000, 64); 100]).contains(&true));
        let with_silence = [(10, 64); 60].into_iter().chain([(5000, 64); 1]);
        assert_eq!(pauses(with_silence).last(), Some(&false));
    }

    #[test]
    fn bulk_is_never_held_up() {
        assert!(!pauses([(10, BULK); 100]).contains(&true));
        let between = [(10, 64); 60].into_iter().chain([(10, BULK), (10, 64)]);
        assert_eq!(pauses(between)[60..], [false, false]);
    }

    #[test]
    fn a_round_without_output_counts_for_nothing() {
        let mut rounds = vec![(10, 64); 60];
        rounds.insert(50, (10, 0));
        let pauses = pauses(rounds);
        assert_eq!(pauses[49..53], [true, false, true, true]);
    }
}
