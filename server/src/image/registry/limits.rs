//! How much patience and memory registries get: every limit of a pull's network side.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::RETRY_AFTER;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::error::Error;

/// A download that brings less than this is taken for dead.
const LEAST_BYTES_PER_SECOND: u64 = 1 << 10;
/// Hosts whose connections are counted, before those that nobody uses are forgotten.
const MAX_HOSTS: usize = 256;

/// The defaults are for real registries, others for tests.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Until the headers of an answer are here.
    pub(crate) answer: Duration,
    /// For a manifest, a config or a token, once the headers are here.
    pub(crate) small: Duration,
    /// Over so much time spent waiting, a download has to bring a least number of bytes.
    pub(crate) stall: Duration,
    /// How often all endpoints are asked for one thing.
    pub(crate) rounds: u32,
    /// Between the first two rounds; it doubles from one to the next.
    pub(crate) first_pause: Duration,
    pub(crate) longest_pause: Duration,
    /// Most that a registry's Retry-After is obeyed.
    pub(crate) longest_retry_after: Duration,
    /// No further round is begun after that.
    pub(crate) retry_within: Duration,
    /// Broken connections in a row that bring next to nothing, for one stretch of a blob.
    pub(crate) setbacks: u32,
    /// Requests under way to one host.
    pub(crate) per_host: usize,
    /// A part of a large blob that is fetched beside others.
    pub(crate) segment: u64,
    /// Such parts under way for one blob …
    pub(crate) ahead: usize,
    /// … and for all: they wait in memory for what comes before them.
    pub(crate) ahead_in_all: usize,
    /// How long a blob's only connection is watched before others are opened beside it.
    pub(crate) watched: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(60),
            small: Duration::from_secs(60),
            stall: Duration::from_secs(60),
            rounds: 4,
            first_pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(5),
            longest_retry_after: Duration::from_secs(30),
            retry_within: Duration::from_secs(60),
            setbacks: 5,
            per_host: 16,
            segment: 8 << 20,
            ahead: 3,
            ahead_in_all: 8,
            watched: Duration::from_secs(1),
        }
    }
}

impl Limits {
    /// What has to come within a window of [`Limits::stall`].
    pub(super) fn least(&self) -> u64 {
        (self.stall.as_millis() as u64).saturating_mul(LEAST_BYTES_PER_SECOND) / 1000
    }

    /// How long to wait before the next round, somewhere between half and the whole of the longest: many nodes
    /// that lost the same registry must not come back at the same moment.
    pub(super) fn pause(&self, round: u32) -> Duration {
        let longest = self.first_pause.saturating_mul(1 << round.min(16)).min(self.longest_pause);
        let random = RandomState::new().build_hasher().finish() >> 32;
        longest / 2 + (longest / 2).mul_f64(random as f64 / f64::from(u32::MAX))
    }
}

/// How long a registry wants to be left alone: seconds, or a date.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::MAX);
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// Counts the requests under way to each host.
#[derive(Debug, Default)]
pub(super) struct Slots(Mutex<HashMap<String, Arc<Semaphore>>>);

impl Slots {
    /// Waits until another request to the host may be made; it lasts until its body has been read.
    pub(super) async fn take(
        &self,
        host: &str,
        limits: &Limits,
    ) -> Result<OwnedSemaphorePermit, Error> {
        let slots = {
            let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if hosts.len() >= MAX_HOSTS {
                hosts.retain(|_, slots| Arc::strong_count(slots) > 1);
            }
            let new = || Arc::new(Semaphore::new(limits.per_host));
            hosts.entry(host.to_owned()).or_insert_with(new).clone()
        };
        slots.acquire_owned().await.map_err(|_| Error::Internal("no slots for a host".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_differ_and_have_an_end() {
        let limits = Limits::default();
        for (round, longest) in [(0, 250), (1, 500), (4, 4000), (5, 5000), (40, 5000)] {
            let longest = Duration::from_millis(longest);
            for _ in 0..50 {
                let pause = limits.pause(round);
                assert!(pause >= longest / 2 && pause <= longest, "{round}: {pause:?}");
            }
        }
        let pauses: std::collections::BTreeSet<_> = (0..20).map(|_| limits.pause(3)).collect();
        assert!(pauses.len() > 10);
    }

    #[test]
    fn retry_after_in_seconds_and_as_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (text, want) in [
            ("7", Some(7)),
            (" 120 ", Some(120)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            ("Sunday, 06-Nov-94 08:50:07 GMT", Some(30)),
            ("Sun Nov  6 08:50:07 1994", Some(30)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            assert_eq!(retry_after(&headers, now), want.map(Duration::from_secs), "{text}");
        }
        let endless = HeaderMap::from_iter([(RETRY_AFTER, "9".repeat(40).parse().unwrap())]);
        assert_eq!(retry_after(&endless, now), Some(Duration::MAX));
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[tokio::test]
    async fn a_host_is_not_asked_more_than_its_share_at_once() {
        let (slots, limits) = (Slots::default(), Limits { per_host: 2, ..Limits::default() });
        let first = slots.take("a", &limits).await.unwrap();
        let _second = slots.take("a", &limits).await.unwrap();
        let _other = slots.take("b", &limits).await.unwrap();
        let mut third = Box::pin(slots.take("a", &limits));
        assert!(futures_util::poll!(&mut third).is_pending());
        drop(first);
        drop(third.await.unwrap());
    }
}
