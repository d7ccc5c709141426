//! Tokens: what a CRI call hands out and a client's one HTTP request takes back.
//!
//! A token stands for a request that was checked already. It is used once, within a minute, and their number is
//! limited, so a caller that never dials costs nothing for long.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::error::{Error, Result};

/// How long a token may wait for its request.
const LIFETIME: Duration = Duration::from_secs(60);
/// Tokens that wait at a time.
const MAX_WAITING: usize = 1000;
/// Random bytes in a token: nobody guesses one of a thousand within a minute.
const RANDOM: usize = 12;

/// Requests that wait for their client.
#[derive(Debug)]
pub(super) struct Tokens<T>(Mutex<Table<T>>);

#[derive(Debug)]
struct Table<T> {
    waiting: HashMap<String, T>,
    /// In the order of their ends; those used meanwhile are among them.
    ends: VecDeque<(Instant, String)>,
}

impl<T> Default for Tokens<T> {
    fn default() -> Self {
        Self(Mutex::new(Table { waiting: HashMap::new(), ends: VecDeque::new() }))
    }
}

impl<T> Tokens<T> {
    /// A new token for `request`.
    ///
    /// # Errors
    /// `Exhausted` while too many wait.
    pub(super) fn give(&self, request: T) -> Result<String> {
        self.give_at(request, Instant::now())
    }

    fn give_at(&self, request: T, now: Instant) -> Result<String> {
        let mut table = self.lock();
        table.expire(now);
        if table.waiting.len() >= MAX_WAITING {
            return Err(Error::Exhausted("maximum number of in-flight requests exceeded".into()));
        }
        let token = random();
        table.ends.push_back((now + LIFETIME, token.clone()));
        table.waiting.insert(token.clone(), request);
        Ok(token)
    }

    /// What the token stands for, the first time it is asked within its life.
    pub(super) fn take(&self, token: &str) -> Option<T> {
        self.take_at(token, Instant::now())
    }

    fn take_at(&self, token: &str, now: Instant) -> Option<T> {
        let mut table = self.lock();
        table.expire(now);
        table.waiting.remove(token)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table<T>> {
        // Whoever panics with it has at most left out an entry.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Table<T> {
    fn expire(&mut self, now: Instant) {
        let waiting = &mut self.waiting;
        while let Some((end, token)) = self.ends.front()
            && (*end <= now || !waiting.contains_key(token))
        {
            waiting.remove(token);
            self.ends.pop_front();
        }
        // Used tokens behind one that still waits; swept before they outnumber what is allowed.
        if self.ends.len() > 2 * MAX_WAITING {
            self.ends.retain(|(_, token)| waiting.contains_key(token));
        }
    }
}

fn random() -> String {
    let mut bytes = [0; RANDOM];
    crate::id::fill_random(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_used_once() {
        let tokens = Tokens::default();
        let token = tokens.give(7).unwrap();
        assert_eq!(tokens.take("another"), None);
        assert_eq!(tokens.take(&token), Some(7));
        assert_eq!(tokens.take(&token), None);
    }

    #[test]
    fn a_token_ends_after_a_minute() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let token = tokens.give_at(7, now).unwrap();
        let other = tokens.give_at(8, now + LIFETIME / 2).unwrap();
        assert_eq!(tokens.take_at(&token, now + LIFETIME), None);
        assert_eq!(tokens.take_at(&other, now + LIFETIME), Some(8));
    }

    #[test]
    fn no_more_wait_than_are_allowed_and_used_ones_make_room() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let given: Vec<_> = (0..MAX_WAITING).map(|n| tokens.give_at(n, now).unwrap()).collect();
        assert!(matches!(tokens.give_at(0, now), Err(Error::Exhausted(_))));
        assert_eq!(tokens.take_at(&given[500], now), Some(500));
        for n in 0..5 * MAX_WAITING {
            let token = tokens.give_at(n, now).unwrap();
            assert_eq!(tokens.take_at(&token, now), Some(n));
            assert!(tokens.lock().ends.len() <= 2 * MAX_WAITING + 1);
        }
        assert!(tokens.give_at(0, now + LIFETIME).is_ok());
    }
}
