//! What users keep of a VM: its writable disk as it was at one moment, alone or with memory and devices.
//!
//! For a disk alone the guest is frozen while its copy is made whole ([`disk_copy`]), and says afterwards whether it was so
//! to the end; a copy without that word is thrown away. For memory the machine stands still ([`machine`]). A snapshot's
//! files lie in a directory of its own, which gets its name when they are complete, and its row after that. This module
//! must not know VMs: it is given a machine and the guest in it.

mod disk_copy;
pub(crate) mod machine;

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rds_image::disk::CloneMode;
use rds_vmm::guest::GuestClient;
use rds_vmm::hypervisor::SnapshotDir;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tracing::Instrument as _;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::activity::Activity;
use crate::clock::now_ms;
use crate::error::{Chain, Error, Result};
use crate::hold::{Hold, Holds};
use crate::metrics;
use crate::storage::make_private_dir;
use crate::store::Store;
use crate::store::snapshots::SnapshotRow;

use disk_copy::DiskCopy;
pub(crate) use disk_copy::forget_copy;
use machine::Machine;

/// How long a guest may take to write down what it has in memory.
const FREEZE_LIMIT: Duration = Duration::from_secs(60);

/// How long it may take to say that it goes on. It does so by itself after less.
const THAW_LIMIT: Duration = Duration::from_secs(20);

/// Suffix of a directory that is not complete.
const DRAFT: &str = ".new";

/// What a snapshot is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = SnapshotKind)]
pub enum Kind {
    /// A VM's writable disk.
    UserOverlay,
    /// A VM's memory, devices and disk.
    Vm,
    /// Memory of a booted, idle VM with nothing of any user in it.
    ImageSeed,
}

impl Kind {
    /// The word of the wire contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UserOverlay => "user_overlay",
            Self::Vm => "vm",
            Self::ImageSeed => "image_seed",
        }
    }
}

/// Whether a machine may be saved as it is now.
pub(crate) type Allowed = Box<dyn Fn() -> Result<()> + Send>;

/// What is taken of a VM.
pub(crate) enum Subject {
    /// Its disk, which its guest holds still.
    Disk(Machine, GuestClient),
    /// All of its machine; the text is what a machine from it depends on. See [`Machine::save`].
    Machine(Machine, GuestClient, String, Allowed),
}

/// The VM that a snapshot is taken of.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub vm_id: String,
    pub image_id: String,
    pub vcpus: u8,
    pub mem_mib: u32,
    /// The seed that it was started from, by its name for clients.
    pub base_seed: Option<String>,
    /// Of the request that takes it.
    pub claim: Option<String>,
}

/// The service.
#[derive(Debug, Clone)]
pub struct Snapshots {
    store: Store,
    activity: Activity,
    dir: PathBuf,
    mode: CloneMode,
    holds: Holds,
}

impl Snapshots {
    /// Removes what an earlier server left half made.
    pub(crate) async fn start(store: Store, activity: Activity, dir: PathBuf, mode: CloneMode) -> Result<Self> {
        let kept: Vec<String> = store.snapshots().await?.into_iter().map(|row| row.id).collect();
        let failed = |error| Error::internal(format!("cannot read {}", dir.display()), error);
        for entry in std::fs::read_dir(&dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if !kept.iter().any(|id| entry.file_name().to_str() == Some(id)) {
                remove(&entry.path()).await?;
            }
        }
        for id in kept.iter().filter(|id| !dir.join(id).is_dir()) {
            tracing::error!(id, "the files of a snapshot are gone");
            store.delete_snapshot(id).await?;
        }
        Ok(Self { store, activity, dir, mode, holds: Holds::default() })
    }

    /// All snapshots, oldest first.
    pub async fn list(&self) -> Result<Vec<SnapshotRow>> {
        self.store.snapshots().await
    }

    /// One snapshot.
    pub async fn get(&self, id: &str) -> Result<SnapshotRow> {
        self.store.snapshot(id).await?.ok_or_else(no_such_snapshot)
    }

    /// One snapshot, whose files stay as long as the hold lives, even when it is deleted.
    pub(crate) async fn hold(&self, id: &str) -> Result<(SnapshotRow, Arc<Hold>)> {
        // First of all: a deletion looks for holds when the row is gone.
        let hold = self.holds.hold(id);
        Ok((self.get(id).await?, hold))
    }

    /// Removes a snapshot: its files as soon as nobody is about to open them. VMs that were made from it are their own. Goes
    /// on to its end when it is dropped.
    pub async fn delete(&self, id: &str) -> Result<()> {
        let (own, id) = (self.clone(), id.to_owned());
        let delete = async move {
            if !own.store.delete_snapshot(&id).await? {
                return Err(no_such_snapshot());
            }
            own.activity.record("snapshot.deleted", &id, "Snapshot deleted", None).await;
            if own.holds.is_held(&id) {
                tokio::spawn(own.remove_released(id));
                return Ok(());
            }
            remove(&own.dir.join(id)).await
        };
        let deleted = tokio::spawn(delete.in_current_span()).await;
        deleted.map_err(|error| Error::internal("the task that removes a snapshot ended", error)).flatten()
    }

    async fn remove_released(self, id: String) {
        self.holds.released(&id).await;
        if let Err(error) = remove(&self.dir.join(&id)).await {
            tracing::warn!(id, error = %Chain(&error), "the files of a snapshot are left until the next start");
        }
    }

    /// The disk of a snapshot, or of a draft.
    pub(crate) fn disk(&self, id: &str) -> PathBuf {
        machine::disk_in(&self.dir.join(id))
    }

