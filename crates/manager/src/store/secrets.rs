//! Column `secrets` of table `vms`, of all VMs at once.

use sqlx::FromRow;

use super::Store;
use crate::error::{Error, Result};

/// A VM's sealed secrets.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct SealedRow {
    /// The VM.
    pub id: String,
    /// Its secrets, sealed, in base64.
    pub secrets: String,
}

/// Sealed secrets, and what they were before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resealed {
    /// As they were read.
    pub before: SealedRow,
    /// What takes their place.
    pub secrets: String,
}

impl Store {
    /// The secrets of every VM that has any.
    pub async fn sealed_secrets(&self) -> Result<Vec<SealedRow>> {
        Ok(sqlx::query_as("SELECT id, secrets FROM vms WHERE secrets IS NOT NULL ORDER BY id")
            .fetch_all(&self.pool)
            .await?)
    }

    /// Replaces sealed secrets, all or none. A conflict if one of them is not what it was before.
    pub async fn reseal(&self, all: &[Resealed]) -> Result<()> {
        let mut transaction = self.pool.begin().await?;
        for Resealed { before, secrets } in all {
            let changed = sqlx::query("UPDATE vms SET secrets = $3 WHERE id = $1 AND secrets = $2")
                .bind(&before.id)
                .bind(&before.secrets)
                .bind(secrets)
                .execute(&mut *transaction)
                .await?;
            if changed.rows_affected() != 1 {
                return Err(Error::Conflict(format!(
                    "VM {} was changed meanwhile; nothing was changed here",
                    before.id
                )));
            }
        }
        transaction.commit().await?;
        Ok(())
    }
}
