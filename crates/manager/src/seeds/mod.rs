//! Seeds: memory and devices of a booted, idle machine that nobody has told anything yet. VMs start from them.
//!
//! A seed fits one image, one size, one agent and one monitor; its [`Key`] says which. Whatever goes wrong with one, the
//! VM is booted instead. This module owns the seeds' directory and the one machine at a time that makes them; it must not
//! know VMs, only that somebody is making some.

mod build;
mod desk;
mod digest;
mod key;
mod room;
mod shelf;
mod work;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rds_vmm::Hypervisor;
use rds_vmm::hypervisor::SnapshotDir;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, StorageConfig};
use crate::egress::Egress;
use crate::error::{Error, Result};
use crate::hypervisor::MonitorUsers;
use crate::images::{ImageFiles, Images};
use crate::initramfs::Initramfs;
use crate::metrics;

pub(crate) use build::DISK_BYTES;
use desk::Desk;
use digest::Stamp;
pub(crate) use key::Key;

use shelf::Shelf;

/// How long the end of the server waits for a build to be cut short.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// What counts as a pause between the starts of VMs.
const MOMENT: Duration = Duration::from_millis(100);

/// What a machine is made of besides its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Size {
    /// Virtual CPUs.
    pub vcpus: u8,
    /// Memory in MiB.
    pub mem_mib: u32,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.vcpus, self.mem_mib)
    }
}

/// A seed that is complete.
#[derive(Debug, Clone)]
pub struct Seed {
    key: Key,
    /// Its files.
    pub(crate) dir: SnapshotDir,
    /// Of which image.
    pub image_id: String,
    /// Of which size.
    pub size: Size,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// What it takes on the disk.
    pub bytes: u64,
    /// Of its files; see [`digest`].
    digest: String,
}

/// How it is about an image's seed of the size that is made by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// There is none and none is on its way.
    None,
    /// It is being made, or is going to be.
    Building,
    /// It is there.
    Ready {
        /// Milliseconds since 1970.
        at: i64,
        /// What it takes on the disk.
        bytes: u64,
    },
    /// It could not be made.
    Failed {
        /// Milliseconds since 1970.
        at: i64,
        /// For clients.
        why: String,
    },
}

/// A seed that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// Of which image.
    pub image_id: String,
    /// Of which size.
    pub size: Size,
    /// Since when it is being made or known to fail, in milliseconds since 1970.
    pub at: i64,
    /// Why it could not be made, for clients; `None` while it is being made, or going to be.
    pub why: Option<&'static str>,
}

/// The service.
#[derive(Debug)]
pub struct Seeds {
    hypervisor: Arc<dyn Hypervisor>,
    images: Arc<Images>,
    egress: Arc<Egress>,
    initramfs: Arc<Initramfs>,
    storage: StorageConfig,
    /// The size that every image gets; `None` if seeds are off.
    template: Option<Size>,
    fingerprint: String,
    shelf: Shelf,
    desk: Mutex<Desk>,
    /// Seeds that are as they were written, with what their files looked like then.
    sound: tokio::sync::Mutex<HashMap<Key, Stamp>>,
    /// Whom the monitor runs as that makes them, where it can be another's user.
    user: u32,
    /// Told when there is a new wish.
    wishes: Notify,
    /// How many VMs are being started.
    foreground: watch::Sender<usize>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// Somebody is starting a VM as long as this lives; no build begins meanwhile.
#[derive(Debug)]
pub(crate) struct Foreground<'a>(&'a watch::Sender<usize>);

impl Drop for Foreground<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Seeds {
    /// Takes up the seeds that are there, removes what an earlier server left half made, and begins to make those that
    /// are missing. That ends with `shutdown`.
    pub async fn start(
        hypervisor: Arc<dyn Hypervisor>,
        config: &Config,
        images: Arc<Images>,
        egress: Arc<Egress>,
        shutdown: CancellationToken,
    ) -> Result<Arc<Self>> {
        let (storage, snapshots) = (&config.storage, &config.snapshots);
        let template = snapshots.enable_snapshots.then(|| snapshots.template());
        let seeds = Arc::new(Self {
            // A guest with a network interface goes on with one.
            fingerprint: format!("{}\nnetwork: {}", hypervisor.fingerprint(), egress.is_on()),
            hypervisor,
            egress,
            images,
            initramfs: Arc::default(),
            storage: storage.clone(),
            template,
            shelf: Shelf(storage.seeds_dir()),
            desk: Mutex::default(),
            sound: tokio::sync::Mutex::default(),
            user: MonitorUsers::of(&config.hypervisor).seed(),
            wishes: Notify::new(),
            foreground: watch::Sender::new(0),
            task: Mutex::default(),
        });
        seeds.clear_workshop().await?;
        let found = seeds.shelf.take_stock().map_err(|error| Error::internal("cannot read the seeds", error))?;
        seeds.desk().ready = found.into_iter().map(|seed| (seed.key.clone(), seed)).collect();
        if template.is_some() {
            let task = tokio::spawn(Arc::clone(&seeds).work(shutdown));
            *seeds.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        }
        Ok(seeds)
    }

    /// Waits until a build that was cut short by the end of the server has left nothing.
    pub async fn close(&self) {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task
            && tokio::time::timeout(CLOSE_LIMIT, task).await.is_err()
        {
            tracing::warn!("a seed's machine could not be ended; the next start of the server does it");
        }
    }