    /// Memory and devices of a snapshot, or of a draft.
    pub(crate) fn memory(&self, id: &str) -> SnapshotDir {
        machine::memory_in(&self.dir.join(id))
    }

    /// Saves a machine as something that is never listed, and that the next server removes. Gives its name, which is to be
    /// discarded, and how long the machine stood still. See [`Machine::save`] for what is to be done with its guest.
    pub(crate) async fn save_draft(
        &self,
        machine: &Machine,
        guest: &GuestClient,
        allowed: Allowed,
    ) -> Result<(String, Duration)> {
        let name = format!("{}{DRAFT}", Uuid::new_v4());
        let dir = self.dir.join(&name);
        make_private_dir(&dir).map_err(|error| Error::internal("cannot make a directory for a copy", error))?;
        match machine.save(&dir, self.mode, guest, allowed).await {
            Ok((stood_still, _)) => Ok((name, stood_still)),
            Err(error) => {
                remove(&dir).await?;
                Err(error)
            }
        }
    }

    /// Removes a draft. Machines that run from it go on.
    pub(crate) async fn discard(&self, draft: &str) -> Result<()> {
        remove(&self.dir.join(draft)).await
    }

    /// Takes a snapshot of a VM that runs. Goes on to its end when it is dropped.
    #[tracing::instrument(level = "debug", name = "snapshot", skip_all)]
    pub(crate) async fn take(&self, source: Source, subject: Subject) -> Result<SnapshotRow> {
        let own = self.clone();
        let take = async move {
            let id = format!("snap-{}", Uuid::new_v4());
            let draft = own.dir.join(format!("{id}{DRAFT}"));
            let taken = own.write(&id, &draft, &source, subject).await;
            if taken.is_err() {
                remove(&draft).await?;
            }
            taken
        };
        let taken = tokio::spawn(take.in_current_span());
        let taken =
            taken.await.map_err(|error| Error::internal("the task that takes a snapshot ended", error)).flatten();
        metrics::snapshot(&taken);
        taken
    }

    async fn write(&self, id: &str, draft: &Path, source: &Source, subject: Subject) -> Result<SnapshotRow> {
        let failed = |error| Error::internal(format!("cannot write snapshot {id}"), error);
        make_private_dir(draft).map_err(failed)?;
        let (kind, fits, disk_bytes, held) = match subject {
            Subject::Disk(machine, guest) => {
                let (disk_bytes, held) = self.write_disk(draft, &machine, &guest).await?;
                (Kind::UserOverlay, None, disk_bytes, held)
            }
            Subject::Machine(machine, guest, fits, allowed) => {
                let (held, disk_bytes) = machine.save(draft, self.mode, &guest, allowed).await?;
                (Kind::Vm, Some(fits), disk_bytes, held)
            }
        };

        let (draft, place, parent) = (draft.to_owned(), self.dir.join(id), self.dir.clone());
        let published = spawn_blocking(move || {
            let bytes = sync(&draft)?;
            std::fs::rename(&draft, &place)?;
            File::open(parent)?.sync_all()?;
            Ok(bytes)
        });
        let published = published.await.map_err(std::io::Error::other).flatten();
        let row = SnapshotRow {
            id: id.to_owned(),
            created_at: now_ms(),
            cpu: source.vcpus.into(),
            mem_mb: source.mem_mib.into(),
            image_id: source.image_id.clone(),
            source_vm_id: source.vm_id.clone(),
            disk_bytes: i64::try_from(disk_bytes).unwrap_or(i64::MAX),
            size_bytes: i64::try_from(published.map_err(failed)?).unwrap_or(i64::MAX),
            frozen_us: i64::try_from(held.as_micros()).unwrap_or(i64::MAX),
            kind: kind.as_str().into(),
            fits,
            base_seed: source.base_seed.clone(),
        };
        if let Err(error) = self.store.insert_snapshot(&row, source.claim.as_deref()).await {
            remove(&self.dir.join(id)).await?;
            return Err(error);
        }
        self.activity.record("snapshot.created", id, "Snapshot made", None).await;
        Ok(row)
    }

    /// Copies a disk that its guest holds still for the end of that; tells its size and how long that was.
    #[tracing::instrument(level = "debug", name = "save", skip_all)]
    async fn write_disk(&self, draft: &Path, machine: &Machine, guest: &GuestClient) -> Result<(u64, Duration)> {
        // What is only in the guest's memory would have to be copied while it is frozen.
        guest.sync(FREEZE_LIMIT).await?;
        let copy = DiskCopy::begin(machine, machine::disk_in(draft), self.mode).await?;
        let frozen = guest.freeze(FREEZE_LIMIT).await;
        let finished = match frozen {
            Ok(()) => copy.finish().await,
            Err(error) => Err(error.into()),
        };
        let thawed = guest.thaw(THAW_LIMIT).await;
        let bytes = copy.end(finished).await?;
        let frozen = Duration::from_micros(thawed?.frozen_us);
        metrics::stood_still("disk", frozen);
        Ok((bytes, frozen))
    }
}

/// Has a directory and all files below it written to storage; tells what the files take there.
fn sync(dir: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            bytes += sync(&path)?;
        } else {
            let file = File::open(path)?;
            file.sync_all()?;
            bytes += file.metadata()?.blocks() * 512;
        }
    }
    File::open(dir)?.sync_all()?;
    Ok(bytes)
}

async fn remove(dir: &Path) -> Result<()> {
    match tokio::fs::remove_dir_all(dir).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::internal(format!("cannot remove {}", dir.display()), error))
        }
        _ => Ok(()),
    }
}

fn no_such_snapshot() -> Error {
    Error::not_found("Snapshot not found")
}
