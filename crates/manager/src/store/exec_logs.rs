//! Table `exec_logs`: what was run in each VM, bounded per VM.

use sqlx::FromRow;

use super::Store;
use crate::error::Result;

/// Entries that are kept for each VM; older ones are dropped.
pub const KEPT_PER_VM: i64 = 1000;

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
    /// Adds an entry and drops the VM's entries beyond [`KEPT_PER_VM`].
    pub async fn add_exec_log(&self, entry: &ExecLogRow) -> Result<()> {
        sqlx::query(
            "INSERT INTO exec_logs (id, vm_id, timestamp, type, input, result, duration_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(&entry.id)
        .bind(&entry.vm_id)
        .bind(entry.timestamp)
        .bind(&entry.kind)
        .bind(&entry.input)
        .bind(&entry.result)
        .bind(entry.duration_ms)
        .execute(&self.pool)
        .await?;
        sqlx::query(
            "DELETE FROM exec_logs WHERE vm_id = $1 AND timestamp <
             (SELECT timestamp FROM exec_logs WHERE vm_id = $1 ORDER BY timestamp DESC LIMIT 1 OFFSET $2)",
        )
        .bind(&entry.vm_id)
        .bind(KEPT_PER_VM - 1)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The newest entries of a VM, newest first, all kinds or one.
    pub async fn exec_logs(&self, vm_id: &str, kind: Option<&str>, limit: i64) -> Result<Vec<ExecLogRow>> {
        Ok(sqlx::query_as(
            "SELECT id, vm_id, timestamp, type, input, result, duration_ms FROM exec_logs
             WHERE vm_id = $1 AND ($2 IS NULL OR type = $2) ORDER BY timestamp DESC, id DESC LIMIT $3",
        )
        .bind(vm_id)
        .bind(kind)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?)
    }
}
