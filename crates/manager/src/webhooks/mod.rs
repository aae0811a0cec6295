//! Webhooks: what happened is sent to whoever asked for it, signed, at least once.
//!
//! A delivery is written down in the transaction that writes its event down ([`crate::store::activity`]), so whatever was
//! recorded is sent, however often the server is killed meanwhile; one task makes the deliveries ([`courier`]). A receiver may
//! hang, lie or lead anywhere: each has its own turn and its own bounded queue, and is reached only at addresses that are part of
//! the Internet or that the operator allowed ([`target`], [`send`]). This module must not know what an event is about.

mod courier;
mod secret;
mod send;
mod target;

use std::sync::{Arc, Mutex, PoisonError};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::activity::{Activity, Entity, Event, EventView};
use crate::clock::{now_ms, rfc3339};
use crate::config::WebhooksConfig;
use crate::error::{Error, Result};
use crate::secrets::Sealer;
use crate::store::Store;
use crate::store::webhooks::{DeliveryRow, NewDelivery, WAITING, WebhookChange, WebhookRow};

use courier::{Courier, Work};
use secret::Secret;
pub(crate) use secret::holder;
use send::Sender;
use target::Reach;

/// Webhooks there may be.
const MAX_WEBHOOKS: i64 = 50;
const MAX_NAME: usize = 200;
const MAX_TYPES: usize = 64;
const MAX_TYPE: usize = 64;

/// The event of a test; nothing else has it.
const TEST: &str = "webhook.test";

/// A place that events are sent to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Webhook)]
pub struct WebhookView {
    /// UUID.
    pub id: String,
    /// For people.
    pub name: String,
    /// Where to.
    #[schema(example = "https://example.com/hooks/rds")]
    pub url: String,
    /// Whether events are sent. A receiver that answers 410 (Gone) ends that.
    pub enabled: bool,
    /// Which ones.
    #[schema(example = json!(["vm.created", "image.*"]))]
    pub event_types: Vec<String>,
    /// RFC 3339, milliseconds, `Z`.
    #[schema(format = DateTime)]
    pub created_at: String,
}

impl From<WebhookRow> for WebhookView {
    fn from(row: WebhookRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            url: row.url,
            enabled: row.enabled != 0,
            event_types: serde_json::from_str(&row.event_types).unwrap_or_default(),
            created_at: rfc3339(row.created_at),
        }
    }
}

/// Body of `POST /v1/admin/webhooks`.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateWebhook {
    /// For people; the URL's host if absent.
    #[schema(max_length = 200)]
    name: Option<String>,
    /// An http or https URL, without a user and a password.
    #[schema(max_length = 2048, example = "https://example.com/hooks/rds")]
    url: String,
    /// Kinds of events: `vm.created`, `vm.*` for all of VMs, or `*` for all. At most 64.
    #[schema(min_items = 1, max_items = 64, example = json!(["vm.created", "image.*"]))]
    event_types: Vec<String>,
    /// True if absent.
    enabled: Option<bool>,
    /// What deliveries are signed with: `whsec_` and 24 to 64 bytes in base64. The server makes one if absent.
    secret: Option<String>,
}

/// Body of `PATCH /v1/admin/webhooks/{id}`. What is absent stays.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangeWebhook {
    /// For people.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// Where to.
    #[schema(max_length = 2048)]
    url: Option<String>,
    /// Which events.
    #[schema(min_items = 1, max_items = 64)]
    event_types: Option<Vec<String>>,
    /// Whether events are sent. While a webhook is disabled nothing is kept for it; what waited before waits on.
    enabled: Option<bool>,
    /// Another secret. Deliveries that wait are signed with it, too.
    secret: Option<String>,
    /// True to have another secret made.
    rotate_secret: Option<bool>,
}

/// One event for one webhook.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = WebhookDelivery)]
pub struct DeliveryView {
    /// UUID, the same in all attempts: the receiver sees it as `webhook-id`.
    pub id: String,
    /// Kind of event.
    #[schema(example = "vm.created")]
    pub event: String,
    /// When it happened.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// `waiting`, `delivered`, `failed` after the last attempt or since the receiver is gone, or `dropped` because too many
    /// waited.
    #[schema(example = "delivered")]
    pub state: String,
    /// How often it was tried.
    pub attempts: i64,
    /// When it is tried next.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub next_attempt_at: Option<String>,
    /// When it was tried last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub last_attempt_at: Option<String>,
    /// What that took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<i64>,
    /// The HTTP status that came back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<i64>,
    /// Why it did not succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "no connection could be made")]
    pub error: Option<String>,
}

