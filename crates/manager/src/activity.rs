//! What happened, for people: kept in the store and told to everybody who listens. What webhooks are to be sent is written
//! down with it.

use serde::Serialize;
use serde_json::Value;
use tokio::sync::broadcast;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::clock::{now_ms, rfc3339};
use crate::error::Result;
use crate::metrics;
use crate::store::Store;
use crate::store::activity::ActivityRow;

/// A listener that falls further behind than this misses events.
const BACKLOG: usize = 256;

/// One event. `meta` is an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// UUID.
    pub id: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Such as `vm.created` (section 8 of the wire contract).
    pub kind: String,
    /// What it happened to.
    pub entity: Option<Entity>,
    /// For people.
    pub message: String,
    /// More, for programs.
    pub meta: Option<Value>,
}

/// What an event happened to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    /// Such as `vm`.
    pub kind: String,
    /// Which one.
    pub id: String,
}

/// Something that happened, as clients see it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ActivityEvent)]
pub struct EventView {
    /// UUID.
    id: String,
    /// RFC 3339, milliseconds, `Z`.
    #[schema(format = DateTime)]
    created_at: String,
    /// What kind of event it is.
    #[serde(rename = "type")]
    #[schema(example = "vm.created")]
    kind: String,
    /// What kind of thing it happened to.
    #[serde(skip_serializing_if = "Option::is_none")]
    entity_type: Option<String>,
    /// Which one.
    #[serde(skip_serializing_if = "Option::is_none")]
    entity_id: Option<String>,
    /// For people.
    message: String,
    /// JSON text.
    #[serde(skip_serializing_if = "Option::is_none")]
    meta_json: Option<String>,
    /// The same parsed; in the event stream and what webhooks are sent only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    meta: Option<Value>,
}

impl From<Event> for EventView {
    fn from(event: Event) -> Self {
        let (entity_type, entity_id) = event.entity.map(|entity| (entity.kind, entity.id)).unzip();
        Self {
            id: event.id,
            created_at: rfc3339(event.created_at),
            kind: event.kind,
            entity_type,
            entity_id,
            message: event.message,
            meta_json: event.meta.as_ref().map(Value::to_string),
            meta: None,
        }
    }
}

impl EventView {
    /// With `meta` for programs.
    pub fn parsed(event: Event) -> Self {
        let meta = event.meta.clone();
        Self { meta, meta_json: None, ..event.into() }
    }

    /// The same, as text.
    pub(crate) fn json(event: Event) -> String {
        serde_json::to_string(&Self::parsed(event)).expect("an event is plain data")
    }
}

/// The service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Activity {
    store: Store,
    listeners: broadcast::Sender<Event>,
}

impl Activity {
    /// With nobody listening yet.
    pub fn new(store: Store) -> Self {
        Self { store, listeners: broadcast::channel(BACKLOG).0 }
    }

    /// Records an event. What it reports has happened already, so a failure to write it down is only logged.
    ///
    /// `kind` is such as `vm.created`; the part before the dot is the kind of `id`.
    pub async fn record(&self, kind: &'static str, id: &str, message: impl Into<String>, meta: Option<Value>) {
        let event = happened(kind, id, message.into(), meta);
        let written = self.store.add_activity(&row(&event), &EventView::json(event.clone())).await;
        if let Err(error) = &written {
            tracing::error!(error = %crate::error::Chain(error), kind, id, "cannot write an event down");
        }
        self.tell(kind, id, event, written.unwrap_or(0));
    }

    /// Forgets a VM whose deletion is done, and records that: both, or neither.
    pub(crate) async fn record_deleted_vm(&self, id: &str) -> Result<()> {
        let kind = "vm.deleted";
        let event = happened(kind, id, "VM deleted".into(), None);
        let dropped = self.store.delete_vm_with(id, &row(&event), &EventView::json(event.clone())).await?;
        self.tell(kind, id, event, dropped);
        Ok(())
    }

    /// Tells of an event of which so many deliveries were dropped.
    fn tell(&self, kind: &'static str, id: &str, event: Event, dropped: usize) {
        metrics::event(kind);
        tracing::info!(kind, id, "{}", event.message);
        (0..dropped).for_each(|_| metrics::webhook_delivery("dropped"));
        // Nobody may be listening.
        let _ = self.listeners.send(event);
    }

    /// The newest events, newest first.
    pub async fn recent(&self, limit: u32) -> Result<Vec<Event>> {
        Ok(self.store.activity(i64::from(limit)).await?.into_iter().map(event).collect())
    }

    /// Every event from now on.
    pub fn listen(&self) -> broadcast::Receiver<Event> {
        self.listeners.subscribe()
    }
}

fn happened(kind: &str, id: &str, message: String, meta: Option<Value>) -> Event {
    let entity_kind = kind.split('.').next().unwrap_or(kind);
    Event {
        id: Uuid::new_v4().to_string(),
        created_at: now_ms(),
        kind: kind.to_owned(),
        entity: Some(Entity { kind: entity_kind.to_owned(), id: id.to_owned() }),
        message,
        meta,
    }
}

fn row(event: &Event) -> ActivityRow {
    ActivityRow {
        id: event.id.clone(),
        created_at: event.created_at,
        kind: event.kind.clone(),
        entity_type: event.entity.as_ref().map(|entity| entity.kind.clone()),
        entity_id: event.entity.as_ref().map(|entity| entity.id.clone()),
        message: event.message.clone(),
        meta: event.meta.as_ref().map(Value::to_string),
    }
}

fn event(row: ActivityRow) -> Event {
    Event {
        id: row.id,
        created_at: row.created_at,
        kind: row.kind,
        entity: row.entity_type.zip(row.entity_id).map(|(kind, id)| Entity { kind, id }),
        message: row.message,
        meta: row.meta.and_then(|text| serde_json::from_str(&text).ok()),
    }
}
