//! Making seeds: one at a time, when nobody is starting a VM, by a machine that yields to all others.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rds_image::ImageError;
use rds_image::disk::{self, CloneMode};
use rds_vmm::hypervisor::{Log, SnapshotDir};
use rds_vmm::{MachineSpec, VmId};
use tokio::task::spawn_blocking;
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::desk::{Failure, Wish};
use super::digest::Stamp;
use super::key::Key;
use super::room::{self, Standing};
use super::{Seed, Seeds, Size, shelf};
use crate::clock;
use crate::error::{Chain, Error, Result};
use crate::hypervisor::machines_under;
use crate::images::ImageFiles;
use crate::metrics;
use crate::storage::make_private_dir;

/// How long a build waits for others' starts to be over. When they never are, it begins nevertheless: it yields.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the guest may take to listen, with what others leave of the processors.
const BOOT_LIMIT: Duration = Duration::from_secs(300);

/// Between two questions whether it listens.
const POLL: Duration = Duration::from_millis(50);

/// Left to the guest after it listens, so that what a kernel still does then is not done again by every VM.
const SETTLE: Duration = Duration::from_millis(500);

/// Size of the disk that the guest sees: not below that of any VM's, since a guest learns of a smaller one only a moment
/// after it was started.
pub(crate) const DISK_BYTES: u64 = 1 << 40;

/// Size of the filesystem on it, in which the guest rehearses.
const FILESYSTEM_BYTES: u64 = 64 << 20;

/// Room that is left to others, beyond a seed's own memory.
const SPARE_BYTES: u64 = 1 << 30;

/// Between two looks whether there is room for a seed that there was none for.
const ROOM_TICK: Duration = Duration::from_secs(15);

/// Between two looks for seeds that nobody uses.
const UNUSED_TICK: Duration = Duration::from_secs(3600);

/// Why a seed is not made when the disk is full, for clients.
const NO_ROOM: &str = "There is not enough room on the disk";

/// What kept a seed from being made.
struct Fault {
    /// For clients.
    why: &'static str,
    error: Error,
}

