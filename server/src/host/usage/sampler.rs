//! How fast a cgroup uses the processor, from one reading to the next.
//!
//! Readings are made when somebody asks, so a node that nobody asks spends nothing, and askers at different paces
//! share them. The rate is that of the last whole window; the first begins where the cgroup did.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

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
            let nano_cores = open.window.rate(usage.at, usage.cpu);
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
            let window = Window { from: (began, 0), rate: None };
            *slot = Slot::Open(Box::new(Open { meter: open()?, window }));
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

#[derive(Debug)]
struct Window {
    /// Time and use of the processor when it began.
    from: (i64, u64),
    rate: Option<u64>,
}

impl Window {
    fn rate(&mut self, at: i64, cpu: u64) -> Option<u64> {
        let elapsed = u64::try_from(at - self.from.0).unwrap_or(0);
        if u128::from(elapsed) < MIN_WINDOW.as_nanos() {
            return self.rate;
        }
        let used = u128::from(cpu.saturating_sub(self.from.1)) * 1_000_000_000;
        let rate = u64::try_from(used / u128::from(elapsed)).unwrap_or(u64::MAX);
        self.rate = (u128::from(elapsed) <= MAX_WINDOW.as_nanos()).then_some(rate);
        self.from = (at, cpu);
        self.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn rates_are_of_whole_windows() {
        let mut window = Window { from: (0, 0), rate: None };
        assert_eq!(window.rate(SECOND / 2, 7), None, "too short, and there was none before");
        assert_eq!(window.rate(2 * SECOND, 1_000_000_000), Some(500_000_000));
        assert_eq!(window.rate(2 * SECOND + 1, 2_000_000_000), Some(500_000_000), "the last one's");
        assert_eq!(window.rate(3 * SECOND, 1_000_000_000), Some(0));
        assert_eq!(window.rate(200 * SECOND, 9_000_000_000), None, "nobody asked for minutes");
        assert_eq!(window.rate(201 * SECOND, 9_000_000_001), Some(1));
        assert_eq!(window.rate(190 * SECOND, 9_000_000_009), Some(1), "the clock was set back");
    }

    #[test]
    fn what_is_closed_stays_so() {
        let sampler = Sampler::default();
        assert_eq!(sampler.sample(0, || None), None);
        sampler.close();
        assert_eq!(sampler.sample(0, || panic!("not opened again")), None);
    }
}
