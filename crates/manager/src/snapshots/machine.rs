//! A machine as it is at one moment: memory, devices and disk.
//!
//! It stands still while they are written, so that they belong together; what it was doing goes on in every copy.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Allowed;
use super::disk_copy::DiskCopy;
use crate::error::{Chain, Error, Result};
use crate::metrics;
use crate::storage::make_private_dir;
use rds_image::disk::CloneMode;
use rds_vmm::Hypervisor;
use rds_vmm::guest::GuestClient;
use rds_vmm::hypervisor::SnapshotDir;
use tokio::time::sleep;

/// How long the guest may take to hold its programs still.
const HOLD_LIMIT: Duration = Duration::from_secs(20);

/// Between the first two attempts to let a machine that was saved go on; each pause is twice as long as the one before, up to
/// the second.
const RESUME_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_RESUME_PAUSE: Duration = Duration::from_secs(8);

/// A machine that runs.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub hypervisor: Arc<dyn Hypervisor>,
    /// Its directory.
    pub dir: PathBuf,
    /// Its writable disk.
    pub disk: PathBuf,
}

/// The disk in a snapshot's directory.
pub(super) fn disk_in(dir: &Path) -> PathBuf {
    dir.join("disk.ext4")
}

/// Memory and devices in a snapshot's directory.
pub(super) fn memory_in(dir: &Path) -> SnapshotDir {
    SnapshotDir(dir.join("machine"))
}

impl Machine {
    /// Writes all of the machine into an empty directory and tells how long it stood still and how large its disk is.
    ///
    /// `allowed` is asked when the machine stands still, and again when its memory is written. The machine runs again afterwards,
    /// whatever happens; its wall clock is behind by as long as it stood still, and its programs are held until its guest is told
    /// to let them go: those of copies are not to go on before each copy has a random source of its own.
    #[tracing::instrument(level = "debug", name = "save", skip_all)]
    pub(crate) async fn save(
        &self,
        to: &Path,
        mode: CloneMode,
        guest: &GuestClient,
        allowed: Allowed,
    ) -> Result<(Duration, u64)> {
        let memory = memory_in(to);
        make_private_dir(&memory.0).map_err(|error| Error::internal("cannot make a snapshot's directory", error))?;
        let prepared = self.hypervisor.prepare_snapshot(&self.dir, &memory).await;
        prepared.map_err(|error| Error::internal("cannot save a machine", error))?;
        let copy = DiskCopy::begin(self, disk_in(to), mode).await?;
        let begun = Instant::now();
        let saved = match self.stand_still(guest).await.and_then(|()| allowed()) {
            // Firecracker puts what a guest is sent into its memory while its processors stand still, new secrets too. They are
            // published before they are sent, so none that got there goes unnoticed.
            Ok(()) => {
                let written = self.write(&memory, &copy).await.and_then(|()| allowed());
                written.inspect_err(|_| self.hypervisor.forget_saved(&self.dir))
            }
            Err(error) => Err(error),
        };
        self.go_on().await;
        let stood_still = begun.elapsed();
        metrics::stood_still("memory", stood_still);
        copy.end(saved).await.map(|disk_bytes| (stood_still, disk_bytes))
    }

    /// Has the guest's programs held, and pauses the machine.
    async fn stand_still(&self, guest: &GuestClient) -> Result<()> {
        guest.hold(HOLD_LIMIT).await?;
        let paused = self.hypervisor.pause(&self.dir).await;
        paused.map_err(|error| Error::internal("cannot pause a machine", error))
    }

    /// Lets the machine run again, unless it has ended: nobody else would.
    async fn go_on(&self) {
        let Err(error) = self.hypervisor.resume(&self.dir).await else { return };
        // Once: a monitor that was taken over may refuse for ever.
        tracing::error!(dir = %self.dir.display(), error = %Chain(&error), "a machine that was saved does not go on");
        let mut pause = RESUME_PAUSE;
        while self.hypervisor.is_running(&self.dir).await {
            sleep(pause).await;
            if self.hypervisor.resume(&self.dir).await.is_ok() {
                tracing::info!(dir = %self.dir.display(), "a machine that was saved goes on after all");
                return;
            }
            pause = LONGEST_RESUME_PAUSE.min(pause * 2);
        }
    }

    async fn write(&self, memory: &SnapshotDir, copy: &DiskCopy<'_>) -> Result<()> {
        let (saved, copied) = tokio::join!(self.hypervisor.snapshot(&self.dir, memory), copy.finish());
        saved.map_err(|error| Error::internal("cannot save a machine", error))?;
        copied
    }
}
