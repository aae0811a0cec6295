//! The warm pool: machines that run already and that nobody has told anything. A create takes one and goes on as after a
//! restore.
//!
//! A machine lives from the start in the directory of the VM that it may become, under its id and host index, so nothing
//! on the host changes hands. It is in no list and no quota. This module keeps account of the machines and decides how
//! many of which kind there are to be; making and removing them is up to `vms`. It must not know how a machine is made.

pub(crate) mod record;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rds_vmm::VmId;
use rds_vmm::guest::GuestClient;
use tokio::sync::Notify;

use crate::config::SnapshotsConfig;
use crate::seeds::{Key, Size};

/// How long no machine of a kind is made after one could not be.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// An image and size is in use for so long after the last create of a VM of it.
const IN_USE: Duration = Duration::from_secs(15 * 60);

/// Machines of one kind are interchangeable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kind {
    pub image_id: String,
    pub size: Size,
    /// Of which files; see [`Key`].
    pub key: Key,
    /// Bytes of the filesystem on the disk.
    pub disk_bytes: u64,
}

/// A machine that waits.
#[derive(Debug)]
pub(crate) struct Machine {
    /// The VM that it may become.
    pub id: VmId,
    /// That VM's small number.
    pub host_index: u32,
    pub kind: Kind,
    /// Its agent, which has answered and knows nothing.
    pub guest: GuestClient,
}

/// The machines that wait, and what is known of those that will.
#[derive(Debug, Default)]
struct State {
    waiting: Vec<Machine>,
    /// Host indices of machines that are on their way here.
    coming: HashSet<u32>,
    /// What creates asked for, the latest first.
    used: Vec<(String, Size, Instant)>,
    /// What could not be made, and when.
    failed: Vec<(Kind, Instant)>,
}

/// The account.
#[derive(Debug)]
pub(crate) struct Pool {
    enabled: bool,
    target: usize,
    max: usize,
    state: Mutex<State>,
    /// Told when a create has taken a machine or wanted one of a new kind.
    pub(crate) wanted: Notify,
}

/// A machine that was taken by a create. It goes back when this is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    pool: Arc<Pool>,
    machine: Option<Machine>,
}

impl Taken {
    /// Takes it for good.
    pub(crate) fn keep(mut self) -> Option<Machine> {
        self.machine.take()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(machine) = self.machine.take() {
            self.pool.state().waiting.push(machine);
        }
    }
}

impl Pool {
    pub(crate) fn new(config: &SnapshotsConfig) -> Arc<Self> {
        let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        Self::of(config.enable_warm_pool, count(config.warm_pool_target), count(config.warm_pool_max_vms))
    }

    fn of(enabled: bool, target: usize, max: usize) -> Arc<Self> {
        Arc::new(Self { enabled, target, max, state: Mutex::default(), wanted: Notify::new() })
    }

    /// Whether there is to be one.
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Notes that a VM of this kind is created, and takes a machine for it if one waits. The caller decides at once what
    /// becomes of its host index, which is none of the pool's from here on.
    pub(crate) fn take(self: &Arc<Self>, kind: &Kind) -> Option<(VmId, u32, Taken)> {
        let mut state = self.state();
        state.used.retain(|(image, size, at)| (image, size) != (&kind.image_id, &kind.size) && at.elapsed() < IN_USE);
        state.used.insert(0, (kind.image_id.clone(), kind.size, Instant::now()));
        self.wanted.notify_one();
        let found = state.waiting.iter().position(|machine| machine.kind == *kind && !machine.guest.is_closed())?;
        let machine = state.waiting.remove(found);
        let (id, index) = (machine.id, machine.host_index);
        Some((id, index, Taken { pool: Arc::clone(self), machine: Some(machine) }))
    }

    /// Host indices that no new VM may get.
    pub(crate) fn host_indices(&self) -> HashSet<u32> {
        let state = self.state();
        state.waiting.iter().map(|machine| machine.host_index).chain(state.coming.iter().copied()).collect()
    }

    /// Says that a machine with this host index is on its way.
    pub(crate) fn announce(&self, host_index: u32) {
        self.state().coming.insert(host_index);
    }

    /// Says that it will not come, and that nothing is left of it.
    pub(crate) fn call_off(&self, host_index: u32) {
        self.state().coming.remove(&host_index);
    }

    /// Lets a machine that was announced wait.
    pub(crate) fn add(&self, machine: Machine) {
        let mut state = self.state();
        state.coming.remove(&machine.host_index);
        state.waiting.push(machine);
    }

    /// How many machines wait.
    pub(crate) fn len(&self) -> usize {
        self.state().waiting.len()
    }

    /// Ids of the machines that wait.
    pub(crate) fn ids(&self) -> Vec<VmId> {
        self.state().waiting.iter().map(|machine| machine.id).collect()
    }

