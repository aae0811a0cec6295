//! Keeping the warm pool at its target: in the background, one machine at a time, while nobody starts a VM.

use std::io;
use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use rds_image::{ImageError, disk};
use rds_protocol::link::History;
use rds_vmm::VmId;
use rds_vmm::guest::GuestClient;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Vms;
use super::failure::stopping;
use super::host::Host;
use super::last_start::Timings;
use super::request::NewVm;
use crate::error::{Chain, Error, Result};
use crate::images::ImageFiles;
use crate::metrics;
use crate::pool::{Kind, Machine, record};
use crate::seeds::{DISK_BYTES, Size};
use crate::storage::make_private_dir;

/// How often the pool is looked at though nothing has happened: for machines that ended, logs that grew, seeds that came.
const TICK: Duration = Duration::from_secs(1);

/// How long a machine waits for others' starts to be over before it is made nevertheless.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a machine that an earlier server left may take to answer.
const ADOPT_LIMIT: Duration = Duration::from_secs(10);

/// How long a machine may take to rehearse, emulated on a busy host.
const REHEARSE_LIMIT: Duration = Duration::from_secs(60);

/// How long the end of the server waits for a machine to be cut short.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// The disk of a pooled VM may be at most this many times the usual size: its monitor is started with a limit on the size of
/// files, which cannot be raised later.
const LARGEST_DISKS: u64 = 8;

/// A kind of machine, and how many there are to be.
struct Wanted {
    kinds: Vec<(Kind, usize)>,
    images: Vec<ImageFiles>,
}

impl Vms {
    /// Keeps the pool until the server ends; machines that wait outlive it, as VMs do.
    pub fn keep_pool(&self, shutdown: CancellationToken) {
        if self.0.pool.is_enabled() {
            let task = tokio::spawn(self.clone().refill(shutdown));
            *self.0.refill.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        }
    }

    /// Waits until a machine that was cut short by the end of the server has left nothing.
    pub async fn close_pool(&self) {
        let task = self.0.refill.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task
            && timeout(CLOSE_LIMIT, task).await.is_err()
        {
            tracing::warn!("a pooled machine could not be ended; the next start of the server does it");
        }
    }

    async fn refill(self, shutdown: CancellationToken) {
        let mut changes = self.0.host.images.changes();
        self.adopt_pooled().await;
        loop {
            let wanted = self.wanted().await;
            self.remove_surplus(&wanted).await;
            while !changes.has_changed().unwrap_or(false) {
                let Some(kind) = self.0.pool.lacks(&wanted.kinds, |kind| self.can_be_made(kind)).cloned() else {
                    break;
                };
                let Some(image) = wanted.images.iter().find(|image| image.id == kind.image_id) else { break };
                tokio::select! {
                    () = self.0.host.seeds.quiet(PATIENCE) => {}
                    () = shutdown.cancelled() => return,
                }
                let made = self.make(&kind, image, &shutdown).await;
                if made.is_err() && shutdown.is_cancelled() {
                    return;
                }
                metrics::refill(&made);
                if let Err(error) = made {
                    tracing::warn!(image = kind.image_id, size = %kind.size, error = %Chain(&error), "cannot fill the pool");
                    self.0.pool.failed(&kind);
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                Ok(()) = changes.changed() => self.0.pool.forget_failures(),
                () = self.0.pool.wanted.notified() => {}
                () = sleep(TICK) => {}
            }
        }
    }

    /// The kind of machine that a VM could be made from; `None` if none is kept.
    pub(super) async fn kind(&self, image: &ImageFiles, vm: &NewVm) -> Option<Kind> {
        let fits = vm.disk_bytes <= self.0.host.largest_pooled_disk();
        if !self.0.pool.is_enabled() || !fits {
            return None;
        }
        self.0.host.kind(image, Size { vcpus: vm.vcpus, mem_mib: vm.mem_mib }).await
    }

    /// What there is to be of every kind that can be made now.
    async fn wanted(&self) -> Wanted {
        let host = &self.0.host;
        let (images, default) = match tokio::try_join!(host.images.all_complete(), host.images.list()) {
            Ok((complete, all)) => (complete, all.into_iter().find(|image| image.is_default)),
            Err(error) => {
                tracing::error!(error = %Chain(&error), "cannot look for images to keep machines of");
                (Vec::new(), None)
            }
        };
        let first = default.map(|image| (image.id, self.0.template));
        let mut kinds = Vec::new();
        for (image_id, size, share) in self.0.pool.shares(first) {
            let Some(image) = images.iter().find(|image| image.id == image_id) else { continue };
            let Some(kind) = host.kind(image, size).await else { continue };
            kinds.push((kind, share));
        }
        Wanted { kinds, images }
    }

    /// A boot would only disturb the making of the seed that a machine can be restored from soon.
    fn can_be_made(&self, kind: &Kind) -> bool {
        !self.0.host.seeds.expects(&kind.image_id, kind.size)
    }

    async fn remove_surplus(&self, wanted: &Wanted) {
        for machine in self.0.pool.surplus(&wanted.kinds) {
            tracing::info!(vm = %machine.id, image = machine.kind.image_id, "removing a pooled machine");
            let Machine { id, host_index, .. } = machine;
            self.discard(id, host_index).await;
        }
        for id in self.0.pool.ids() {
            self.0.host.look_after(id);
        }
    }

    /// Removes every trace of a machine. While that fails, its host index stays taken; the next start tries again.
    async fn discard(&self, id: VmId, host_index: u32) {
        match self.0.host.teardown(id).await {
            Ok(()) => self.0.pool.call_off(host_index),
            Err(error) => tracing::error!(vm = %id, error = %Chain(&error), "cannot remove a pooled machine"),
        }
    }

    async fn make(&self, kind: &Kind, image: &ImageFiles, shutdown: &CancellationToken) -> Result<()> {
        let id = VmId::new();
        let host_index = {
            let _admission = self.0.admission.lock().await;
            let index = self.free_host_index();
            self.0.pool.announce(index);
            index
        };
        let made = tokio::select! {
            made = self.0.host.make_pooled(id, host_index, kind, image) => made,
            () = shutdown.cancelled() => Err(stopping()),
        };
        match made {
            Ok(guest) => {
                tracing::debug!(vm = %id, image = kind.image_id, size = %kind.size, "a machine waits in the pool");
                self.0.pool.add(Machine { id, host_index, kind: kind.clone(), guest });
                Ok(())
            }
            Err(error) => {
                self.discard(id, host_index).await;
                Err(error)
            }
        }
    }

    /// Takes up the machines that an earlier server left.
    async fn adopt_pooled(&self) {
        let found = std::mem::take(&mut *self.0.found.lock().unwrap_or_else(PoisonError::into_inner));
        for (id, kind, host_index) in found {
            let dir = self.0.host.dir(id);
            match GuestClient::connect(&*self.0.host.hypervisor, &dir, History::Used, ADOPT_LIMIT).await {
                Ok(guest) => self.0.pool.add(Machine { id, host_index, kind, guest }),
                Err(error) => {
                    tracing::info!(vm = %id, %error, "removing a pooled machine that does not answer");
                    self.discard(id, host_index).await;
                }
            }
        }
    }
}

impl Host {
    /// Bytes of the largest disk of a VM from the pool.
    fn largest_pooled_disk(&self) -> u64 {
        self.storage.overlay_size_bytes.saturating_mul(LARGEST_DISKS).min(DISK_BYTES)
    }

