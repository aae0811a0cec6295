//! What the calls of one consumer may take of the server: how many there are at once, how much of their results is on its
//! way, and how many that come to nothing are looked at and recorded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rds_vmm::VmId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::failure::CallFailure;

/// Calls of one consumer at once, by whichever door.
const CALLS: usize = 64;

/// How long a call waits for its place: one that was just given up may not be out of it yet.
const PLACE_LIMIT: Duration = Duration::from_secs(1);

/// KiB of the results of one consumer's calls. Each has 4 MiB at most; further ones stay with their providers.
const KIB: u32 = 16 * 1024;

/// Bytes of a result that needs no room: those of all calls that a consumer may make at once are less than one large result.
const SMALL: usize = 16 * 1024;

/// Calls without an answer of the provider's code, at once; then one a second. Each takes a place in the audit log for ever, and
/// costs a consumer nothing.
const FUTILE: u64 = 1000;

/// The room of all consumers.
#[derive(Debug, Default)]
pub(super) struct Rooms(Mutex<HashMap<VmId, Arc<Share>>>);

/// That of one.
#[derive(Debug)]
struct Share {
    calls: Arc<Semaphore>,
    kib: Arc<Semaphore>,
    chances: Mutex<Chances>,
}

/// How many more calls may come to nothing. A call takes a chance at its beginning, or many at once would share one, and gives it
/// back when it is answered, which no limiter of a library can do.
#[derive(Debug)]
struct Chances {
    left: u64,
    /// Counted up to here.
    at: Instant,
}

/// The place of a call that is under way, until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    share: Arc<Share>,
    _call: OwnedSemaphorePermit,
}

/// Room that a result has until this is dropped.
#[derive(Debug, Default)]
pub(super) struct Room {
    _kib: Option<OwnedSemaphorePermit>,
}

impl Rooms {
    /// A place for one more call, which is refused if there are too many, or too many came to nothing.
    pub(super) async fn enter(&self, consumer: VmId) -> Result<Place, CallFailure> {
        let share = self.share(consumer);
        let Ok(Ok(call)) = timeout(PLACE_LIMIT, Arc::clone(&share.calls).acquire_owned()).await else {
            return Err(CallFailure::too_many(PLACE_LIMIT, "Too many calls of this VM are under way"));
        };
        let refused = |wait| CallFailure::too_many(wait, "Too many calls of this VM were refused or failed");
        share.chances().take(Instant::now()).map_err(refused)?;
        Ok(Place { share, _call: call })
    }

    /// Waits for room for so many bytes.
    pub(super) fn take(&self, consumer: VmId, bytes: usize) -> impl Future<Output = Room> + use<> {
        let room = (bytes > SMALL).then(|| Arc::clone(&self.share(consumer).kib));
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
        self.lock().remove(&consumer);
    }

    fn share(&self, consumer: VmId) -> Arc<Share> {
        Arc::clone(self.lock().entry(consumer).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<VmId, Arc<Share>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Share {
    fn default() -> Self {
        Self {
            calls: Arc::new(Semaphore::new(CALLS)),
            kib: Arc::new(Semaphore::new(KIB as usize)),
            chances: Mutex::new(Chances { left: FUTILE, at: Instant::now() }),
        }
    }
}

impl Share {
    fn chances(&self) -> MutexGuard<'_, Chances> {
        self.chances.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Chances {
    /// Takes one, or tells how long there will be none.
    fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let new = now.saturating_duration_since(self.at).as_secs();
        self.at += Duration::from_secs(new);
        self.left = (self.left + new).min(FUTILE);
        let next = self.at + Duration::from_secs(1);
        self.left = self.left.checked_sub(1).ok_or_else(|| next.saturating_duration_since(now))?;
        Ok(())
    }
}

impl Place {
    /// The provider's code has answered, or the call has no record: its chance is given back.
    pub(super) fn costs_nothing(&self) {
        let mut chances = self.share.chances();
        chances.left = (chances.left + 1).min(FUTILE);
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

    #[tokio::test(start_paused = true)]
    async fn a_consumer_makes_so_many_calls_at_once() {
        let (rooms, one, other) = (Rooms::default(), VmId::new(), VmId::new());
        let mut under_way = Vec::new();
        for _ in 0..CALLS {
            under_way.push(rooms.enter(one).await.unwrap());
        }
        let refused = rooms.enter(one).await.unwrap_err();
        assert_eq!((refused.status, refused.body.code), (429, "too_many_requests"));
        assert!(rooms.enter(other).await.is_ok());
        under_way.pop();
        assert!(rooms.enter(one).await.is_ok());
    }

    #[tokio::test]
    async fn calls_that_come_to_nothing_shut_a_consumer_out_for_a_while() {
        let (rooms, one, other) = (Rooms::default(), VmId::new(), VmId::new());
        for _ in 0..2 * FUTILE {
            rooms.enter(one).await.unwrap().costs_nothing();
        }
        for _ in 0..FUTILE {
            rooms.enter(one).await.unwrap();
        }
        let refused = rooms.enter(one).await.unwrap_err();
        assert_eq!((refused.status, refused.body.code), (429, "too_many_requests"));
        assert!(refused.retry_after.is_some_and(|wait| wait <= Duration::from_secs(1)), "{refused:?}");
        assert!(rooms.enter(other).await.is_ok());
    }

    #[test]
    fn calls_at_once_do_not_share_a_chance() {
        let begun = Instant::now();
        let mut chances = Chances { left: 0, at: begun };
        assert_eq!(chances.take(begun + Duration::from_millis(400)), Err(Duration::from_millis(600)));
        let later = begun + Duration::from_millis(3500);
        let taken: Vec<_> = (0..64).filter_map(|_| chances.take(later).ok()).collect();
        assert_eq!(taken.len(), 3);
        assert_eq!(chances.take(later), Err(Duration::from_millis(500)));
        chances.take(begun + Duration::from_secs(1 << 20)).unwrap();
        assert_eq!(chances.left, FUTILE - 1);
    }
}
