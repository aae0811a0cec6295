//! Where a runtime's worker is, until nobody has called it for a while.
//!
//! Must not know what a worker is: only when it was used.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// How long a worker without calls is kept. A call takes less.
const IDLE: Duration = Duration::from_secs(300);

/// What a slot asks of a worker.
pub(super) trait Used {
    /// When it was last given a call, or else started.
    fn used(&self) -> Instant;
}

/// A place for one worker.
pub(super) struct Slot<W> {
    /// Held while a worker is started and loads its modules: one does at a time, however often they change.
    pub(super) starting: Arc<Mutex<()>>,
    pub(super) current: RefCell<Option<Rc<W>>>,
}

impl<W> Default for Slot<W> {
    fn default() -> Self {
        Self { starting: Arc::default(), current: RefCell::default() }
    }
}

impl<W> Slot<W> {
    /// Whether there is no worker, nor one that is being started: that one loads code that may change meanwhile.
    pub(super) fn is_unused(&self) -> bool {
        self.current.borrow().is_none() && self.starting.try_lock().is_ok()
    }
}

impl<W: Used> Slot<W> {
    /// Takes the worker that is there now away when it has had no call for a while. False if it ended before.
    pub(super) async fn retire(&self) -> bool {
        let Some(started) = self.current.borrow().as_ref().map(Rc::downgrade) else { return false };
        loop {
            let Some(last) = started.upgrade().map(|worker| worker.used()) else { return false };
            if last + IDLE <= Instant::now() {
                self.current.borrow_mut().take_if(|worker| Rc::downgrade(worker).ptr_eq(&started));
                return true;
            }
            sleep_until(last + IDLE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::{advance, sleep};

    use super::*;

    struct Worker(Cell<Instant>);

    impl Worker {
        fn new() -> Rc<Self> {
            Rc::new(Self(Cell::new(Instant::now())))
        }
    }

    impl Used for Worker {
        fn used(&self) -> Instant {
            self.0.get()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_ends_when_nobody_has_called_it_for_a_while() {
        let (slot, begun) = (Slot::default(), Instant::now());
        assert!(!slot.retire().await, "there is none");
        let worker = Worker::new();
        slot.current.replace(Some(Rc::clone(&worker)));
        let used = async {
            for _ in 0..4 {
                sleep(IDLE - Duration::from_secs(1)).await;
                assert!(!slot.is_unused(), "a worker that is called now and then is taken away");
                worker.0.set(Instant::now());
            }
        };
        let (retired, ()) = tokio::join!(slot.retire(), used);
        assert!(retired && slot.is_unused());
        assert_eq!(begun.elapsed().as_secs(), 4 * (IDLE.as_secs() - 1) + IDLE.as_secs());
        assert_eq!(Rc::strong_count(&worker), 1, "it is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_worker_that_was_there_is_taken_away() {
        let slot = Slot::default();
        slot.current.replace(Some(Worker::new()));
        let replaced = async {
            advance(IDLE / 2).await;
            slot.current.replace(Some(Worker::new()));
        };
        let (retired, ()) = tokio::join!(slot.retire(), replaced);
        assert!(!retired && !slot.is_unused(), "it ended when it was replaced");

        let first = Worker::new();
        slot.current.replace(Some(Rc::clone(&first)));
        // Calls that it has been given keep one that was replaced.
        let replaced = async {
            advance(IDLE / 2).await;
            slot.current.replace(Some(Worker::new()));
        };
        let (retired, ()) = tokio::join!(slot.retire(), replaced);
        assert!(retired && !slot.is_unused(), "its successor was taken away");

        slot.current.take();
        let turn = Arc::clone(&slot.starting).lock_owned().await;
        assert!(!slot.is_unused(), "one is being started");
        drop(turn);
        assert!(slot.is_unused());
    }
}
