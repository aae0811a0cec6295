//! Whether a VM is in use: the calls into it and out of it that are under way, and since when there are none.
//!
//! A VM is paused only while nobody uses it: the gate is shut first, and whoever comes then wakes it.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rds_vmm::guest::GuestClient;

/// Of one VM.
#[derive(Debug)]
pub(crate) struct Uses(Mutex<State>);

#[derive(Debug)]
struct State {
    calls: u32,
    /// When the last call ended.
    since: Instant,
    shut: bool,
}

impl Default for Uses {
    fn default() -> Self {
        Self(Mutex::new(State { calls: 0, since: Instant::now(), shut: false }))
    }
}

impl Uses {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call into the VM begins; `None` while the gate is shut.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Use> {
        let mut state = self.lock();
        if state.shut {
            return None;
        }
        state.calls += 1;
        Some(Use(Arc::clone(self)))
    }

    /// A call out of the VM begins, which no gate can hold up.
    pub(crate) fn leave(self: &Arc<Self>) -> Use {
        self.lock().calls += 1;
        Use(Arc::clone(self))
    }

    /// Shuts the gate, unless calls are under way: then it tells how many.
    pub(super) fn shut(&self) -> Result<(), u32> {
        let mut state = self.lock();
        if state.calls > 0 {
            return Err(state.calls);
        }
        state.shut = true;
        Ok(())
    }

    /// Opens the gate. Time without calls counts anew from here.
    pub(super) fn open(&self) {
        let mut state = self.lock();
        state.shut = false;
        state.since = Instant::now();
    }

    /// Calls under way.
    pub(super) fn calls(&self) -> u32 {
        self.lock().calls
    }

    /// Returns when there was no call for so long.
    pub(super) async fn idle(&self, limit: Duration) {
        loop {
            let left = {
                let state = self.lock();
                if state.calls > 0 { limit } else { limit.saturating_sub(state.since.elapsed()) }
            };
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }
}

/// A call that is under way until this is dropped.
#[derive(Debug)]
pub(crate) struct Use(Arc<Uses>);

impl Drop for Use {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.calls -= 1;
        state.since = Instant::now();
    }
}

/// The connection to a VM's agent, for one call.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(super) guest: GuestClient,
    pub(super) _in_use: Use,
}

impl Deref for Lease {
    type Target = GuestClient;

    fn deref(&self) -> &GuestClient {
        &self.guest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_is_shut_only_when_nobody_is_in() {
        let uses = Arc::new(Uses::default());
        let call = uses.enter().unwrap();
        assert_eq!(uses.shut(), Err(1));
        drop(call);
        uses.shut().unwrap();
        assert!(uses.enter().is_none());
        let out = uses.leave();
        assert_eq!(uses.calls(), 1);
        drop(out);
        uses.open();
        assert!(uses.enter().is_some());
    }

    #[tokio::test]
    async fn a_call_puts_the_end_of_idleness_off() {
        let uses = Arc::new(Uses::default());
        let limit = Duration::from_millis(60);
        let call = uses.enter().unwrap();
        let begun = Instant::now();
        let in_use = Arc::clone(&uses);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            drop(call);
            let _ = in_use;
        });
        uses.idle(limit).await;
        assert!(begun.elapsed() >= Duration::from_millis(160), "{:?}", begun.elapsed());
    }
}
