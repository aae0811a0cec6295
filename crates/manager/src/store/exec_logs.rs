//! Table `exec_logs`: what was run in each VM, bounded per VM. Which entries are newer does not depend on the clock.

use sqlx::FromRow;

use super::Store;
use crate::error::Result;

/// Entries that are kept for each VM; older ones are dropped.
pub const KEPT_PER_VM: i64 = 1000;

/// Bytes of what was asked and what came out that are kept for each VM, in all its entries; older ones are dropped.
pub const KEPT_BYTES_PER_VM: i64 = 16 << 20;

/// One run.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct ExecLogRow {
    /// UUID.
    pub id: String,
    /// Where it ran.
    pub vm_id: String,
    /// When it began, in milliseconds since 1970.
    pub timestamp: i64,
    /// `exec`, `run-ts` or `run-js`.
    #[sqlx(rename = "type")]
    pub kind: String,
    /// JSON of what was asked, without values of variables.
    pub input: String,
    /// JSON of what came out.
    pub result: String,
    /// How long it took.
    pub duration_ms: i64,
}

impl Store {
    /// Adds an entry and drops the VM's entries beyond [`KEPT_PER_VM`] and [`KEPT_BYTES_PER_VM`]. A conflict if the VM is
    /// gone.
    pub async fn add_exec_log(&self, entry: &ExecLogRow) -> Result<()> {
        let bytes = i64::try_from(entry.input.len() + entry.result.len()).unwrap_or(i64::MAX);
        sqlx::query(
            "INSERT INTO exec_logs (id, vm_id, timestamp, type, input, result, duration_ms, bytes, place)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8,
                     (SELECT COALESCE(MAX(place), 0) + 1 FROM exec_logs WHERE vm_id = $2))",
        )
        .bind(&entry.id)
        .bind(&entry.vm_id)
        .bind(entry.timestamp)
        .bind(&entry.kind)
        .bind(&entry.input)
        .bind(&entry.result)
        .bind(entry.duration_ms)
        .bind(bytes)
        .execute(&self.pool)
        .await?;
        // All of it is in the index: no entry is read.
        sqlx::query(
            "DELETE FROM exec_logs WHERE id IN (
                 SELECT id FROM (
                     SELECT id, ROW_NUMBER() OVER newer AS place, SUM(bytes) OVER newer AS total
                     FROM exec_logs WHERE vm_id = $1 WINDOW newer AS (ORDER BY place DESC, id DESC)
                 ) AS ranked WHERE place > $2 OR total > $3
             )",
        )
        .bind(&entry.vm_id)
        .bind(KEPT_PER_VM)
        .bind(KEPT_BYTES_PER_VM)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The newest entries of a VM, newest first, all kinds or one.
    pub async fn exec_logs(&self, vm_id: &str, kind: Option<&str>, limit: i64) -> Result<Vec<ExecLogRow>> {
        Ok(sqlx::query_as(
            "SELECT id, vm_id, timestamp, type, input, result, duration_ms FROM exec_logs
             WHERE vm_id = $1 AND ($2 IS NULL OR type = $2) ORDER BY place DESC, id DESC LIMIT $3",
        )
        .bind(vm_id)
        .bind(kind)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?)
    }
}
