//! Tables `webhooks` and `webhook_deliveries`: where events are sent, and what became of each that was; bounded per webhook.

use std::fmt;

use sqlx::{Any, FromRow, Transaction};

use super::Store;
use crate::error::Result;

/// Deliveries of one webhook that may wait; what comes then is dropped.
pub const MAX_WAITING: i64 = 1000;

/// Deliveries of one webhook that are kept for its log once they ended.
pub const KEPT_PER_WEBHOOK: i64 = 200;

/// State of a delivery that is still to be made.
pub const WAITING: &str = "waiting";
/// State of one that was not even tried, because too many waited.
pub const DROPPED: &str = "dropped";

/// A place that events are sent to.
#[derive(Clone, PartialEq, FromRow)]
pub struct WebhookRow {
    /// UUID.
    pub id: String,
    /// For people.
    pub name: String,
    /// May hold a token.
    pub url: String,
    /// 1 if events are sent.
    pub enabled: i64,
    /// JSON array of kinds of events.
    pub event_types: String,
    /// What deliveries are signed with.
    pub secret: String,
    /// 1 if the secret is sealed and in base64.
    pub sealed: i64,
    /// Milliseconds since 1970.
    pub created_at: i64,
}

impl fmt::Debug for WebhookRow {
    /// Without the secret, which need not be sealed, and the URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookRow").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

/// What is to be changed of a webhook.
#[derive(Default)]
pub struct WebhookChange {
    /// For people.
    pub name: Option<String>,
    /// Where to.
    pub url: Option<String>,
    /// 1 if events are sent.
    pub enabled: Option<i64>,
    /// JSON array of kinds of events.
    pub event_types: Option<String>,
    /// The secret, and 1 if it is sealed.
    pub secret: Option<(String, i64)>,
}

/// A delivery for the log.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct DeliveryRow {
    /// UUID; the receiver sees it.
    pub id: String,
    /// Kind of event.
    pub event: String,
    /// When it happened, in milliseconds since 1970.
    pub created_at: i64,
    /// [`WAITING`], `delivered`, `failed` or [`DROPPED`].
    pub state: String,
    /// When it is tried next, in milliseconds since 1970.
    pub due_at: i64,
    /// How often it was tried.
    pub attempts: i64,
    /// When it was tried last.
    pub attempted_at: Option<i64>,
    /// What that took.
    pub duration_ms: Option<i64>,
    /// The HTTP status that came back.
    pub status: Option<i64>,
    /// What went wrong, in words of ours.
    pub error: Option<String>,
}

/// The next delivery of an enabled webhook, with what it takes to make it.
#[derive(Clone, FromRow)]
pub struct NextDelivery {
    /// UUID.
    pub id: String,
    /// Whose.
    pub webhook_id: String,
    /// Kind of event.
    pub event: String,
    /// When it happened, in milliseconds since 1970.
    pub created_at: i64,
    /// The event, in JSON.
    pub data: String,
    /// How often it was tried.
    pub attempts: i64,
    /// When it is to be tried, in milliseconds since 1970.
    pub due_at: i64,
    /// Where to.
    pub url: String,
    /// What it is signed with.
    pub secret: String,
    /// 1 if that is sealed.
    pub sealed: i64,
}

/// An event for one webhook.
#[derive(Debug, Clone, Copy)]
pub struct NewDelivery<'a> {
    /// UUID.
    pub id: &'a str,
    /// Whose.
    pub webhook_id: &'a str,
    /// Kind of event.
    pub event: &'a str,
    /// When it happened, in milliseconds since 1970.
    pub created_at: i64,
    /// The event, in JSON.
    pub data: &'a str,
}

/// How an attempt ended, and what comes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// [`WAITING`] if there is to be another.
    pub state: &'static str,
    /// When that is due.
    pub due_at: i64,
    /// When this one began.
    pub at: i64,
    /// What it took.
    pub duration_ms: i64,
    /// The HTTP status that came back.
    pub status: Option<i64>,
    /// What went wrong.
    pub error: Option<String>,
}

/// Whether one of the kinds of events in a list, such as `vm.created`, `vm.*` or `*`, is this one.
pub fn wants(kinds: &[String], kind: &str) -> bool {
    kinds.iter().any(|wanted| match wanted.strip_suffix('*') {
        Some(prefix) => kind.starts_with(prefix),
        None => wanted == kind,
    })
}

