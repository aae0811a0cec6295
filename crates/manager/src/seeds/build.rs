//! Making a seed: when nobody is starting a VM, by a machine that yields to all others.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rds_image::ImageError;
use rds_image::disk::{self, CloneMode};
use rds_vmm::hypervisor::{Log, MAX_BOOTS, SnapshotDir};
use rds_vmm::{MachineSpec, VmId};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::desk::{Failure, Wish};
use super::digest::Stamp;
use super::key::Key;
use super::{Seed, Seeds, Size, shelf};
use crate::clock;
use crate::error::{Chain, Error, Result};
use crate::hypervisor::machines_under;
use crate::images::ImageFiles;
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

/// Bytes of a guest's console that an error repeats.
const CONSOLE_BYTES: u64 = 1500;

/// Why a seed is not made when the disk is full, for clients.
pub(super) const NO_ROOM: &str = "There is not enough room on the disk";

/// What kept a seed from being made.
pub(super) struct Fault {
    /// For clients.
    why: &'static str,
    error: Error,
}

/// Why something failed, for clients and for the log.
pub(super) fn fault<E: Into<Box<dyn std::error::Error + Send + Sync>>>(why: &'static str) -> impl FnOnce(E) -> Fault {
    move |error| Fault { why, error: Error::internal(why, error) }
}

impl Seeds {
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

    /// Makes one seed; `None` if it is no longer wanted, or is there already.
    pub(super) async fn fulfil(&self, wish: &Wish) -> Option<Result<Seed, Failure>> {
        self.quiet(PATIENCE).await;
        let image = self.image(&wish.image_id).await?;
        let begun = Instant::now();
        let (key, built) = match self.key_of(&image, wish.size).await {
            Err(fault) => (None, Err(fault)),
            Ok((key, _)) if self.desk().ready.contains_key(&key) => return None,
            Ok((key, initramfs)) => {
                let saved = tokio::select! {
                    saved = self.build(&image, &initramfs, &key, wish.size) => saved,
                    () = self.outdated(&wish.image_id, wish.size, &key) => return None,
                };
                // What publishes it cannot be stopped, and nobody would know of the seed. One that is outdated by then is
                // removed as every other is.
                let built = match saved {
                    Ok(draft) => self.publish(draft, &key, wish).await,
                    Err(fault) => Err(fault),
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

    /// Gives the snapshot that is to become the seed.
    async fn build(&self, image: &ImageFiles, initramfs: &Path, key: &Key, size: Size) -> Result<SnapshotDir, Fault> {
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
        let (begun, mut boots) = (Instant::now(), 0..MAX_BOOTS);
        loop {
            boots.next();
            self.hypervisor.boot(&spec).await.map_err(fault("The image's machine could not be started"))?;
            let listens = self.listening(&dir).await;
            let may_boot = !boots.is_empty() && begun.elapsed() < BOOT_LIMIT;
            match listens {
                Err(_) if may_boot && self.hypervisor.was_mistimed(&dir) => {
                    tracing::warn!(image = image.id, %size, "a machine is booted again, since its kernel measured its timer wrong");
                    self.hypervisor.kill(&dir).await.map_err(fault("The image's machine could not be ended"))?;
                }
                listens => break listens?,
            }
        }
        sleep(SETTLE).await;
        let saved = fault("The machine's memory could not be saved");
        let draft = self.shelf.draft(key).map_err(fault("The seed's directory could not be made"))?;
        self.save(&dir, &draft).await.map_err(saved)?;
        Ok(draft)
    }

    async fn publish(&self, draft: SnapshotDir, key: &Key, wish: &Wish) -> Result<Seed, Fault> {
        let (shelf, key, wish) = (self.shelf.clone(), key.clone(), wish.clone());
        let published = spawn_blocking(move || {
            let seed = shelf.publish(&draft, &key, &wish.image_id, wish.size)?;
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

    pub(super) async fn key_of(&self, image: &ImageFiles, size: Size) -> Result<(Key, PathBuf), Fault> {
        let initramfs = self.initramfs.path(&self.storage, image).await;
        let initramfs = initramfs.map_err(|error| Fault { why: "The guest's agent could not be packed", error })?;
        let key = Key::of(image, &initramfs, &self.fingerprint, size);
        Ok((key.map_err(fault("The image's files cannot be read"))?, initramfs))
    }
}

fn make_disk(templates: &Path, to: &Path) -> Result<(), ImageError> {
    disk::clone_sparse(&disk::template(templates, FILESYSTEM_BYTES)?, to, CloneMode::Auto)?;
    let grown = File::options().write(true).open(to).and_then(|disk| disk.set_len(DISK_BYTES));
    grown.map_err(|source| ImageError::Io { what: "make room for a disk".into(), source })
}
