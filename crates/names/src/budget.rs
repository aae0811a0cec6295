//! How much one VM may ask. A lookup of a name below a wildcard carries whatever its asker writes into the name to
//! whoever serves that domain; so what is new in such names is counted by the byte.

use std::collections::{HashSet, VecDeque};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::domains::HostName;

/// Lookups a second, and at once.
const LOOKUPS: Quota = quota(50, 200);

/// Bytes of new names a second, and at once: some hundred hosts of a service at once, then five a second.
const NEW_BYTES: Quota = quota(64, 4096);

/// Longest part of a name that a wildcard stands for. Buckets of storage services have up to 63 characters.
const MAX_FREE: usize = 100;

/// How many names count as known. What a choice among them tells is less than [`NEW_BYTES`] at the rate of [`LOOKUPS`].
const MAX_KNOWN: usize = 256;

const fn quota(per_second: u32, burst: u32) -> Quota {
    let (Some(per_second), Some(burst)) = (NonZeroU32::new(per_second), NonZeroU32::new(burst)) else {
        panic!("a quota is not 0");
    };
    Quota::per_second(per_second).allow_burst(burst)
}

/// What one VM has left.
#[derive(Debug)]
pub(crate) struct Budget {
    lookups: DefaultDirectRateLimiter,
    new_bytes: DefaultDirectRateLimiter,
    known: Mutex<Known>,
}

impl Budget {
    pub(crate) fn new() -> Self {
        Self {
            lookups: RateLimiter::direct(LOOKUPS),
            new_bytes: RateLimiter::direct(NEW_BYTES),
            known: Mutex::default(),
        }
    }

    /// Whether one more lookup of any kind is answered.
    pub(crate) fn lookup(&self) -> bool {
        self.lookups.check().is_ok()
    }

    /// Whether `name`, of which `free` characters were its asker's choice, may be passed on.
    pub(crate) fn pass(&self, name: &HostName, free: usize) -> bool {
        let Some(cost) = u32::try_from(free).ok().and_then(NonZeroU32::new) else { return free == 0 };
        if free > MAX_FREE {
            return false;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.names.contains(name) {
            return true;
        }
        let paid = matches!(self.new_bytes.check_n(cost), Ok(Ok(())));
        if paid {
            known.add(name);
        }
        paid
    }
}

/// Names that were passed on not long ago.
#[derive(Debug, Default)]
struct Known {
    names: HashSet<HostName>,
    order: VecDeque<HostName>,
}

impl Known {
    fn add(&mut self, name: &HostName) {
        if self.order.len() == MAX_KNOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.names.remove(&oldest);
        }
        self.names.insert(name.clone());
        self.order.push_back(name.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> HostName {
        HostName::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn lookups_are_limited() {
        let budget = Budget::new();
        let answered = (0..1000).filter(|_| budget.lookup()).count();
        assert!((200..300).contains(&answered), "{answered}");
    }

    #[test]
    fn names_that_carry_data_are_limited_and_others_not() {
        let budget = Budget::new();
        let label = "x".repeat(50);
        let passed = (0..1000).filter(|n| budget.pass(&name(&format!("{n}{label}.a.example")), 50)).count();
        assert!((81..90).contains(&passed), "{passed}");
        assert!(budget.pass(&name("api.example"), 0), "an exact name carries nothing");
        assert!(budget.pass(&name(&format!("80{label}.a.example")), 50), "nor does one that was asked before");
        let long = format!("{0}.{0}.{0}.a.example", "y".repeat(40));
        assert!(!Budget::new().pass(&name(&long), 122));
    }

    #[test]
    fn what_is_known_is_bounded() {
        let mut known = Known::default();
        (0..1000).for_each(|number| known.add(&name(&format!("a{number}.example"))));
        assert_eq!((known.names.len(), known.order.len()), (MAX_KNOWN, MAX_KNOWN));
    }
}
