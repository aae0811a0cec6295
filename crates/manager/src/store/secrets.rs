//! Columns `secrets` of table `vms` and `secret` of table `webhooks`, of all of them at once.

use std::fmt;

use super::Store;
use crate::error::{Error, Result};

/// What has sealed secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A VM: its environment.
    Vm,
    /// A webhook: what its deliveries are signed with.
    Webhook,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vm => "VM",
            Self::Webhook => "webhook",
        })
    }
}

/// Sealed secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedRow {
    /// What has them.
    pub kind: Kind,
    /// Which one.
    pub id: String,
    /// The secrets, sealed, in base64.
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
    /// All secrets that are sealed.
    pub async fn sealed_secrets(&self) -> Result<Vec<SealedRow>> {
        let vms = "SELECT id, secrets FROM vms WHERE secrets IS NOT NULL ORDER BY id";
        let webhooks = "SELECT id, secret FROM webhooks WHERE sealed = 1 ORDER BY id";
        let mut all = Vec::new();
        for (kind, statement) in [(Kind::Vm, vms), (Kind::Webhook, webhooks)] {
            let rows: Vec<(String, String)> = sqlx::query_as(statement).fetch_all(&self.pool).await?;
            all.extend(rows.into_iter().map(|(id, secrets)| SealedRow { kind, id, secrets }));
        }
        Ok(all)
    }

    /// Replaces sealed secrets, all or none. A conflict if one of them is not what it was before.
    pub async fn reseal(&self, all: &[Resealed]) -> Result<()> {
        let mut transaction = self.begin().await?;
        for Resealed { before, secrets } in all {
            let statement = match before.kind {
                Kind::Vm => "UPDATE vms SET secrets = $3 WHERE id = $1 AND secrets = $2",
                Kind::Webhook => "UPDATE webhooks SET secret = $3 WHERE id = $1 AND secret = $2 AND sealed = 1",
            };
            let changed = sqlx::query(statement)
                .bind(&before.id)
                .bind(&before.secrets)
                .bind(secrets)
                .execute(&mut *transaction)
                .await?;
            if changed.rows_affected() != 1 {
                let (kind, id) = (before.kind, &before.id);
                return Err(Error::Conflict(format!("{kind} {id} was changed meanwhile; nothing was changed here")));
            }
        }
        transaction.commit().await?;
        Ok(())
    }
}
