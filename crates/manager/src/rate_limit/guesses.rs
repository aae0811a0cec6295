//! Wrong keys, by the address that they come from. Beyond the limit a key is not looked at, so that nobody learns whether it
//! is right; but for one that was right before from the same address: others there may guess, and good clients go on.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Allowance, MAX_CALLERS};

/// How long a wrong key counts.
const MINUTE: Duration = Duration::from_secs(60);

/// The wrong keys of the last minute, and the right ones.
#[derive(Debug)]
pub struct Guesses {
    per_minute: u32,
    /// Right keys are known by a hash that is of this process alone.
    hasher: RandomState,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By address: since when, and how many. `None` are the addresses that there was no room for.
    wrong: HashMap<Option<String>, (Instant, u32)>,
    /// Addresses with keys that were right.
    right: HashSet<u64>,
}

/// A key that may be looked at. It counts as a wrong one until it is found to be right.
#[derive(Debug)]
#[must_use]
pub struct Guess<'a> {
    guesses: &'a Guesses,
    id: u64,
    /// Where it was counted, if it was.
    counted: Option<Option<String>>,
}

impl Guesses {
    /// A limit of 0 is no limit.
    pub(super) fn new(per_minute: u32) -> Self {
        Self { per_minute, hasher: RandomState::new(), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a key before it is looked at. An error if it is not to be looked at.
    pub fn count(&self, address: &str, key: &str) -> Result<Guess<'_>, Allowance> {
        let id = self.hasher.hash_one((address, key));
        let mut state = self.state();
        if self.per_minute == 0 || state.right.contains(&id) {
            return Ok(Guess { guesses: self, id, counted: None });
        }
        let now = Instant::now();
        let mut place = Some(address.to_owned());
        if state.wrong.len() >= MAX_CALLERS && !state.wrong.contains_key(&place) {
            state.wrong.retain(|_, (since, _)| now.duration_since(*since) < MINUTE);
            if state.wrong.len() >= MAX_CALLERS {
                place = None;
            }
        }
        let (since, wrong) = state.wrong.entry(place.clone()).or_insert((now, 0));
        if now.duration_since(*since) >= MINUTE {
            (*since, *wrong) = (now, 0);
        }
        if *wrong >= self.per_minute {
            let wait = MINUTE.saturating_sub(now.duration_since(*since));
            return Err(Allowance { limit: self.per_minute, remaining: 0, reset: wait, retry_after: Some(wait) });
        }
        *wrong += 1;
        Ok(Guess { guesses: self, id, counted: Some(place) })
    }
}

impl Guess<'_> {
    /// The key was right: it does not count, and is looked at from now on.
    pub fn was_right(self) {
        let Some(place) = self.counted else { return };
        let mut state = self.guesses.state();
        if let Some((_, wrong)) = state.wrong.get_mut(&place) {
            *wrong = wrong.saturating_sub(1);
        }
        if state.right.len() >= MAX_CALLERS {
            state.right.clear();
        }
        state.right.insert(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_limit_no_key_is_looked_at_but_those_that_were_right_there() {
        let guesses = Guesses::new(3);
        for _ in 0..5 {
            guesses.count("a", "right").unwrap().was_right();
        }
        for _ in 0..3 {
            let _ = guesses.count("a", "wrong").unwrap();
        }
        let refused = guesses.count("a", "another").unwrap_err();
        assert!(refused.retry_after.is_some_and(|wait| wait <= MINUTE) && refused.remaining == 0);
        guesses.count("a", "right").unwrap().was_right();
        assert!(guesses.count("b", "right").is_ok(), "another address has its own limit");
        for _ in 0..2 {
            let _ = guesses.count("b", "wrong").unwrap();
        }
        assert!(guesses.count("b", "right").is_err(), "it was not found to be right there");
    }

    #[test]
    fn many_addresses_take_bounded_memory() {
        let guesses = Guesses::new(1);
        for address in 0..MAX_CALLERS + 10 {
            let _ = guesses.count(&address.to_string(), "wrong");
        }
        assert!(guesses.state().wrong.len() <= MAX_CALLERS + 1);
        assert!(guesses.count("one more", "wrong").is_err());
        assert!(Guesses::new(0).count("a", "wrong").is_ok());
    }
}
