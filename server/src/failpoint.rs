//! Points at which a test lets the daemon die, fail or hang: before and after every durable write and every
//! effect on the host.
//!
//! Contract: whatever has to survive a crash or a failure goes through one of the functions here, under a name
//! like `run/cni-add`; `/before` is passed with nothing done, `/after` with the effect done and its success noted
//! nowhere. The work's own failure wins over an injected one.
//!
//! Only with the cargo feature `failpoints` does any of this exist. Without it a step is its work, and an optimised
//! build does not even hold the names of the points.

#[cfg(feature = "failpoints")]
mod armed;
#[cfg(feature = "failpoints")]
pub(crate) use armed::{Injected, pass, step, step_async, sure, sure_async};

#[cfg(not(feature = "failpoints"))]
pub(crate) use unarmed::{pass, step, step_async, sure, sure_async};

#[cfg(not(feature = "failpoints"))]
mod unarmed {
    /// A single point.
    #[inline(always)]
    pub(crate) fn pass<E>(_point: impl std::fmt::Display) -> Result<(), E> {
        Ok(())
    }

    /// Work that can fail.
    #[inline(always)]
    pub(crate) fn step<T, E>(
        _name: impl std::fmt::Display,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        work()
    }

    /// Work that can fail and waits.
    #[inline(always)]
    pub(crate) fn step_async<F: Future>(_name: &'static str, work: F) -> F {
        work
    }

    /// Work whose failure nobody asks about.
    #[inline(always)]
    pub(crate) fn sure<T>(_name: &'static str, work: impl FnOnce() -> T) -> T {
        work()
    }

    /// The same, which waits.
    #[inline(always)]
    pub(crate) fn sure_async<F: Future>(_name: &'static str, work: F) -> F {
        work
    }
}
