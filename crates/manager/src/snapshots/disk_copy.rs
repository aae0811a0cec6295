//! A copy of a disk, of which as much is made as can be while the machine writes to it.
//!
//! What a monitor has to write to is a copy of the machine's own, always the same file: it may keep that open for ever. The copy
//! that others rely on is made from it when the machine goes on.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rds_image::ImageError;
use rds_image::disk::{self, CloneMode};
use tokio::task::spawn_blocking;

use super::machine::Machine;
use crate::error::{Chain, Error, Result};

/// A copy that is under way. [`Self::end`] must follow in any case.
#[derive(Debug)]
pub(super) struct DiskCopy<'a> {
    machine: &'a Machine,
    to: PathBuf,
    mode: CloneMode,
    /// Whether the machine's own copy holds what the disk was at first.
    ahead: bool,
}

impl<'a> DiskCopy<'a> {
    /// Copies the disk of a machine that may write to it, if its monitor notes what it writes.
    pub(super) async fn begin(machine: &'a Machine, to: PathBuf, mode: CloneMode) -> Result<Self> {
        let watched = machine.hypervisor.watch_disk(&machine.dir).await.unwrap_or_else(|error| {
            tracing::warn!(dir = %machine.dir.display(), error = %Chain(&error), "a disk is copied while its VM is held still");
            false
        });
        let mut copy = Self { machine, to, mode, ahead: false };
        if watched {
            if let Err(error) = copy.clone(&machine.disk, &copy.own(), clone_again).await {
                copy.unwatch().await;
                // A copy that met the end of the disk would keep it full.
                forget_copy(&machine.dir);
                return Err(error);
            }
            copy.ahead = true;
        }
        Ok(copy)
    }

    /// Takes what the disk is now, which nobody writes to.
    pub(super) async fn finish(&self) -> Result<()> {
        if !self.ahead {
            return self.clone(&self.machine.disk, &self.to, disk::clone_sparse).await.map(drop);
        }
        let caught_up = self.machine.hypervisor.catch_up(&self.machine.dir, &self.own()).await;
        caught_up.map_err(|error| Error::internal("cannot copy what changed on a machine's disk", error))
    }

    /// Makes the copy if it was finished, while the machine may write to its disk again. Gives its size.
    pub(super) async fn end(self, finished: Result<()>) -> Result<u64> {
        if !self.ahead {
            finished?;
            return size(&self.to).map_err(|error| Error::internal("cannot look at the copy of a disk", error));
        }
        self.unwatch().await;
        let made = match finished {
            Ok(()) => self.clone(&self.own(), &self.to, disk::clone_sparse).await,
            Err(error) => Err(error),
        };
        forget_copy(&self.machine.dir);
        made
    }

    /// The machine's own copy.
    fn own(&self) -> PathBuf {
        own(&self.machine.dir)
    }

    /// Nothing has to be noted any more.
    async fn unwatch(&self) {
        if let Err(error) = self.machine.hypervisor.unwatch_disk(&self.machine.dir).await {
            tracing::debug!(dir = %self.machine.dir.display(), error = %Chain(&error), "the copy of a disk has no end");
        }
    }

    async fn clone(
        &self,
        from: &Path,
        to: &Path,
        clone: impl FnOnce(&Path, &Path, CloneMode) -> std::result::Result<u64, ImageError> + Send + 'static,
    ) -> Result<u64> {
        let (from, to, mode) = (from.to_owned(), to.to_owned(), self.mode);
        let cloned = spawn_blocking(move || clone(&from, &to, mode)).await;
        cloned
            .map_err(|error| Error::internal("the task that copies a disk ended", error))?
            .map_err(|error| Error::internal("cannot copy a machine's disk", error))
    }
}

fn own(dir: &Path) -> PathBuf {
    dir.join("disk.copy")
}

/// Empties the copy that the machine in `dir` has for itself: it is of no use when nobody makes one.
pub(crate) fn forget_copy(dir: &Path) {
    match File::options().write(true).open(own(dir)).and_then(|own| own.set_len(0)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(dir = %dir.display(), %error, "a copy of a disk takes room for nothing");
        }
        _ => {}
    }
}

/// Clones a disk into a file that may be there from the last time.
fn clone_again(from: &Path, to: &Path, mode: CloneMode) -> std::result::Result<u64, ImageError> {
    if to.exists() { disk::clone_into(from, to, mode) } else { disk::clone_sparse(from, to, mode) }
}

fn size(file: &Path) -> io::Result<u64> {
    Ok(std::fs::metadata(file)?.len())
}
