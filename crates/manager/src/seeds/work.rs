//! Which seeds are made and removed, and when: one is made at a time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{interval, sleep};
use tokio_util::sync::CancellationToken;

use super::build::{Fault, NO_ROOM, fault};
use super::desk::Wish;
use super::room::{self, Standing};
use super::{Seed, Seeds, Size, shelf};
use crate::error::Chain;
use crate::metrics;

/// Room that is left to others, beyond a seed's own memory.
const SPARE_BYTES: u64 = 1 << 30;

/// Between two looks whether there is room for a seed that there was none for.
const ROOM_TICK: Duration = Duration::from_secs(15);

/// Between two looks for seeds that nobody uses.
const UNUSED_TICK: Duration = Duration::from_secs(3600);

impl Seeds {
    /// Makes what is missing and removes what is stale, until the server ends.
    pub(super) async fn work(self: Arc<Self>, shutdown: CancellationToken) {
        let mut changes = self.images.changes();
        changes.mark_changed();
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = self.check_all() => {}
        }
        let mut unused = interval(UNUSED_TICK);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                Ok(()) = changes.changed() => self.reconcile().await,
                () = self.wishes.notified() => {}
                _ = unused.tick() => self.remove_unused(),
                () = sleep(ROOM_TICK) => self.retry_with_room(),
            }
            // What images are now decides what is worth making.
            while !changes.has_changed().unwrap_or(false) {
                let Some(wish) = self.desk().next() else { break };
                let outcome = tokio::select! {
                    outcome = self.fulfil(&wish) => outcome,
                    () = shutdown.cancelled() => None,
                };
                if let Err(error) = self.clear_workshop().await {
                    tracing::warn!(error = %Chain(&error), "cannot clear up after a seed");
                }
                metrics::seed(match &outcome {
                    Some(Ok(_)) => "ok",
                    Some(Err(_)) => "failed",
                    None => "abandoned",
                });
                self.desk().done(&wish, outcome);
                if shutdown.is_cancelled() {
                    return;
                }
            }
        }
    }

    /// Reads every seed that an earlier server left, so that the first VM need not wait for that.
    async fn check_all(&self) {
        for seed in self.list() {
            if let Err(error) = self.check(&seed).await {
                tracing::warn!(%error, key = %seed.key, "removing a seed that is not as it was written");
                self.discard(&seed);
            }
        }
    }

    /// Wishes again for what was not made for want of room, if there is some now.
    fn retry_with_room(&self) {
        let failed: Vec<Wish> = {
            let desk = self.desk();
            let roomless = desk.failed.iter().filter(|(_, failure)| failure.why == NO_ROOM);
            roomless.map(|(wish, _)| wish.clone()).collect()
        };
        for wish in failed {
            if self.shelf.free_bytes().is_ok_and(|free| free >= needed(wish.size)) {
                self.desk().add(wish);
            }
        }
    }

    /// Removes every seed that fits no image, or that nobody needs, and wishes for those that are missing.
    async fn reconcile(&self) {
        let Some(template) = self.template else { return };
        let images = match self.images.all_complete().await {
            Ok(images) => images,
            Err(error) => return tracing::error!(error = %Chain(&error), "cannot look for images without a seed"),
        };
        self.remove_unused();
        let seeds = self.list();
        let mut wishes: Vec<Wish> = images.iter().map(|image| Wish::new(&image.id, template)).collect();
        for seed in seeds {
            let image = images.iter().find(|image| image.id == seed.image_id);
            let fits = match image {
                Some(image) => self.key_of(image, seed.size).await.is_ok_and(|(key, _)| key == seed.key),
                None => false,
            };
            if fits {
                wishes.retain(|wish| (&wish.image_id, wish.size) != (&seed.image_id, seed.size));
                continue;
            }
            tracing::info!(key = %seed.key, image = seed.image_id, size = %seed.size, "removing a seed that is not needed");
            self.drop_seed(&seed);
            if image.is_some() && seed.size != template {
                wishes.push(Wish::new(&seed.image_id, seed.size));
            }
        }
        for wish in wishes {
            let image = images.iter().find(|image| image.id == wish.image_id);
            let key = match image {
                Some(image) => self.key_of(image, wish.size).await.ok().map(|(key, _)| key),
                None => None,
            };
            let mut desk = self.desk();
            // The same files would fail again.
            if key.is_none() || desk.failed.get(&wish).is_none_or(|failure| failure.key != key) {
                desk.add(wish);
            }
        }
    }

    /// Removes seeds that have not been used for the longest time, if that makes room for one more.
    pub(super) fn make_room(&self, size: Size) -> Result<(), Fault> {
        let free = || self.shelf.free_bytes().map_err(fault("The room for seeds could not be measured"));
        let (chose, needed) = (self.template != Some(size), needed(size));
        for seed in room::to_remove(self.standings(), chose, free()?, needed).unwrap_or_default() {
            tracing::info!(key = %seed.key, image = seed.image_id, size = %seed.size, "removing a seed that makes room");
            self.drop_seed(&seed);
        }
        // What was removed may have shared its blocks with something.
        let free = free()?;
        if free >= needed {
            return Ok(());
        }
        let lack = format!("{free} bytes are free, {needed} needed");
        Err(fault(NO_ROOM)(io::Error::new(io::ErrorKind::StorageFull, lack)))
    }

    /// Removes the seeds that nobody needs.
    fn remove_unused(&self) {
        for Standing { seed, .. } in self.standings().into_iter().filter(Standing::is_unused) {
            tracing::info!(key = %seed.key, image = seed.image_id, size = %seed.size, "removing a seed that nobody uses");
            self.drop_seed(&seed);
        }
    }

    fn standings(&self) -> Vec<Standing<Seed>> {
        let standing = |seed: Seed| Standing {
            chosen: self.template != Some(seed.size),
            idle: shelf::idle(&seed),
            bytes: seed.bytes,
            seed,
        };
        self.list().into_iter().map(standing).collect()
    }

    fn drop_seed(&self, seed: &Seed) {
        self.desk().ready.remove(&seed.key);
        self.remove(seed);
    }
}

/// Bytes that must be free for a seed to be begun.
fn needed(size: Size) -> u64 {
    (u64::from(size.mem_mib) << 20) + SPARE_BYTES
}
