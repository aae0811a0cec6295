//! Table `activity`: what happened, for people; bounded.

use sqlx::FromRow;

use super::Store;
use super::webhooks::add_deliveries;
use crate::error::{Error, Result};

/// Events that are kept; older ones are dropped.
pub const KEPT: i64 = 10_000;

/// One event.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct ActivityRow {
    /// UUID.
    pub id: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Such as `vm.created`.
    #[sqlx(rename = "type")]
    pub kind: String,
    /// Such as `vm`.
    pub entity_type: Option<String>,
    /// Which one.
    pub entity_id: Option<String>,
    /// For people.
    pub message: String,
    /// JSON object.
    pub meta: Option<String>,
}

impl Store {
    /// Adds an event, with a delivery of `data` to every webhook that wants it, and drops events beyond [`KEPT`].
    /// Gives the number of deliveries that are dropped at once, because too many wait.
    pub async fn add_activity(&self, event: &ActivityRow, data: &str) -> Result<usize> {
        match self.try_add_activity(event, data).await {
            // In Postgres a webhook can go between being read and being referred to.
            Err(Error::Conflict(_)) => self.try_add_activity(event, data).await,
            done => done,
        }
    }

    async fn try_add_activity(&self, event: &ActivityRow, data: &str) -> Result<usize> {
        let mut transaction = self.pool.begin().await?;
        // A change comes first: so SQLite never has to make a reader a writer.
        sqlx::query(
            "INSERT INTO activity (id, created_at, type, entity_type, entity_id, message, meta)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(&event.id)
        .bind(event.created_at)
        .bind(&event.kind)
        .bind(&event.entity_type)
        .bind(&event.entity_id)
        .bind(&event.message)
        .bind(&event.meta)
        .execute(&mut *transaction)
        .await?;
        let dropped = add_deliveries(&mut transaction, &event.kind, event.created_at, data).await?;
        sqlx::query(
            "DELETE FROM activity WHERE created_at <
             (SELECT created_at FROM activity ORDER BY created_at DESC LIMIT 1 OFFSET $1)",
        )
        .bind(KEPT - 1)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(dropped)
    }

    /// The newest events, newest first.
    pub async fn activity(&self, limit: i64) -> Result<Vec<ActivityRow>> {
        Ok(sqlx::query_as(
            "SELECT id, created_at, type, entity_type, entity_id, message, meta FROM activity
             ORDER BY created_at DESC, id DESC LIMIT $1",
        )
        .bind(limit)
        .fetch_all(&self.pool)
        .await?)
    }
}
