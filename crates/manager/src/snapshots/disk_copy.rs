//! A copy of a disk, of which as much is made as can be while the machine writes to it.

use std::path::PathBuf;

use rds_image::disk::{self, CloneMode};
use tokio::task::spawn_blocking;

use super::machine::Machine;
use crate::error::{Chain, Error, Result};

/// A copy that is under way. It is whole after [`Self::finish`]; [`Self::end`] must follow in any case.
#[derive(Debug)]
pub(super) struct DiskCopy<'a> {
    machine: &'a Machine,
    to: PathBuf,
    mode: CloneMode,
    /// Bytes of what was copied already; `None` if nothing can be before the machine is held still.
    ahead: Option<u64>,
}

impl<'a> DiskCopy<'a> {
    /// Copies the disk of a machine that may write to it, if its monitor notes what it writes.
    pub(super) async fn begin(machine: &'a Machine, to: PathBuf, mode: CloneMode) -> Result<Self> {
        let watched = machine.hypervisor.watch_disk(&machine.dir).await.unwrap_or_else(|error| {
            tracing::warn!(dir = %machine.dir.display(), error = %Chain(&error), "a disk is copied while its VM is held still");
            false
        });
        let mut copy = Self { machine, to, mode, ahead: None };
        if watched {
            match copy.clone_all().await {
                Ok(bytes) => copy.ahead = Some(bytes),
                Err(error) => {
                    copy.end().await;
                    return Err(error);
                }
            }
        }
        Ok(copy)
    }

    /// Makes the copy what the disk is now, which nobody writes to. Gives its size.
    pub(super) async fn finish(&self) -> Result<u64> {
        let Some(bytes) = self.ahead else { return self.clone_all().await };
        let caught_up = self.machine.hypervisor.catch_up(&self.machine.dir, &self.to).await;
        caught_up.map_err(|error| Error::internal("cannot copy what changed on a machine's disk", error))?;
        Ok(bytes)
    }

    /// Nothing has to be noted any more.
    pub(super) async fn end(&self) {
        if let Err(error) = self.machine.hypervisor.unwatch_disk(&self.machine.dir).await {
            tracing::debug!(dir = %self.machine.dir.display(), error = %Chain(&error), "the copy of a disk has no end");
        }
    }

    async fn clone_all(&self) -> Result<u64> {
        let (from, to, mode) = (self.machine.disk.clone(), self.to.clone(), self.mode);
        let cloned = spawn_blocking(move || disk::clone_sparse(&from, &to, mode)).await;
        cloned
            .map_err(|error| Error::internal("the task that copies a disk ended", error))?
            .map_err(|error| Error::internal("cannot copy a machine's disk", error))
    }
}