    /// The initramfs of an image's guests.
    pub(crate) fn initramfs(&self) -> &Initramfs {
        &self.initramfs
    }

    /// Says that a VM is being started.
    pub(crate) fn foreground(&self) -> Foreground<'_> {
        self.foreground.send_modify(|count| *count += 1);
        Foreground(&self.foreground)
    }

    /// Waits until nobody has been starting a VM for a moment, but not longer than `limit`.
    pub(crate) async fn quiet(&self, limit: Duration) {
        let mut foreground = self.foreground.subscribe();
        let quiet = async {
            while foreground.wait_for(|count| *count == 0).await.is_ok() {
                tokio::select! {
                    () = tokio::time::sleep(MOMENT) => return,
                    _ = foreground.changed() => {}
                }
            }
        };
        let _ = tokio::time::timeout(limit, quiet).await;
    }

    /// Whether a seed is being made, or is going to be.
    pub(crate) fn expects(&self, image_id: &str, size: Size) -> bool {
        self.template.is_some() && self.desk().status(image_id, size) == Status::Building
    }

    /// The seed that a VM of this size can start from. One that is damaged is discarded.
    pub(crate) async fn find(&self, image: &ImageFiles, initramfs: &Path, size: Size) -> Option<Seed> {
        self.template?;
        let key = self.key(image, initramfs, size)?;
        let seed = self.desk().ready.get(&key).cloned()?;
        if let Err(error) = self.check(&seed).await {
            tracing::warn!(%error, %key, "a seed is not as it was written");
            self.discard(&seed);
            return None;
        }
        if let Err(error) = shelf::touch(&seed) {
            tracing::debug!(%error, %key, "cannot note that a seed was used");
        }
        Some(seed)
    }

    /// Reads a seed whole, unless that was done already and its files have not changed since.
    async fn check(&self, seed: &Seed) -> io::Result<()> {
        let mut sound = self.sound.lock().await;
        let stamp = Stamp::of(&seed.dir.0)?;
        if sound.get(&seed.key) == Some(&stamp) {
            return Ok(());
        }
        let dir = seed.dir.0.clone();
        let digest = spawn_blocking(move || shelf::digest(&dir)).await.map_err(io::Error::other).flatten()?;
        if digest != seed.digest {
            return Err(io::Error::other("its digest is another one"));
        }
        sound.insert(seed.key.clone(), stamp);
        Ok(())
    }

    /// Whether the files that a machine was started with are still those of its seed.
    pub(crate) fn is_of(&self, seed: &Seed, image: &ImageFiles, initramfs: &Path) -> bool {
        self.key(image, initramfs, seed.size).as_ref() == Some(&seed.key)
    }

    /// What the memory of a machine depends on besides its size, in one digest: its image's files, of which it has parts,
    /// the monitor, and whether it has a network interface.
    pub(crate) fn fits(&self, image: &ImageFiles) -> Result<String> {
        key::fits(image, &self.fingerprint).map_err(|error| Error::internal("cannot look at an image's files", error))
    }

    /// Has a seed made that a VM would have started from.
    pub(crate) fn want(&self, image_id: &str, size: Size) {
        if self.template.is_some() && self.desk().wish(image_id, size) {
            self.wishes.notify_one();
        }
    }

    /// Removes a seed that no machine could be started from, and has it made again.
    pub(crate) fn discard(&self, seed: &Seed) {
        let found = self.desk().ready.remove(&seed.key);
        if found.is_some() {
            metrics::seed("discarded");
            self.remove(seed);
            self.want(&seed.image_id, seed.size);
        }
    }

    /// How it is about an image's seed.
    pub fn status(&self, image_id: &str) -> Status {
        self.template.map_or(Status::None, |size| self.desk().status(image_id, size))
    }

    /// All seeds, oldest first.
    pub fn list(&self) -> Vec<Seed> {
        if self.template.is_none() {
            return Vec::new();
        }
        let mut seeds: Vec<Seed> = self.desk().ready.values().cloned().collect();
        seeds.sort_by_key(|seed| seed.created_at);
        seeds
    }

    /// Those that are being made or could not be, oldest first.
    pub fn unfinished(&self) -> Vec<Unfinished> {
        if self.template.is_none() {
            return Vec::new();
        }
        let mut unfinished = self.desk().unfinished();
        unfinished.sort_by_key(|seed| seed.at);
        unfinished
    }

    /// The name of an image's seed for clients: `seed-<imageId>` for the size that every image gets, with the size otherwise.
    pub fn id(&self, image_id: &str, size: Size) -> String {
        match self.template == Some(size) {
            true => format!("seed-{image_id}"),
            false => format!("seed-{image_id}-{size}"),
        }
    }

    /// What machines of a size that are interchangeable until they are told who they are have in common.
    pub(crate) fn key(&self, image: &ImageFiles, initramfs: &Path, size: Size) -> Option<Key> {
        Key::of(image, initramfs, &self.fingerprint, size).ok()
    }

    fn remove(&self, seed: &Seed) {
        self.hypervisor.forget(&seed.dir);
        if let Err(error) = shelf::remove(&seed.dir.0) {
            tracing::warn!(%error, key = %seed.key, "cannot remove a seed");
        }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
