//! What users keep of a VM: its writable disk as it was at one moment.
//!
//! The guest is frozen while its disk is cloned, and says afterwards whether it was so to the end; a clone without that
//! word is thrown away. A snapshot's files lie in a directory of its own, which gets its name when they are complete, and
//! its row after that. This module must not know VMs: it is given a disk and the guest that writes to it.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rds_image::disk::{self, CloneMode};
use rds_vmm::guest::GuestClient;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use crate::activity::Activity;
use crate::clock::now_ms;
use crate::error::{Error, Result};
use crate::metrics;
use crate::store::Store;
use crate::store::snapshots::SnapshotRow;

/// How long a guest may take to write down what it has in memory.
const FREEZE_LIMIT: Duration = Duration::from_secs(60);

/// How long it may take to say that it goes on. It does so by itself after less.
const THAW_LIMIT: Duration = Duration::from_secs(20);

/// Suffix of a directory that is not complete.
const DRAFT: &str = ".new";

/// The VM that a snapshot is taken of.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub vm_id: String,
    pub image_id: String,
    pub vcpus: u8,
    pub mem_mib: u32,
    /// Its writable disk.
    pub disk: PathBuf,
}

/// The service.
#[derive(Debug, Clone)]
pub struct Snapshots {
    store: Store,
    activity: Activity,
    dir: PathBuf,
    mode: CloneMode,
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
        Ok(Self { store, activity, dir, mode })
    }

    /// All snapshots, oldest first.
    pub async fn list(&self) -> Result<Vec<SnapshotRow>> {
        self.store.snapshots().await
    }

    /// One snapshot.
    pub async fn get(&self, id: &str) -> Result<SnapshotRow> {
        self.store.snapshot(id).await?.ok_or_else(no_such_snapshot)
    }

    /// Removes a snapshot. VMs that were made from it are their own.
    pub async fn delete(&self, id: &str) -> Result<()> {
        if !self.store.delete_snapshot(id).await? {
            return Err(no_such_snapshot());
        }
        self.activity.record("snapshot.deleted", id, "Snapshot deleted", None).await;
        remove(&self.dir.join(id)).await
    }

    /// The disk of a snapshot.
    pub(crate) fn disk(&self, id: &str) -> PathBuf {
        self.dir.join(id).join("disk.ext4")
    }

    /// Takes a snapshot of a VM whose agent answers. Goes on to its end when it is dropped.
    pub(crate) async fn take(&self, source: Source, guest: GuestClient) -> Result<SnapshotRow> {
        let own = self.clone();
        let taken = tokio::spawn(async move {
            let id = format!("snap-{}", Uuid::new_v4());
            let draft = own.dir.join(format!("{id}{DRAFT}"));
            let taken = own.write(&id, &draft, &source, &guest).await;
            if taken.is_err() {
                remove(&draft).await?;
            }
            taken
        });
        let taken =
            taken.await.map_err(|error| Error::internal("the task that takes a snapshot ended", error)).flatten();
        metrics::snapshot(&taken);
        taken
    }

    async fn write(&self, id: &str, draft: &Path, source: &Source, guest: &GuestClient) -> Result<SnapshotRow> {
        let failed = |error| Error::internal(format!("cannot write snapshot {id}"), error);
        make_private_dir(draft).map_err(failed)?;
        let disk = draft.join("disk.ext4");
        guest.freeze(FREEZE_LIMIT).await?;
        let (from, to, mode) = (source.disk.clone(), disk.clone(), self.mode);
        let cloned = spawn_blocking(move || disk::clone_sparse(&from, &to, mode)).await;
        let thawed = guest.thaw(THAW_LIMIT).await;
        let disk_bytes = cloned
            .map_err(|error| Error::internal("the task that copies a disk ended", error))?
            .map_err(|error| Error::internal(format!("cannot copy the disk of VM {}", source.vm_id), error))?;
        let frozen_us = thawed?.frozen_us;

        let (draft, place, parent) = (draft.to_owned(), self.dir.join(id), self.dir.clone());
        let published = spawn_blocking(move || {
            let file = File::open(&disk)?;
            file.sync_all()?;
            File::open(&draft)?.sync_all()?;
            std::fs::rename(&draft, &place)?;
            File::open(parent)?.sync_all()?;
            Ok(file.metadata()?.blocks() * 512)
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
            frozen_us: i64::try_from(frozen_us).unwrap_or(i64::MAX),
        };
        if let Err(error) = self.store.insert_snapshot(&row).await {
            remove(&self.dir.join(id)).await?;
            return Err(error);
        }
        self.activity.record("snapshot.created", id, "Snapshot made", None).await;
        Ok(row)
    }
}

async fn remove(dir: &Path) -> Result<()> {
    match tokio::fs::remove_dir_all(dir).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::internal(format!("cannot remove {}", dir.display()), error))
        }
        _ => Ok(()),
    }
}

/// A directory that only the manager may enter.
fn make_private_dir(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().mode(0o700).create(dir)
}

fn no_such_snapshot() -> Error {
    Error::not_found("Snapshot not found")
}
