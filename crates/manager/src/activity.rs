//! What happened, for people: kept in the store and told to everybody who listens.

use serde_json::Value;
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::clock::now_ms;
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
        metrics::event(kind);
        let entity_kind = kind.split('.').next().unwrap_or(kind);
        let event = Event {
            id: Uuid::new_v4().to_string(),
            created_at: now_ms(),
            kind: kind.to_owned(),
            entity: Some(Entity { kind: entity_kind.to_owned(), id: id.to_owned() }),
            message: message.into(),
            meta,
        };
        tracing::info!(kind, id, "{}", event.message);
        if let Err(error) = self.store.add_activity(&row(&event)).await {
            tracing::error!(error = %crate::error::Chain(&error), kind, id, "cannot write an event down");
        }
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
