//! How fast a cgroup uses the processor, from one reading to the next.
//!
//! Readings are made when somebody asks, so a node that nobody asks spends nothing, and askers at different paces
//! share them. The rate is that of the last whole window; the first begins where the cgroup did.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{Meter, Usage};

/// A shorter window says more of the scheduler than of the load.
const MIN_WINDOW: Duration = Duration::from_secs(1);
/// A longer one says nothing of now.
const MAX_WINDOW: Duration = Duration::from_secs(120);

/// The cgroup of a container or pod, opened at the first reading and closed for good at its end.
#[derive(Debug, Default)]
pub(crate) struct Sampler(Mutex<Slot>);

#[derive(Debug, Default)]
enum Slot {
    #[default]
    Unread,
    Open(Box<Open>),
    Closed,
}

#[derive(Debug)]
struct Open {
    meter: Meter,
    window: Window,
}

/// A usage, and its rate where there is one.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sample {
    pub usage: Usage,
    /// Billionths of a core.
    pub nano_cores: Option<u64>,
}

impl Sampler {
    /// Reads the cgroup; opens it with `open` where that was not done. `began` is when it had used nothing yet, in
    /// nanoseconds since 1970. `None` where there is no such cgroup, or no more.
    pub(crate) fn sample(
        &self,
        began: i64,
        open: impl FnOnce() -> Option<Meter>,
    ) -> Option<Sample> {
        self.with(began, open, |open| {
            let usage = open.meter.usage()?;
            let nano_cores = open.window.rate(Instant::now(), usage.cpu);
            Some(Sample { usage, nano_cores })
        })
    }

    /// The same for what else its meter tells.
    pub(crate) fn read<T>(
        &self,
        began: i64,
        open: impl FnOnce() -> Option<Meter>,
        read: impl FnOnce(&Meter) -> T,
    ) -> Option<T> {
        self.with(began, open, |open| Some(read(&open.meter)))
    }

    fn with<T>(
        &self,
        began: i64,
        open: impl FnOnce() -> Option<Meter>,
        work: impl FnOnce(&mut Open) -> Option<T>,
    ) -> Option<T> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*slot, Slot::Unread) {
            let meter = open()?;
            let window = Window { from: ago(began).map(|began| (began, 0)), rate: None };
            *slot = Slot::Open(Box::new(Open { meter, window }));
        }
        match &mut *slot {
            Slot::Open(open) => work(open),
            Slot::Unread | Slot::Closed => None,
        }
    }

    /// Lets go of what nobody has asked for in a while.
    pub(crate) fn rest(&self) {
        if let Slot::Open(open) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            open.meter.rest();
        }
    }

    /// Its container or pod has ended: nothing stays open, and nothing is opened again.
    pub(crate) fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Slot::Closed;
    }
}

/// When that was, by a clock that nobody sets; `None` if it is still to come.
fn ago(at: i64) -> Option<Instant> {
    let at = UNIX_EPOCH + Duration::from_nanos(u64::try_from(at).ok()?);
    Instant::now().checked_sub(SystemTime::now().duration_since(at).ok()?)
}

#[derive(Debug)]
struct Window {
    /// Time and use of the processor when it began; nothing until it is known.
    from: Option<(Instant, u64)>,
    rate: Option<u64>,
}

impl Window {
    fn rate(&mut self, at: Instant, cpu: u64) -> Option<u64> {
        let (began, before) = *self.from.get_or_insert((at, cpu));
        let elapsed = at.saturating_duration_since(began);
        if elapsed < MIN_WINDOW {
            return self.rate;
        }
        let used = u128::from(cpu.saturating_sub(before)) * 1_000_000_000;
        let rate = u64::try_from(used / elapsed.as_nanos()).unwrap_or(u64::MAX);
        self.rate = (elapsed <= MAX_WINDOW).then_some(rate);
        self.from = Some((at, cpu));
        self.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_whole_windows() {
        let start = Instant::now();
        let after = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut window = Window { from: Some((start, 0)), rate: None };
        assert_eq!(window.rate(after(0.5), 7), None, "too short, and there was none before");
        assert_eq!(window.rate(after(2.), 1_000_000_000), Some(500_000_000));
        assert_eq!(window.rate(after(2.001), 2_000_000_000), Some(500_000_000), "the last one's");
        assert_eq!(window.rate(after(3.), 1_000_000_000), Some(0));
        assert_eq!(window.rate(after(200.), 9_000_000_000), None, "nobody asked for minutes");
        assert_eq!(window.rate(after(201.), 9_000_000_001), Some(1));
    }

    /// The clock was set back since it began.
    #[test]
    fn without_a_beginning_the_first_reading_is_one() {
        assert_eq!(ago(i64::MAX), None);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        assert!(ago(i64::try_from(now).unwrap() - 1_000_000).is_some());
        let start = Instant::now();
        let mut window = Window { from: None, rate: None };
        assert_eq!(window.rate(start, 5_000_000_000), None);
        assert_eq!(window.rate(start + Duration::from_secs(2), 7_000_000_000), Some(1_000_000_000));
    }

    #[test]
    fn what_is_closed_stays_so() {
        let sampler = Sampler::default();
        assert_eq!(sampler.sample(0, || None), None);
        sampler.close();
        assert_eq!(sampler.sample(0, || panic!("not opened again")), None);
    }
}
