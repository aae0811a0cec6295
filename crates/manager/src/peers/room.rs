//! Room for results on their way to consumers. Each is held until its consumer has it, and a consumer may take its time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rds_vmm::VmId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// KiB of the results of one consumer's calls. Each has 4 MiB at most; further ones stay with their providers.
const KIB: u32 = 16 * 1024;

/// Bytes of a result that needs no room: those of all calls that a consumer may make at once are less than one large result.
const SMALL: usize = 16 * 1024;

/// The room of all consumers.
#[derive(Debug, Default)]
pub(super) struct Rooms(Mutex<HashMap<VmId, Arc<Semaphore>>>);

/// Room that a result has until this is dropped.
#[derive(Debug, Default)]
pub(super) struct Room {
    _kib: Option<OwnedSemaphorePermit>,
}

impl Rooms {
    /// Waits for room for so many bytes.
    pub(super) fn take(&self, consumer: VmId, bytes: usize) -> impl Future<Output = Room> + use<> {
        let room = (bytes > SMALL).then(|| {
            let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(rooms.entry(consumer).or_insert_with(|| Arc::new(Semaphore::new(KIB as usize))))
        });
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(KIB).min(KIB);
        async move {
            match room {
                Some(room) => Room { _kib: room.acquire_many_owned(kib).await.ok() },
                None => Room::default(),
            }
        }
    }

    /// Forgets a VM.
    pub(super) fn forget(&self, consumer: VmId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&consumer);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn large_results_wait_for_those_before_and_small_ones_do_not() {
        let (rooms, one, other) = (Rooms::default(), VmId::new(), VmId::new());
        let take = |vm, bytes| rooms.take(vm, bytes).now_or_never();
        let held: Vec<_> = (0..64).filter_map(|_| take(one, 4 << 20)).collect();
        assert_eq!(held.len(), 4);
        assert!(take(one, SMALL + 1).is_none() && take(one, SMALL).is_some());
        assert!(take(other, usize::MAX).is_some(), "one consumer takes nothing of another's");
        drop(held);
        assert!(take(one, 16 << 20).is_some());
    }
}
