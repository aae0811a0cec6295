//! Who brings up a VM now, and who waits.
//!
//! To bring one up is work for a processor. Many at once finish no sooner than one after the other, each is late, and
//! together they do more: emulated on two processors, fifty at once took twice as long as four at a time.

use std::num::NonZero;
use std::thread::available_parallelism;

use tokio::sync::{Semaphore, SemaphorePermit};

/// VMs that are brought up at once, for each processor: while one waits for its disk, another has something to do.
const FOR_EACH_PROCESSOR: usize = 2;

/// The turns that there are. They are given in the order in which they are asked for.
#[derive(Debug)]
pub(super) struct Turns(Semaphore);

/// It is the holder's turn as long as this lives.
pub(super) type Turn<'a> = SemaphorePermit<'a>;

impl Turns {
    /// As many as suit this machine.
    pub(super) fn new() -> Self {
        Self(Semaphore::new(FOR_EACH_PROCESSOR * available_parallelism().map_or(1, NonZero::get)))
    }

    /// Waits for a turn.
    pub(super) async fn take(&self) -> Turn<'_> {
        self.0.acquire().await.expect("turns never end")
    }
}
