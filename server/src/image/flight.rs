//! Work that several callers want at once is done once.
//!
//! The work is a future that all who wait for it poll together. It goes on for as long as one of them is left
//! and is dropped with the last, so that a caller who goes away ends only what nobody else wants.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};

/// A share in the work.
pub(super) type Work<T> = Shared<BoxFuture<'static, T>>;

/// The work as it is found again, without a share in it.
type Watched<T> = WeakShared<BoxFuture<'static, T>>;

/// Work under way by key. `N` is what the one who started it tells those who join.
pub(super) struct Flights<K, T: Clone, N>(Mutex<HashMap<K, (Watched<T>, N)>>);

impl<K, T: Clone, N> Default for Flights<K, T, N> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K, T: Clone, N> std::fmt::Debug for Flights<K, T, N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Flights")
    }
}

/// Whether the work was under way already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Started,
    Joined,
}

impl<K: Eq + Hash, T: Clone, N: Clone> Flights<K, T, N> {
    /// Joins the work of that key, or starts it. Work that has ended is never joined.
    pub(super) fn join(
        &self,
        key: K,
        start: impl FnOnce() -> (BoxFuture<'static, T>, N),
    ) -> (Work<T>, N, Role) {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((weak, note)) = flights.get(&key)
            && let Some(work) = weak.upgrade().filter(|work| work.peek().is_none())
        {
            return (work, note.clone(), Role::Joined);
        }
        flights.retain(|_, (weak, _)| weak.upgrade().is_some());
        let (future, note) = start();
        let work = future.shared();
        if let Some(weak) = work.downgrade() {
            flights.insert(key, (weak, note.clone()));
        }
        (work, note, Role::Started)
    }

    /// Joins work under way whose key is as wanted.
    pub(super) fn find(&self, wanted: impl Fn(&K) -> bool) -> Option<(Work<T>, N)> {
        let flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        flights.iter().filter(|(key, _)| wanted(key)).find_map(|(_, (weak, note))| {
            let work = weak.upgrade().filter(|work| work.peek().is_none())?;
            Some((work, note.clone()))
        })
    }

    /// Forgets work that has ended, and what was told of it.
    pub(super) fn forget_ended(&self) {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|_, (weak, _)| weak.upgrade().is_some_and(|work| work.peek().is_none()));
    }

    /// What those who started the work that is under way told.
    #[cfg(test)]
    pub(super) fn notes(&self) -> Vec<N> {
        let flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let going = |weak: &WeakShared<_>| {
            weak.upgrade().is_some_and(|work: Work<T>| work.peek().is_none())
        };
        flights.values().filter(|(weak, _)| going(weak)).map(|(_, note)| note.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn work_is_shared_and_ends_with_its_last_waiter() {
        let flights = Flights::<&str, u32, ()>::default();
        let runs = Arc::new(AtomicU32::new(0));
        let alive = Arc::new(());
        let start = |gate: tokio::sync::oneshot::Receiver<()>| {
            let (runs, alive) = (runs.clone(), alive.clone());
            move || {
                let work = async move {
                    let _alive = alive;
                    gate.await.ok();
                    runs.fetch_add(1, Ordering::Relaxed)
                };
                (work.boxed(), ())
            }
        };
        let (open, gate) = tokio::sync::oneshot::channel();
        let (first, (), role) = flights.join("a", start(gate));
        assert_eq!(role, Role::Started);
        let (second, (), role) = flights.join("a", start(tokio::sync::oneshot::channel().1));
        assert_eq!(role, Role::Joined);
        drop(first);
        open.send(()).unwrap();
        assert_eq!(second.clone().await, 0);
        assert_eq!(runs.load(Ordering::Relaxed), 1);

        let (third, (), role) = flights.join("a", start(tokio::sync::oneshot::channel().1));
        assert_eq!(role, Role::Started, "finished work is not joined");
        drop((second, third));
        assert_eq!(Arc::strong_count(&alive), 1, "unwanted work is dropped");
        assert!(flights.notes().is_empty());
    }
}