impl From<DeliveryRow> for DeliveryView {
    fn from(row: DeliveryRow) -> Self {
        Self {
            next_attempt_at: (row.state == WAITING).then(|| rfc3339(row.due_at)),
            id: row.id,
            event: row.event,
            created_at: rfc3339(row.created_at),
            state: row.state,
            attempts: row.attempts,
            last_attempt_at: row.attempted_at.map(rfc3339),
            duration_ms: row.duration_ms,
            status: row.status,
            error: row.error,
        }
    }
}

/// A webhook, and its secret if that is new.
#[derive(Debug)]
pub struct Shown {
    /// What is always shown.
    pub webhook: WebhookView,
    /// What is shown this once.
    pub secret: Option<SecretString>,
}

/// The service.
#[derive(Debug)]
pub struct Webhooks {
    store: Store,
    activity: Activity,
    sealer: Option<Arc<Sealer>>,
    reach: Reach,
    wake: Arc<Notify>,
    courier: Mutex<Option<JoinHandle<()>>>,
}

impl Webhooks {
    /// Goes on with what an earlier server left undone.
    pub async fn start(
        config: &WebhooksConfig,
        store: Store,
        activity: Activity,
        sealer: Option<Arc<Sealer>>,
        shutdown: CancellationToken,
    ) -> Result<Self> {
        if let Some(sealer) = sealer.as_deref() {
            seal(&store, sealer).await?;
        }
        let (reach, wake) = (Reach::new(&config.webhook_allow_networks), Arc::new(Notify::new()));
        let work = Work { store: store.clone(), sender: Sender::new(reach.clone()), sealer: sealer.clone() };
        let (work, events) = (Arc::new(work), activity.listen());
        let courier = Courier { work, activity: activity.clone(), events, wake: Arc::clone(&wake), shutdown };
        let courier = tokio::spawn(courier.run());
        Ok(Self { store, activity, sealer, reach, wake, courier: Mutex::new(Some(courier)) })
    }

    /// Waits for what is under way, once the server is to end.
    pub async fn close(&self) {
        let courier = self.courier.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(courier) = courier
            && let Err(error) = courier.await
        {
            tracing::error!(%error, "the task that sends to webhooks failed");
        }
    }

    /// All webhooks, newest first.
    pub async fn list(&self) -> Result<Vec<WebhookView>> {
        Ok(self.store.webhooks().await?.into_iter().map(WebhookView::from).collect())
    }

    /// Makes a webhook.
    pub async fn create(&self, body: CreateWebhook) -> Result<Shown> {
        let target = self.reach.parse(&body.url)?;
        let name = body.name.map_or_else(|| Ok(target.host().to_string()), |name| self::name(&name))?;
        let event_types = event_types(&body.event_types)?;
        let secret = body.secret.map_or_else(|| Ok(Secret::new()), |text| Secret::parse(&text))?;
        let id = Uuid::new_v4().to_string();
        let (kept, sealed) = secret.keep(&id, self.sealer.as_deref())?;
        let row = WebhookRow {
            id,
            name,
            url: body.url,
            enabled: i64::from(body.enabled.unwrap_or(true)),
            event_types,
            secret: kept,
            sealed,
            created_at: now_ms(),
        };
        if !self.store.insert_webhook(&row, MAX_WEBHOOKS).await? {
            let message = format!("There are {MAX_WEBHOOKS} webhooks already, and there may be no more");
            return Err(Error::TooMany { message, retry_after: None });
        }
        let webhook = WebhookView::from(row);
        self.activity.record("webhook.created", &webhook.id, format!("Webhook {} made", webhook.name), None).await;
        Ok(Shown { webhook, secret: Some(secret.text().clone()) })
    }

    /// Changes a webhook.
    pub async fn change(&self, id: &str, body: ChangeWebhook) -> Result<Shown> {
        if let Some(url) = &body.url {
            self.reach.parse(url)?;
        }
        let secret = match (body.secret, body.rotate_secret) {
            (Some(_), Some(true)) => return Err(Error::invalid("give either secret or rotateSecret")),
            (Some(text), _) => Some(Secret::parse(&text)?),
            (None, Some(true)) => Some(Secret::new()),
            (None, _) => None,
        };
        let change = WebhookChange {
            name: body.name.as_deref().map(name).transpose()?,
            url: body.url,
            enabled: body.enabled.map(i64::from),
            event_types: body.event_types.as_deref().map(event_types).transpose()?,
            secret: secret.as_ref().map(|secret| secret.keep(id, self.sealer.as_deref())).transpose()?,
        };
        if !self.store.change_webhook(id, &change).await? {
            return Err(unknown());
        }
        let webhook = self.webhook(id).await?;
        self.activity.record("webhook.updated", id, format!("Webhook {} changed", webhook.name), None).await;
        Ok(Shown { webhook, secret: secret.map(|secret| secret.text().clone()) })
    }