    /// The kind of machine of an image and size that is made now.
    pub(super) async fn kind(&self, image: &ImageFiles, size: Size) -> Option<Kind> {
        let initramfs = self.seeds.initramfs().path(&self.storage, image).await.ok()?;
        let (key, disk_bytes) = (self.seeds.key(image, &initramfs, size)?, self.storage.overlay_size_bytes);
        Some(Kind { image_id: image.id.clone(), size, key, disk_bytes })
    }

    /// Brings a machine up to its agent's first answer. After an error, or when this is dropped, a teardown must follow.
    async fn make_pooled(&self, id: VmId, host_index: u32, kind: &Kind, image: &ImageFiles) -> Result<GuestClient> {
        let (dir, size) = (self.dir(id), kind.size);
        make_private_dir(&dir).map_err(|error| Error::internal(format!("cannot make {}", dir.display()), error))?;
        self.make_waiting_disk(id, disk::clone_sparse).await?;
        let spec = self.machine_spec(id, size, self.largest_pooled_disk(), host_index, image).await?;
        let (guest, _) = self.come_up(&spec, image, &mut None, &mut Timings::default()).await?;
        // There is time for this now.
        guest.rehearse(REHEARSE_LIMIT).await?;
        self.make_waiting_disk(id, disk::clone_into).await?;
        let written = record::write(&dir, kind, host_index);
        written.map_err(|error| Error::internal("cannot write a pooled machine down", error))?;
        Ok(guest)
    }

    /// The disk of most VMs, in a file as large as that of a seed: the guest must never take it for smaller than it will
    /// be.
    async fn make_waiting_disk(
        &self,
        id: VmId,
        clone: impl FnOnce(&Path, &Path, disk::CloneMode) -> Result<u64, ImageError> + Send + 'static,
    ) -> Result<()> {
        let (templates, to, mode) = (self.storage.templates_dir(), self.disk(id), self.storage.clone_mode());
        let bytes = self.storage.overlay_size_bytes;
        let made = spawn_blocking(move || {
            let from = disk::template(&templates, bytes).map_err(io::Error::other)?;
            clone(&from, &to, mode).map_err(io::Error::other)?;
            std::fs::File::options().write(true).open(to)?.set_len(DISK_BYTES)
        });
        let made = made.await.map_err(io::Error::other).flatten();
        made.map_err(|error| Error::internal("cannot make a pooled machine's disk", error))
    }
}