/// Why something failed, for clients and for the log.
fn fault<E: Into<Box<dyn std::error::Error + Send + Sync>>>(why: &'static str) -> impl FnOnce(E) -> Fault {
    move |error| Fault { why, error: Error::internal(why, error) }
}

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

    /// Ends the machine of a build and removes what it wrote. All of them run as the same user.
    pub(super) async fn clear_workshop(&self) -> Result<()> {
        let workshop = self.shelf.workshop();
        let machines = machines_under(&*self.hypervisor, &workshop).await;
        for id in machines.map_err(|error| Error::internal("cannot look for the machine of a seed", error))? {
            let killed = self.hypervisor.kill(&workshop.join(id.to_string())).await;
            killed.map_err(|error| Error::internal("cannot end the machine of a seed", error))?;
        }
        self.egress.detach_nobody().await?;
        shelf::remove(&workshop).map_err(|error| Error::internal("cannot remove what a seed was made of", error))
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
        let mut wishes: Vec<Wish> = images.iter().map(|image| wish(&image.id, template)).collect();
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
                wishes.push(wish(&seed.image_id, seed.size));
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

    /// Makes one seed; `None` if it is no longer wanted, or is there already.
    async fn fulfil(&self, wish: &Wish) -> Option<Result<Seed, Failure>> {
        self.quiet(PATIENCE).await;
        let image = self.image(&wish.image_id).await?;
        let begun = Instant::now();
        let (key, built) = match self.key_of(&image, wish.size).await {
            Err(fault) => (None, Err(fault)),
            Ok((key, _)) if self.desk().ready.contains_key(&key) => return None,
            Ok((key, initramfs)) => {
                let built = tokio::select! {
                    built = self.build(&image, &initramfs, &key, wish.size) => built,
                    () = self.outdated(&wish.image_id, wish.size, &key) => return None,
                };
                (Some(key), built)
            }
        };
        Some(built.inspect(|seed| {
            let (took, bytes) = (begun.elapsed().as_millis(), seed.bytes);
            tracing::info!(image = wish.image_id, size = %wish.size, took_ms = took, bytes, "made a seed");
        }).map_err(|Fault { why, error }| {
            tracing::warn!(image = wish.image_id, size = %wish.size, error = %Chain(&error), "cannot make a seed");
            let why = if matches!(error, Error::Full(_)) { NO_ROOM } else { why };
            Failure { key, at: clock::now_ms(), instant: Instant::now(), why }
        }))
    }

    async fn build(&self, image: &ImageFiles, initramfs: &Path, key: &Key, size: Size) -> Result<Seed, Fault> {
        self.make_room(size)?;
        let id = VmId::new();
        let dir = self.shelf.workshop().join(id.to_string());
        let disk = dir.join("disk");
        make_private_dir(&dir).map_err(fault("The seed's directory could not be made"))?;
        let (templates, to) = (self.storage.templates_dir(), disk.clone());
        spawn_blocking(move || make_disk(&templates, &to))
            .await
            .map_err(fault("The seed's disk could not be made"))?
            .map_err(fault("The seed's disk could not be made"))?;
        let user = rds_vmm::privileges::has_users().then_some(self.user);
        let nic =
            self.egress.attach_nobody(user).await.map_err(fault("The seed's network interface could not be made"))?;
        let spec = MachineSpec {
            id,
            vcpus: size.vcpus,
            mem_mib: size.mem_mib,
            kernel: image.kernel.clone(),
            initramfs: initramfs.to_owned(),
            rootfs: image.rootfs.clone(),
            disk,
            disk_bytes: FILESYSTEM_BYTES,
            dir: dir.clone(),
            user,
            nic,
            rehearse: true,
            background: true,
        };
        self.hypervisor.boot(&spec).await.map_err(fault("The image's machine could not be started"))?;
        self.listening(&dir).await?;
        sleep(SETTLE).await;
        let saved = fault("The machine's memory could not be saved");
        let draft = self.shelf.draft(key).map_err(fault("The seed's directory could not be made"))?;
        self.save(&dir, &draft).await.map_err(saved)?;
        let (shelf, key, image_id) = (self.shelf.clone(), key.clone(), image.id.clone());
        let published = spawn_blocking(move || {
            let seed = shelf.publish(&draft, &key, &image_id, size)?;
            Ok((Stamp::of(&seed.dir.0)?, seed))
        });
        let published = published.await.map_err(io::Error::other).flatten();
        let (stamp, seed): (Stamp, Seed) = published.map_err(fault("The seed could not be written down"))?;
        self.sound.lock().await.insert(seed.key.clone(), stamp);
        Ok(seed)
    }

    async fn save(&self, dir: &Path, draft: &SnapshotDir) -> Result<(), rds_vmm::HypervisorError> {
        self.hypervisor.pause(dir).await?;
        self.hypervisor.snapshot(dir, draft).await
    }

    /// Waits until the guest's agent has opened its channel.
    async fn listening(&self, dir: &Path) -> Result<(), Fault> {
        let why = "The image does not come up: its agent was never heard of";
        let console = || {
            let end = rds_vmm::log_end(&self.hypervisor.log_file(dir, Log::Serial), CONSOLE_BYTES);
            // One line of the log, whatever the guest writes.
            format!("its console ended with {:?}", String::from_utf8_lossy(&end.unwrap_or_default()).trim())
        };
        let listens = async {
            loop {
                match self.hypervisor.is_listening(dir).await {
                    Ok(true) => return Ok(()),
                    Ok(false) => sleep(POLL).await,
                    Err(error) => return Err(format!("{error}; {}", console())),
                }
            }
        };
        tokio::select! {
            listens = timeout(BOOT_LIMIT, listens) => listens.map_err(|_| console()).flatten(),
            () = self.hypervisor.wait(dir) => Err(console()),
        }
        .map_err(fault(why))
    }

    /// Removes seeds that have not been used for the longest time, if that makes room for one more.
    fn make_room(&self, size: Size) -> Result<(), Fault> {
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

    /// Returns when the files that a seed is being made from are no longer the image's.
    async fn outdated(&self, image_id: &str, size: Size, key: &Key) {
        let mut changes = self.images.changes();
        while changes.changed().await.is_ok() {
            match self.image(image_id).await {
                Some(image) if self.key_of(&image, size).await.is_ok_and(|(now, _)| now == *key) => {}
                _ => return,
            }
        }
    }

    async fn image(&self, id: &str) -> Option<ImageFiles> {
        self.images.all_complete().await.ok()?.into_iter().find(|image| image.id == id)
    }

    async fn key_of(&self, image: &ImageFiles, size: Size) -> Result<(Key, std::path::PathBuf), Fault> {
        let initramfs = self.initramfs.path(&self.storage, image).await;
        let initramfs = initramfs.map_err(|error| Fault { why: "The guest's agent could not be packed", error })?;
        let key = Key::of(image, &initramfs, &self.fingerprint, size);
        Ok((key.map_err(fault("The image's files cannot be read"))?, initramfs))
    }
}

/// Bytes that must be free for a seed to be begun.
fn needed(size: Size) -> u64 {
    (u64::from(size.mem_mib) << 20) + SPARE_BYTES
}

fn make_disk(templates: &Path, to: &Path) -> Result<(), ImageError> {
    disk::clone_sparse(&disk::template(templates, FILESYSTEM_BYTES)?, to, CloneMode::Auto)?;
    let grown = File::options().write(true).open(to).and_then(|disk| disk.set_len(DISK_BYTES));
    grown.map_err(|source| ImageError::Io { what: "make room for a disk".into(), source })
}

/// Bytes of a guest's console that an error repeats.
const CONSOLE_BYTES: u64 = 1500;

fn wish(image_id: &str, size: Size) -> Wish {
    Wish { image_id: image_id.to_owned(), size }
}
