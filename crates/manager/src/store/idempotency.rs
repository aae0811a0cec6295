//! Table `idempotency_keys`: the first answer to a request that a caller may send twice.

use sqlx::FromRow;

use super::Store;
use crate::error::Result;

/// How long an answer is given again (section 2 of the wire contract: a day).
pub const KEPT_MS: i64 = 24 * 60 * 60 * 1000;

/// Which request: two with the same three parts are the same.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    /// The principal; keys of different callers never meet.
    pub caller: String,
    /// The operation, such as `POST /v1/vms`.
    pub scope: String,
    /// What the caller sent.
    pub key: String,
}

/// What became of a claim.
#[derive(Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is the first: do the work, then call [`Store::finish_idempotent`] or [`Store::release_idempotent`].
    First,
    /// The first one is still at it.
    UnderWay,
    /// The key was used for another body.
    OtherRequest,
    /// The first one's answer.
    Done {
        /// HTTP status.
        status: i64,
        /// JSON.
        response: String,
    },
}

#[derive(FromRow)]
struct Row {
    request_hash: String,
    status: Option<i64>,
    response: Option<String>,
}

impl Store {
    /// Claims a key for a request. Of any number at once exactly one gets [`Claim::First`].
    pub async fn claim_idempotent(&self, key: &IdempotencyKey, request_hash: &str, now: i64) -> Result<Claim> {
        sqlx::query("DELETE FROM idempotency_keys WHERE created_at <= $1")
            .bind(now - KEPT_MS)
            .execute(&self.pool)
            .await?;
        let inserted = sqlx::query(
            "INSERT INTO idempotency_keys (caller, scope, key, request_hash, created_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (caller, scope, key) DO NOTHING",
        )
        .bind(&key.caller)
        .bind(&key.scope)
        .bind(&key.key)
        .bind(request_hash)
        .bind(now)
        .execute(&self.pool)
        .await?;
        if inserted.rows_affected() > 0 {
            return Ok(Claim::First);
        }
        let row: Option<Row> = sqlx::query_as(
            "SELECT request_hash, status, response FROM idempotency_keys
             WHERE caller = $1 AND scope = $2 AND key = $3",
        )
        .bind(&key.caller)
        .bind(&key.scope)
        .bind(&key.key)
        .fetch_optional(&self.pool)
        .await?;
        Ok(match row {
            Some(row) if row.request_hash != request_hash => Claim::OtherRequest,
            Some(Row { status: Some(status), response: Some(response), .. }) => Claim::Done { status, response },
            _ => Claim::UnderWay,
        })
    }

    /// Keeps the answer of a claimed request.
    pub async fn finish_idempotent(&self, key: &IdempotencyKey, status: i64, response: &str) -> Result<()> {
        sqlx::query(
            "UPDATE idempotency_keys SET status = $4, response = $5 WHERE caller = $1 AND scope = $2 AND key = $3",
        )
        .bind(&key.caller)
        .bind(&key.scope)
        .bind(&key.key)
        .bind(status)
        .bind(response)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Gives a claimed key back after a failure, so that the caller can try again.
    pub async fn release_idempotent(&self, key: &IdempotencyKey) -> Result<()> {
        sqlx::query("DELETE FROM idempotency_keys WHERE caller = $1 AND scope = $2 AND key = $3 AND response IS NULL")
            .bind(&key.caller)
            .bind(&key.scope)
            .bind(&key.key)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Gives back every claim that a manager before this one left unfinished.
    pub async fn release_unfinished_idempotent(&self) -> Result<()> {
        sqlx::query("DELETE FROM idempotency_keys WHERE response IS NULL").execute(&self.pool).await?;
        Ok(())
    }
}
