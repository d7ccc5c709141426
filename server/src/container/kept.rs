//! A value that changes, and what was made of it for the lists.
//!
//! A kubelet lists everything every second, and hardly anything has changed. So an entry is encoded once and copied from
//! then on. It cannot be out of date: whoever makes it holds the lock under which the value changes.

use std::ops::Deref;
use std::sync::OnceLock;

use bytes::Bytes;

/// A value with the entry that was made of it, if one was.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    value: T,
    entry: OnceLock<Bytes>,
}

impl<T> Kept<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value, entry: OnceLock::new() }
    }

    /// The value, to be changed: its entry is forgotten.
    pub(crate) fn change(&mut self) -> &mut T {
        self.entry = OnceLock::new();
        &mut self.value
    }

    /// The entry; `make` is called if there is none since the last change.
    pub(crate) fn entry(&self, make: impl FnOnce(&T) -> Bytes) -> Bytes {
        self.entry.get_or_init(|| make(&self.value)).clone()
    }
}

impl<T> Deref for Kept<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_made_once_a_change() {
        let encode = |value: &u8| Bytes::copy_from_slice(&[*value]);
        let mut kept = Kept::new(1);
        assert_eq!(*kept.entry(encode), [1]);
        assert_eq!(*kept.entry(|_| unreachable!("it was made")), [1]);
        *kept.change() += 1;
        assert_eq!((*kept, &*kept.entry(encode)), (2, &[2][..]));
    }
}
