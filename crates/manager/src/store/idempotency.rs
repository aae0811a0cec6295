//! Table `idempotency_keys`: the first answer to a request that a caller may send twice.
//!
//! Whatever such a request makes has its claim in its row, and is written down with it. So what was made is known though
//! the answer was not kept: the server died, the request's task did, or there was no room.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sqlx::FromRow;
use uuid::Uuid;

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
#[derive(Debug)]
pub enum Claim {
    /// It is this caller's: do the work, then call [`Store::finish_idempotent`] or [`Store::release_idempotent`].
    Ours(Work),
    /// An equal request is still at it.
    UnderWay,
    /// The key was used for another body.
    OtherRequest,
    /// The answer of the one that did the work.
    Done {
        /// HTTP status.
        status: i64,
        /// JSON.
        response: String,
    },
}

/// Work on a claimed request. Only one lives at a time; when it is dropped unfinished, the next equal request goes on with
/// it.
#[derive(Debug)]
pub struct Work {
    key: IdempotencyKey,
    claim: String,
    made: Vec<String>,
    under_way: UnderWay,
}

impl Work {
    fn begin(key: &IdempotencyKey, claim: String, under_way: &UnderWay) -> Option<Self> {
        let begun = under_way.claims().insert(claim.clone());
        begun.then(|| Self { key: key.clone(), claim, made: Vec::new(), under_way: under_way.clone() })
    }

    /// What the rows of all that is made by this request are to have as their claim.
    pub fn claim(&self) -> &str {
        &self.claim
    }

    /// Ids of what an equal request made that was not finished, oldest first.
    pub fn made(&self) -> &[String] {
        &self.made
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.under_way.claims().remove(&self.claim);
    }
}

/// The claims that somebody in this process is at.
#[derive(Debug, Clone, Default)]
pub(super) struct UnderWay(Arc<Mutex<HashSet<String>>>);

impl UnderWay {
    fn claims(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(FromRow)]
struct Row {
    request_hash: String,
    claim: String,
    status: Option<i64>,
    response: Option<String>,
}

/// What is known of the request that came first.
enum First {
    /// Nothing more is to be done about it.
    Answered(Claim),
    /// Its claim is this one.
    Unfinished(String),
}

impl Store {
    /// Claims a key for a request. Of any number at once exactly one gets [`Claim::Ours`].
    pub async fn claim_idempotent(&self, key: &IdempotencyKey, request_hash: &str, now: i64) -> Result<Claim> {
        sqlx::query("DELETE FROM idempotency_keys WHERE created_at <= $1")
            .bind(now - KEPT_MS)
            .execute(&self.pool)
            .await?;
        // Before it can be seen: whoever sees it is not to think that nobody is at it.
        let new = Work::begin(key, Uuid::new_v4().to_string(), &self.under_way);
        let inserted = sqlx::query(
            "INSERT INTO idempotency_keys (caller, scope, key, request_hash, created_at, claim)
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (caller, scope, key) DO NOTHING",
        )
        .bind(&key.caller)
        .bind(&key.scope)
        .bind(&key.key)
        .bind(request_hash)
        .bind(now)
        .bind(new.as_ref().map(Work::claim))
        .execute(&self.pool)
        .await?;
        if inserted.rows_affected() > 0 {
            return Ok(new.map_or(Claim::UnderWay, Claim::Ours));
        }
        let claim = match self.first_idempotent(key, request_hash).await? {
            First::Answered(answer) => return Ok(answer),
            First::Unfinished(claim) => claim,
        };
        let Some(mut work) = Work::begin(key, claim, &self.under_way) else { return Ok(Claim::UnderWay) };
        // It may have been finished just before.
        if let First::Answered(answer) = self.first_idempotent(key, request_hash).await? {
            return Ok(answer);
        }
        work.made = self.made_for(&work.claim).await?;
        Ok(Claim::Ours(work))
    }

    async fn first_idempotent(&self, key: &IdempotencyKey, request_hash: &str) -> Result<First> {
        let row: Option<Row> = sqlx::query_as(
            "SELECT request_hash, claim, status, response FROM idempotency_keys
             WHERE caller = $1 AND scope = $2 AND key = $3",
        )
        .bind(&key.caller)
        .bind(&key.scope)
        .bind(&key.key)
        .fetch_optional(&self.pool)
        .await?;
        Ok(match row {
            None => First::Answered(Claim::UnderWay),
            Some(row) if row.request_hash != request_hash => First::Answered(Claim::OtherRequest),
            Some(Row { status: Some(status), response: Some(response), .. }) => {
                First::Answered(Claim::Done { status, response })
            }
            Some(row) => First::Unfinished(row.claim),
        })
    }

    /// Ids of what has a claim in its row.
    async fn made_for(&self, claim: &str) -> Result<Vec<String>> {
        let made = "SELECT id FROM (SELECT id, created_at FROM vms WHERE claim = $1
                    UNION ALL SELECT id, created_at FROM snapshots WHERE claim = $1) AS made ORDER BY created_at, id";
        Ok(sqlx::query_scalar(made).bind(claim).fetch_all(&self.pool).await?)
    }

    /// Keeps the answer of a claimed request.
    pub async fn finish_idempotent(&self, work: Work, status: i64, response: &str) -> Result<()> {
        sqlx::query(
            "UPDATE idempotency_keys SET status = $5, response = $6
             WHERE caller = $1 AND scope = $2 AND key = $3 AND claim = $4",
        )
        .bind(&work.key.caller)
        .bind(&work.key.scope)
        .bind(&work.key.key)
        .bind(&work.claim)
        .bind(status)
        .bind(response)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Gives a claimed key back after a failure, so that the caller can try again. Not if something was made: it would be made
    /// twice.
    pub async fn release_idempotent(&self, work: Work) -> Result<()> {
        sqlx::query(
            "DELETE FROM idempotency_keys WHERE caller = $1 AND scope = $2 AND key = $3 AND claim = $4
             AND NOT EXISTS (SELECT 1 FROM vms WHERE claim = $4)
             AND NOT EXISTS (SELECT 1 FROM snapshots WHERE claim = $4)",
        )
        .bind(&work.key.caller)
        .bind(&work.key.scope)
        .bind(&work.key.key)
        .bind(&work.claim)
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