impl Store {
    /// Adds a webhook unless there are `most` already; false then.
    pub async fn insert_webhook(&self, webhook: &WebhookRow, most: i64) -> Result<bool> {
        let added = sqlx::query(
            "INSERT INTO webhooks (id, name, url, enabled, event_types, secret, sealed, created_at)
             SELECT CAST($1 AS TEXT), CAST($2 AS TEXT), CAST($3 AS TEXT), CAST($4 AS BIGINT), CAST($5 AS TEXT),
                    CAST($6 AS TEXT), CAST($7 AS BIGINT), CAST($8 AS BIGINT)
             WHERE (SELECT COUNT(*) FROM webhooks) < $9",
        )
        .bind(&webhook.id)
        .bind(&webhook.name)
        .bind(&webhook.url)
        .bind(webhook.enabled)
        .bind(&webhook.event_types)
        .bind(&webhook.secret)
        .bind(webhook.sealed)
        .bind(webhook.created_at)
        .bind(most)
        .execute(&self.pool)
        .await?;
        Ok(added.rows_affected() > 0)
    }

    /// All webhooks, newest first.
    pub async fn webhooks(&self) -> Result<Vec<WebhookRow>> {
        Ok(sqlx::query_as(
            "SELECT id, name, url, enabled, event_types, secret, sealed, created_at FROM webhooks
             ORDER BY created_at DESC, id",
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// One webhook.
    pub async fn webhook(&self, id: &str) -> Result<Option<WebhookRow>> {
        Ok(sqlx::query_as(
            "SELECT id, name, url, enabled, event_types, secret, sealed, created_at FROM webhooks WHERE id = $1",
        )
        .bind(id)
        .fetch_optional(&self.pool)
        .await?)
    }

    /// Changes a webhook. False if there is none.
    pub async fn change_webhook(&self, id: &str, change: &WebhookChange) -> Result<bool> {
        let (secret, sealed) = change.secret.as_ref().map(|(secret, sealed)| (secret.as_str(), *sealed)).unzip();
        let changed = sqlx::query(
            "UPDATE webhooks SET name = COALESCE($2, name), url = COALESCE($3, url), enabled = COALESCE($4, enabled),
                 event_types = COALESCE($5, event_types), secret = COALESCE($6, secret), sealed = COALESCE($7, sealed)
             WHERE id = $1",
        )
        .bind(id)
        .bind(&change.name)
        .bind(&change.url)
        .bind(change.enabled)
        .bind(&change.event_types)
        .bind(secret)
        .bind(sealed)
        .execute(&self.durable)
        .await?;
        Ok(changed.rows_affected() > 0)
    }

    /// Removes a webhook with its deliveries, for good. False if there is none.
    pub async fn delete_webhook(&self, id: &str) -> Result<bool> {
        let gone = sqlx::query("DELETE FROM webhooks WHERE id = $1").bind(id).execute(&self.durable).await?;
        Ok(gone.rows_affected() > 0)
    }

    /// Adds a delivery to those that wait.
    pub async fn add_delivery(&self, delivery: &NewDelivery<'_>) -> Result<()> {
        let mut transaction = self.begin().await?;
        add_delivery(&mut transaction, delivery).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// The newest deliveries of a webhook, newest first.
    pub async fn deliveries(&self, webhook_id: &str, limit: i64) -> Result<Vec<DeliveryRow>> {
        Ok(sqlx::query_as(
            "SELECT id, event, created_at, state, due_at, attempts, attempted_at, duration_ms, status, error
             FROM webhook_deliveries WHERE webhook_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2",
        )
        .bind(webhook_id)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?)
    }

    /// Of each enabled webhook for which deliveries wait, the one that is due first.
    pub async fn next_deliveries(&self) -> Result<Vec<NextDelivery>> {
        Ok(sqlx::query_as(
            "SELECT d.id, d.webhook_id, d.event, d.created_at, d.data, d.attempts, d.due_at, w.url, w.secret, w.sealed
             FROM webhooks w JOIN webhook_deliveries d ON d.id = (
                 SELECT id FROM webhook_deliveries WHERE webhook_id = w.id AND state = 'waiting'
                 ORDER BY due_at, id LIMIT 1)
             WHERE w.enabled = 1 ORDER BY d.due_at",
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// Writes down how an attempt ended. Does nothing if the delivery went with its webhook.
    pub async fn end_attempt(&self, delivery: &NextDelivery, attempt: &Attempt) -> Result<()> {
        let mut transaction = self.begin().await?;
        sqlx::query(
            "UPDATE webhook_deliveries SET state = $2, due_at = $3, attempts = attempts + 1, attempted_at = $4,
                 duration_ms = $5, status = $6, error = $7
             WHERE id = $1",
        )
        .bind(&delivery.id)
        .bind(attempt.state)
        .bind(attempt.due_at)
        .bind(attempt.at)
        .bind(attempt.duration_ms)
        .bind(attempt.status)
        .bind(&attempt.error)
        .execute(&mut *transaction)
        .await?;
        prune(&mut transaction, &delivery.webhook_id).await?;
        transaction.commit().await?;
        Ok(())
    }
}

/// Adds a delivery of an event for every enabled webhook that wants it; gives the number of those that are dropped at once.
pub(super) async fn add_deliveries(
    transaction: &mut Transaction<'_, Any>,
    event: &str,
    created_at: i64,
    data: &str,
) -> Result<usize> {
    let mut dropped = 0;
    let enabled: Vec<(String, String)> =
        sqlx::query_as("SELECT id, event_types FROM webhooks WHERE enabled = 1").fetch_all(&mut **transaction).await?;
    for (webhook_id, kinds) in enabled {
        let kinds: Vec<String> = serde_json::from_str(&kinds).unwrap_or_default();
        if wants(&kinds, event) {
            let id = uuid::Uuid::new_v4().to_string();
            let delivery = NewDelivery { id: &id, webhook_id: &webhook_id, event, created_at, data };
            dropped += usize::from(!add_delivery(transaction, &delivery).await?);
        }
    }
    Ok(dropped)
}

/// False if it is dropped, because too many wait.
async fn add_delivery(transaction: &mut Transaction<'_, Any>, delivery: &NewDelivery<'_>) -> Result<bool> {
    let waiting: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM webhook_deliveries WHERE webhook_id = $1 AND state = 'waiting'")
            .bind(delivery.webhook_id)
            .fetch_one(&mut **transaction)
            .await?;
    let full = waiting >= MAX_WAITING;
    sqlx::query(
        "INSERT INTO webhook_deliveries (id, webhook_id, event, created_at, data, state, due_at, error)
         VALUES ($1, $2, $3, $4, $5, $6, $4, $7)",
    )
    .bind(delivery.id)
    .bind(delivery.webhook_id)
    .bind(delivery.event)
    .bind(delivery.created_at)
    .bind(if full { "" } else { delivery.data })
    .bind(if full { DROPPED } else { WAITING })
    .bind(full.then_some("too many deliveries waited"))
    .execute(&mut **transaction)
    .await?;
    if full {
        prune(transaction, delivery.webhook_id).await?;
    }
    Ok(!full)
}

/// Drops what is beyond [`KEPT_PER_WEBHOOK`] of a webhook's deliveries that ended.
async fn prune(transaction: &mut Transaction<'_, Any>, webhook_id: &str) -> Result<()> {
    sqlx::query(
        "DELETE FROM webhook_deliveries WHERE id IN (
             SELECT id FROM webhook_deliveries WHERE webhook_id = $1 AND state <> 'waiting'
             ORDER BY created_at DESC, id DESC LIMIT 1000000 OFFSET $2)",
    )
    .bind(webhook_id)
    .bind(KEPT_PER_WEBHOOK)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_the_rest() {
        let wanted =
            |kinds: &[&str], kind: &str| wants(&kinds.iter().map(|kind| (*kind).to_owned()).collect::<Vec<_>>(), kind);
        assert!(wanted(&["*"], "vm.created") && wanted(&["vm.*"], "vm.created") && wanted(&["a.b", "c.d"], "c.d"));
        assert!(
            !wanted(&["vm.*"], "vmm.created") && !wanted(&["vm.created"], "vm.created_again") && !wanted(&[], "a.b")
        );
    }
}
