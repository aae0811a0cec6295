//! Table `api_keys`. A key itself is nowhere: only a salted hash of its secret part.

use sqlx::FromRow;

use super::Store;
use crate::error::Result;

/// One key.
#[derive(Debug, Clone, FromRow)]
pub struct ApiKeyRow {
    /// UUID.
    pub id: String,
    /// For people.
    pub name: String,
    /// `rds_<12 hex>`; finds the row, proves nothing.
    pub prefix: String,
    /// Hexadecimal.
    pub salt: String,
    /// Hexadecimal.
    pub hash: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub expires_at: Option<i64>,
    /// Milliseconds since 1970.
    pub revoked_at: Option<i64>,
    /// Milliseconds since 1970; up to a minute behind.
    pub last_used_at: Option<i64>,
}

impl Store {
    /// Adds a key.
    pub async fn insert_api_key(&self, key: &ApiKeyRow) -> Result<()> {
        sqlx::query(
            "INSERT INTO api_keys (id, name, prefix, salt, hash, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(&key.id)
        .bind(&key.name)
        .bind(&key.prefix)
        .bind(&key.salt)
        .bind(&key.hash)
        .bind(key.created_at)
        .bind(key.expires_at)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The key with a prefix, whether it still counts or not.
    pub async fn api_key_by_prefix(&self, prefix: &str) -> Result<Option<ApiKeyRow>> {
        Ok(sqlx::query_as(
            "SELECT id, name, prefix, salt, hash, created_at, expires_at, revoked_at, last_used_at
             FROM api_keys WHERE prefix = $1",
        )
        .bind(prefix)
        .fetch_optional(&self.pool)
        .await?)
    }

    /// All keys, newest first, with those that no longer count.
    pub async fn api_keys(&self) -> Result<Vec<ApiKeyRow>> {
        Ok(sqlx::query_as(
            "SELECT id, name, prefix, salt, hash, created_at, expires_at, revoked_at, last_used_at
             FROM api_keys ORDER BY created_at DESC, id",
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// Revokes a key for good; the time of a first revocation stays. False if there is no such key.
    pub async fn revoke_api_key(&self, id: &str, now: i64) -> Result<bool> {
        let changed = sqlx::query("UPDATE api_keys SET revoked_at = COALESCE(revoked_at, $2) WHERE id = $1")
            .bind(id)
            .bind(now)
            .execute(&self.durable)
            .await?;
        Ok(changed.rows_affected() > 0)
    }

    /// Notes that a key was used.
    pub async fn touch_api_key(&self, id: &str, now: i64) -> Result<()> {
        sqlx::query("UPDATE api_keys SET last_used_at = $2 WHERE id = $1")
            .bind(id)
            .bind(now)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}
