//! Table `snapshots`: what users keep of a VM.

use sqlx::FromRow;

use super::Store;
use crate::error::Result;

/// A snapshot whose files are complete.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct SnapshotRow {
    /// `snap-` and a UUID.
    pub id: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Virtual CPUs of the VM.
    pub cpu: i64,
    /// Memory of the VM in MiB.
    pub mem_mb: i64,
    /// Image of the VM.
    pub image_id: String,
    /// The VM, which may be gone.
    pub source_vm_id: String,
    /// Size of the disk.
    pub disk_bytes: i64,
    /// What it takes on the server's disk.
    pub size_bytes: i64,
    /// How long the VM could not write, or stood still if there is memory in it, in microseconds.
    pub frozen_us: i64,
    /// `user_overlay` or `vm`.
    pub kind: String,
    /// What it depends on besides its size, if there is memory in it.
    pub fits: Option<String>,
    /// The seed that the VM had been started from, if it was.
    pub base_seed: Option<String>,
}

impl Store {
    /// Adds a snapshot, with the claim of the request that makes it.
    pub async fn insert_snapshot(&self, snapshot: &SnapshotRow, claim: Option<&str>) -> Result<()> {
        sqlx::query(
            "INSERT INTO snapshots (id, created_at, cpu, mem_mb, image_id, source_vm_id, disk_bytes, size_bytes, frozen_us,
             kind, fits, base_seed, claim)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        )
        .bind(&snapshot.id)
        .bind(snapshot.created_at)
        .bind(snapshot.cpu)
        .bind(snapshot.mem_mb)
        .bind(&snapshot.image_id)
        .bind(&snapshot.source_vm_id)
        .bind(snapshot.disk_bytes)
        .bind(snapshot.size_bytes)
        .bind(snapshot.frozen_us)
        .bind(&snapshot.kind)
        .bind(&snapshot.fits)
        .bind(&snapshot.base_seed)
        .bind(claim)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// One snapshot.
    pub async fn snapshot(&self, id: &str) -> Result<Option<SnapshotRow>> {
        Ok(sqlx::query_as(concat!(
            "SELECT id, created_at, cpu, mem_mb, image_id, source_vm_id, disk_bytes, size_bytes, frozen_us, kind, fits, \
             base_seed ",
            "FROM snapshots WHERE id = $1"
        ))
        .bind(id)
        .fetch_optional(&self.pool)
        .await?)
    }

    /// All snapshots, oldest first.
    pub async fn snapshots(&self) -> Result<Vec<SnapshotRow>> {
        Ok(sqlx::query_as(concat!(
            "SELECT id, created_at, cpu, mem_mb, image_id, source_vm_id, disk_bytes, size_bytes, frozen_us, kind, fits, \
             base_seed ",
            "FROM snapshots ORDER BY created_at, id"
        ))
        .fetch_all(&self.pool)
        .await?)
    }

    /// Forgets a snapshot. False if there was none.
    pub async fn delete_snapshot(&self, id: &str) -> Result<bool> {
        let gone = sqlx::query("DELETE FROM snapshots WHERE id = $1").bind(id).execute(&self.pool).await?;
        Ok(gone.rows_affected() > 0)
    }
}