    /// Removes a webhook; nothing is sent to it from now on.
    pub async fn delete(&self, id: &str) -> Result<()> {
        if !self.store.delete_webhook(id).await? {
            return Err(unknown());
        }
        self.activity.record("webhook.deleted", id, "Webhook deleted", None).await;
        Ok(())
    }

    /// What was sent lately, newest first.
    pub async fn deliveries(&self, id: &str, limit: u32) -> Result<Vec<DeliveryView>> {
        self.webhook(id).await?;
        let rows = self.store.deliveries(id, i64::from(limit)).await?;
        Ok(rows.into_iter().map(DeliveryView::from).collect())
    }

    /// Sends an event of which nobody else hears; gives the id of its delivery.
    pub async fn test(&self, id: &str) -> Result<String> {
        if !self.webhook(id).await?.enabled {
            return Err(Error::conflict("The webhook is disabled"));
        }
        let event = Event {
            id: Uuid::new_v4().to_string(),
            created_at: now_ms(),
            kind: TEST.to_owned(),
            entity: Some(Entity { kind: "webhook".to_owned(), id: id.to_owned() }),
            message: "A test that somebody asked for".to_owned(),
            meta: None,
        };
        let (delivery, created_at, data) = (Uuid::new_v4().to_string(), event.created_at, EventView::json(event));
        let new = NewDelivery { id: &delivery, webhook_id: id, event: TEST, created_at, data: &data };
        self.store.add_delivery(&new).await?;
        self.wake.notify_one();
        Ok(delivery)
    }

    async fn webhook(&self, id: &str) -> Result<WebhookView> {
        self.store.webhook(id).await?.map(WebhookView::from).ok_or_else(unknown)
    }
}

fn unknown() -> Error {
    Error::not_found("Webhook not found")
}

/// Seals the secrets of webhooks that were made while there was no `VM_SECRET_KEY`.
async fn seal(store: &Store, sealer: &Sealer) -> Result<()> {
    for row in store.webhooks().await?.into_iter().filter(|row| row.sealed == 0) {
        let secret = Secret::open(&row.id, &row.secret, false, None)
            .map_err(|why| Error::internal(format!("cannot seal the secret of webhook {}", row.id), why))?;
        let secret = Some(secret.keep(&row.id, Some(sealer))?);
        store.change_webhook(&row.id, &WebhookChange { secret, ..WebhookChange::default() }).await?;
    }
    Ok(())
}

fn name(text: &str) -> Result<String> {
    let name = text.trim();
    if name.is_empty() || name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(Error::invalid("name must be 1 to 200 characters"));
    }
    Ok(name.to_owned())
}

/// Kinds of events as the store keeps them. There is no list of those that exist: a later version may have more.
fn event_types(kinds: &[String]) -> Result<String> {
    if kinds.is_empty() || kinds.len() > MAX_TYPES {
        return Err(Error::Invalid(format!("eventTypes must be 1 to {MAX_TYPES} kinds of events")));
    }
    if !kinds.iter().all(|kind| is_event_type(kind)) {
        return Err(Error::invalid(
            "eventTypes: each is a kind of event such as vm.created, vm.* for all of VMs, or * for all",
        ));
    }
    serde_json::to_string(kinds).map_err(|error| Error::internal("cannot write kinds of events", error))
}

fn is_event_type(kind: &str) -> bool {
    let word =
        |word: &str| !word.is_empty() && word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    let star = |end: &str| end == "*" || word(end);
    kind == "*" || (kind.len() <= MAX_TYPE && kind.split_once('.').is_some_and(|(thing, end)| word(thing) && star(end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_events_have_a_form() {
        for good in ["*", "vm.*", "vm.created", "vm.approval_requested", "webhook.test"] {
            assert!(is_event_type(good), "{good}");
        }
        for bad in
            ["", "vm", "vm.", ".created", "v*", "vm.c*", "*.created", "VM.created", "vm.created.twice", "vm. *", "**"]
        {
            assert!(!is_event_type(bad), "{bad}");
        }
        assert!(event_types(&[]).is_err() && event_types(&vec!["*".to_owned(); MAX_TYPES + 1]).is_err());
    }
}
