//! What a link is doing: how many calls are under way, and how many began within the last minute.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rds_peers::manifest::Alias;
use rds_peers::policy::Usage;
use rds_vmm::VmId;

const MINUTE: Duration = Duration::from_secs(60);

/// Calls that are remembered for a link. More in a minute than this are as good as this many.
const REMEMBERED: usize = 100_000;

/// The counts of all links.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts(Arc<Mutex<HashMap<(VmId, Alias), Count>>>);

#[derive(Debug, Default)]
struct Count {
    running: u32,
    begun: VecDeque<Instant>,
}

/// A call that is under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Running {
    counts: Counts,
    link: (VmId, Alias),
}

impl Counts {
    /// Lets `decide` look at what the link is doing, and counts one more call unless it refuses. Nobody else decides
    /// meanwhile.
    pub(super) fn admit<E>(
        &self,
        consumer: VmId,
        alias: &Alias,
        decide: impl FnOnce(Usage) -> Result<(), E>,
    ) -> Result<Running, E> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let link = (consumer, alias.clone());
        let count = counts.entry(link.clone()).or_default();
        let now = Instant::now();
        while count.begun.front().is_some_and(|begun| now.duration_since(*begun) >= MINUTE) {
            count.begun.pop_front();
        }
        let last_minute = u32::try_from(count.begun.len()).unwrap_or(u32::MAX);
        let frees_in = count.begun.front().map_or(Duration::ZERO, |begun| MINUTE - now.duration_since(*begun));
        decide(Usage { last_minute, running: count.running, frees_in })?;
        count.running += 1;
        if count.begun.len() < REMEMBERED {
            count.begun.push_back(now);
        }
        Ok(Running { counts: self.clone(), link })
    }

    /// Forgets a VM's links.
    pub(super) fn forget(&self, consumer: VmId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(vm, _), _| *vm != consumer);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut counts = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.link) {
            count.running = count.running.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_counts_while_it_runs_and_for_a_minute() {
        let (counts, vm, alias) = (Counts::default(), VmId::new(), Alias::new("a").unwrap());
        let seen = |counts: &Counts| {
            let mut seen = Usage::default();
            let refused = counts.admit(vm, &alias, |usage| {
                seen = usage;
                Err(())
            });
            assert!(refused.is_err());
            seen
        };
        let first = counts.admit(vm, &alias, |_| Ok::<_, ()>(())).unwrap();
        let usage = seen(&counts);
        assert_eq!((usage.last_minute, usage.running), (1, 1));
        assert!(usage.frees_in > Duration::from_secs(50) && usage.frees_in <= MINUTE, "{:?}", usage.frees_in);
        drop(first);
        let usage = seen(&counts);
        assert_eq!((usage.last_minute, usage.running), (1, 0));
        counts.forget(vm);
        assert_eq!(seen(&counts), Usage::default());
    }
}
