//! How often a caller may ask, by class of request. This module must not know HTTP.

mod guesses;

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::{DefaultKeyedStateStore, ShrinkableKeyedStateStore};
use governor::{Quota, RateLimiter};

pub use guesses::{Guess, Guesses};

use crate::config::RateLimitsConfig;

/// Callers that are told apart at most; beyond that, new addresses share one allowance until old callers have been
/// forgotten.
const MAX_CALLERS: usize = 10_000;

/// Who is asking.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Asker {
    /// Somebody whom the server knows, by a name. There are no more of them than the operator made.
    Principal(String),
    /// Somebody at an address. Anybody may have many of these.
    Address(String),
}

/// Requests that are counted together (section 1 of the wire contract).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// All that have no class of their own.
    Default,
    /// VMs made.
    CreateVm,
    /// Commands.
    Exec,
    /// Deno programs.
    RunTs,
    /// Node.js programs.
    RunJs,
    /// Files put into a VM.
    Upload,
    /// Files taken out of a VM.
    Download,
    /// Attempts to sign in.
    Login,
}

/// A caller's allowance after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Requests a minute.
    pub limit: u32,
    /// What is left of them now.
    pub remaining: u32,
    /// Until all of them are there again.
    pub reset: Duration,
    /// Set if the request is refused: when to try again.
    pub retry_after: Option<Duration>,
}

type Limiter = RateLimiter<Asker, Callers, DefaultClock, StateInformationMiddleware>;

/// The callers that are told apart; `None` are all others.
#[derive(Debug, Default)]
struct Callers(DefaultKeyedStateStore<Option<Asker>>);

impl StateStore for Callers {
    type Key = Asker;

    fn measure_and_replace<T, F, E>(&self, asker: &Asker, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let key = Some(asker.clone());
        let room = matches!(asker, Asker::Principal(_)) || self.len() < MAX_CALLERS || self.0.contains_key(&key);
        self.0.measure_and_replace(if room { &key } else { &None }, measure)
    }
}

impl ShrinkableKeyedStateStore<Asker> for Callers {
    fn retain_recent(&self, drop_below: Nanos) {
        self.0.retain_recent(drop_below);
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The allowances of all callers.
#[derive(Debug)]
pub struct RateLimits {
    default: Option<Limiter>,
    create_vm: Option<Limiter>,
    exec: Option<Limiter>,
    run_ts: Option<Limiter>,
    run_js: Option<Limiter>,
    upload: Option<Limiter>,
    download: Option<Limiter>,
    login: Option<Limiter>,
    /// Wrong keys, as many a minute as requests without a limit of their own.
    pub guesses: Guesses,
}

impl RateLimits {
    /// Limits of 0 are no limits.
    pub fn new(config: &RateLimitsConfig) -> Self {
        Self {
            default: limiter(config.rate_limit_default),
            create_vm: limiter(config.rate_limit_create_vm),
            exec: limiter(config.rate_limit_exec),
            run_ts: limiter(config.rate_limit_run_ts),
            run_js: limiter(config.rate_limit_run_js),
            upload: limiter(config.rate_limit_upload),
            download: limiter(config.rate_limit_download),
            login: limiter(config.rate_limit_login),
            guesses: Guesses::new(config.rate_limit_default),
        }
    }

    /// Counts a request. `None`: this class has no limit.
    pub fn count(&self, class: Class, asker: &Asker) -> Option<Allowance> {
        let limiter = match class {
            Class::Default => &self.default,
            Class::CreateVm => &self.create_vm,
            Class::Exec => &self.exec,
            Class::RunTs => &self.run_ts,
            Class::RunJs => &self.run_js,
            Class::Upload => &self.upload,
            Class::Download => &self.download,
            Class::Login => &self.login,
        };
        limiter.as_ref().map(|limiter| count(limiter, asker))
    }
}

fn limiter(per_minute: u32) -> Option<Limiter> {
    let quota = Quota::per_minute(NonZeroU32::new(per_minute)?);
    Some(Limiter::new(quota, Callers::default(), DefaultClock::default()))
}

fn count(limiter: &Limiter, asker: &Asker) -> Allowance {
    if limiter.len() >= MAX_CALLERS {
        limiter.retain_recent();
    }
    match limiter.check_key(asker) {
        Ok(state) => {
            let limit = state.quota().burst_size().get();
            let remaining = state.remaining_burst_capacity();
            let reset = state.quota().replenish_interval() * (limit - remaining);
            Allowance { limit, remaining, reset, retry_after: None }
        }
        Err(refusal) => {
            let quota = refusal.quota();
            let limit = quota.burst_size().get();
            let wait = refusal.wait_time_from(DefaultClock::default().now());
            let reset = quota.replenish_interval() * (limit - 1) + wait;
            Allowance { limit, remaining: 0, reset, retry_after: Some(wait) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(name: &str) -> Asker {
        Asker::Address(name.to_owned())
    }

    #[test]
    fn a_caller_gets_his_requests_a_minute_and_then_a_time_to_wait() {
        let limiter = limiter(3).unwrap();
        let (a, b) = (address("a"), address("b"));
        let remaining: Vec<_> = (0..3).map(|_| count(&limiter, &a).remaining).collect();
        assert_eq!(remaining, [2, 1, 0]);
        let refused = count(&limiter, &a);
        let wait = refused.retry_after.unwrap();
        assert!(wait > Duration::from_secs(19) && wait <= Duration::from_secs(20), "{wait:?}");
        assert_eq!(count(&limiter, &b).remaining, 2, "callers do not share");
    }

    #[test]
    fn zero_is_no_limit_and_many_callers_take_bounded_memory() {
        assert!(limiter(0).is_none());
        let limiter = limiter(2).unwrap();
        for caller in 0..MAX_CALLERS + 10 {
            count(&limiter, &address(&caller.to_string()));
        }
        assert!(limiter.len() <= MAX_CALLERS + 1);
        assert!(count(&limiter, &address("one more")).retry_after.is_some());
        assert_eq!(count(&limiter, &address("0")).remaining, 0, "who was there before keeps an allowance of his own");
        let principal = Asker::Principal("key:1".into());
        assert_eq!(count(&limiter, &principal).remaining, 1, "and strangers take nothing from whom the server knows");
    }
}