    /// How many machines of which image and size there are to be. `first` comes before what creates asked for.
    pub(crate) fn shares(&self, first: impl IntoIterator<Item = (String, Size)>) -> Vec<(String, Size, usize)> {
        let used: Vec<_> = {
            let mut state = self.state();
            state.used.retain(|(_, _, at)| at.elapsed() < IN_USE);
            state.used.iter().map(|(image, size, _)| (image.clone(), *size)).collect()
        };
        share_out(first.into_iter().chain(used), self.target, self.max)
    }

    /// Removes from the account, and announces to go, every machine that is dead or more than `wanted`.
    pub(crate) fn surplus(&self, wanted: &[(Kind, usize)]) -> Vec<Machine> {
        let mut left = wanted.to_vec();
        let mut state = self.state();
        let (keep, go): (Vec<_>, Vec<_>) = std::mem::take(&mut state.waiting).into_iter().partition(|machine| {
            let room = left.iter_mut().find(|(kind, room)| *kind == machine.kind && *room > 0);
            match room.filter(|_| !machine.guest.is_closed()) {
                Some((_, room)) => {
                    *room -= 1;
                    true
                }
                None => false,
            }
        });
        state.waiting = keep;
        state.coming.extend(go.iter().map(|machine| machine.host_index));
        go
    }

    /// Says that a machine of this kind could not be made. Others are made meanwhile.
    pub(crate) fn failed(&self, kind: &Kind) {
        self.state().failed.push((kind.clone(), Instant::now()));
    }

    /// Lets everything be tried again.
    pub(crate) fn forget_failures(&self) {
        self.state().failed.clear();
    }

    /// The first kind of which there are too few and that `can_be` made now.
    pub(crate) fn lacks<'a>(&self, wanted: &'a [(Kind, usize)], can_be: impl Fn(&Kind) -> bool) -> Option<&'a Kind> {
        let mut state = self.state();
        state.failed.retain(|(_, at)| at.elapsed() < RETRY_AFTER);
        let has_failed = |kind: &Kind| state.failed.iter().any(|(failed, _)| failed == kind);
        let count = |kind: &Kind| state.waiting.iter().filter(|machine| machine.kind == *kind).count();
        wanted
            .iter()
            .map(|(kind, share)| (kind, *share))
            .find(|(kind, share)| count(kind) < *share && !has_failed(kind) && can_be(kind))
            .map(|(kind, _)| kind)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives each kind `target` machines, in order, until `max` are given.
fn share_out(kinds: impl IntoIterator<Item = (String, Size)>, target: usize, max: usize) -> Vec<(String, Size, usize)> {
    let (mut shares, mut left) = (Vec::<(String, Size, usize)>::new(), max);
    for (image, size) in kinds {
        if left == 0 {
            break;
        }
        if shares.iter().any(|(known, of, _)| (known, of) == (&image, &size)) {
            continue;
        }
        let share = target.min(left);
        left -= share;
        shares.push((image, size, share));
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Size = Size { vcpus: 1, mem_mib: 256 };
    const LARGE: Size = Size { vcpus: 2, mem_mib: 512 };

    #[test]
    fn the_first_kinds_get_their_share_and_nobody_more_than_there_are() {
        let kinds = [("a", SMALL), ("b", SMALL), ("a", SMALL), ("a", LARGE)].map(|(image, size)| (image.into(), size));
        let shares = |target, max| {
            let shares = share_out(kinds.clone(), target, max);
            shares.iter().map(|(image, size, share)| format!("{image} {size} {share}")).collect::<Vec<_>>()
        };
        assert_eq!(shares(1, 4), ["a 1x256 1", "b 1x256 1", "a 2x512 1"]);
        assert_eq!(shares(3, 4), ["a 1x256 3", "b 1x256 1"]);
        assert_eq!(shares(5, 2), ["a 1x256 2"]);
    }

    #[test]
    fn a_kind_that_cannot_be_made_holds_up_no_other() {
        let pool = Pool::of(true, 1, 4);
        let kind = |image: &str| {
            let key = Key::parse("0123456789abcdef0123456789abcdef").unwrap();
            Kind { image_id: image.into(), size: SMALL, key, disk_bytes: 1 << 29 }
        };
        let wanted = [(kind("a"), 1), (kind("b"), 1)];
        let lacks = || pool.lacks(&wanted, |_| true).map(|kind| kind.image_id.as_str());
        assert_eq!(lacks(), Some("a"));
        pool.failed(&wanted[0].0);
        assert_eq!(lacks(), Some("b"));
        pool.failed(&wanted[1].0);
        assert_eq!(lacks(), None);
        pool.forget_failures();
        assert_eq!(lacks(), Some("a"));
    }
}
