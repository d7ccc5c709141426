//! Where layers are verified, inflated and unpacked: threads of their own, which yield to everything else.
//!
//! They take what the processor and the disk have left over, so that pods start as fast beside a pull as without one,
//! and they are not those of the blocking pool, on which every pod waits. How many there are is bounded by how many
//! layers are under way.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::error::Error;
use crate::sys;

/// Layers under way in all pulls together; each has two threads and some megabytes of memory.
const MAX_LAYERS: usize = 32;
/// A tenth of the weight that the daemon's other threads have, where they compete.
const NICE: i32 = 10;
/// What `ps` and `top` show.
const NAME: &str = "layer";

/// Room for layers.
#[derive(Debug, Clone)]
pub(super) struct Labour(Arc<Semaphore>);

impl Default for Labour {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_LAYERS)))
    }
}

impl Labour {
    /// Waits until one more layer may be under way; it is for as long as the permit lives.
    pub(super) async fn admit(&self) -> Result<OwnedSemaphorePermit, Error> {
        let closed = |_| Error::Internal("no more layers are taken".into());
        self.0.clone().acquire_owned().await.map_err(closed)
    }
}

/// Work on a thread of its own, which has begun.
pub(super) struct Work<T>(oneshot::Receiver<T>);

impl<T: Send + 'static> Work<T> {
    /// Begins `work`.
    pub(super) fn begin(work: impl FnOnce() -> T + Send + 'static) -> Result<Self, Error> {
        let span = tracing::Span::current();
        let (done, result) = oneshot::channel();
        // It may start tasks.
        let runtime = Handle::current();
        let begun = std::thread::Builder::new().name(NAME.into()).spawn(move || {
            let _inside = runtime.enter();
            yield_to_others();
            done.send(span.in_scope(work)).ok();
        });
        begun.map_err(|err| Error::Internal(format!("start a thread: {err}")))?;
        Ok(Self(result))
    }

    pub(super) async fn end(self) -> Result<T, Error> {
        self.0.await.map_err(|_| Error::Internal("unpack: a thread panicked".into()))
    }
}

/// What the kernel does not grant costs speed elsewhere, and no correctness.
fn yield_to_others() {
    if let Err(err) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%err, "a layer's thread keeps its priority");
    }
    if let Err(err) = sys::lowest_io_priority() {
        tracing::debug!(%err, "a layer's thread keeps its priority for the disk");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn its_threads_yield_and_others_do_not() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        let inside =
            Work::begin(move || (nice(), sys::io_priority())).unwrap().end().await.unwrap();
        assert_eq!(inside, (NICE, sys::LOWEST_IO_PRIORITY));
        assert_eq!((nice(), before), (before, before));
        let panicked = Work::<()>::begin(|| panic!("boom")).unwrap().end().await;
        assert!(matches!(panicked, Err(Error::Internal(_))), "{panicked:?}");
    }

    #[tokio::test]
    async fn so_many_layers_and_no_more() {
        let labour = Labour::default();
        let mut under_way = Vec::new();
        for _ in 0..MAX_LAYERS {
            under_way.push(labour.admit().await.unwrap());
        }
        let mut next = Box::pin(labour.admit());
        assert!(futures_util::poll!(&mut next).is_pending());
        under_way.pop();
        drop(next.await.unwrap());
    }
}
