//! Points in time, from the wire.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;

/// A missing or senseless time is the epoch, as everywhere in this protocol.
pub(super) fn from_wire(timestamp: Option<Timestamp>) -> SystemTime {
    let Some(timestamp) = timestamp else { return UNIX_EPOCH };
    let seconds = u64::try_from(timestamp.seconds).unwrap_or(0);
    let nanoseconds = u32::try_from(timestamp.nanos).unwrap_or(0).min(999_999_999);
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds)).unwrap_or(UNIX_EPOCH)
}
