//! `/v1/admin/overview`, `/v1/admin/activity` and `/v1/admin/events`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{self, KeepAlive, Sse};
use futures_util::{Stream, StreamExt as _};
use serde::{Deserialize, Serialize};
use tokio_stream::wrappers::BroadcastStream;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{Credential, LOOK_EVERY};
use super::error::ErrorBody;
use super::json::Json;
use super::path::{Query, limit};
use super::replies::CallerErrors;
use crate::activity::{Event, EventView};
use crate::app::App;
use crate::error::Result;

/// Time between two comments of an event stream that has nothing to say (section 8 of the wire contract).
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events in a reply at most.
const MAX_EVENTS: u32 = 1000;

pub(super) fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(overview)).routes(routes!(activity))
}

/// Needs a session.
pub(super) fn session_router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(events))
}

#[derive(Serialize, ToSchema)]
struct Overview {
    counts: Counts,
    cpu: Cpu,
    memory: Capacity,
    storage: Capacity,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Counts {
    /// VMs that are RUNNING.
    active_vms: i64,
    snapshots: i64,
    /// Images that a VM can be made from.
    templates: i64,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Cpu {
    /// 0 to 1.
    usage_pct: f64,
    capacity_cores: u32,
    used_cores: f64,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Capacity {
    used_bytes: u64,
    capacity_bytes: u64,
}

#[derive(Deserialize, IntoParams)]
struct ActivityQuery {
    /// How many, 1 to 1000; 100 if absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// What there is, and how much of the machine is in use
#[utoipa::path(get, path = "/admin/overview", tag = "admin", responses(
    (status = 200, body = Overview),
    CallerErrors,
))]
async fn overview(State(app): State<Arc<App>>) -> Result<Json<Overview>> {
    let resources = crate::overview::measure(&app.config.storage.storage_root).await?;
    let counts = Counts {
        active_vms: app.store.vms_in_state("RUNNING").await?,
        snapshots: i64::try_from(app.vms.snapshots().list().await?.len()).unwrap_or(i64::MAX),
        templates: app.store.complete_images().await?,
    };
    Ok(Json(Overview {
        counts,
        cpu: Cpu {
            usage_pct: resources.cpu_usage,
            capacity_cores: resources.cores,
            used_cores: resources.cpu_usage * f64::from(resources.cores),
        },
        memory: Capacity { used_bytes: resources.memory_used, capacity_bytes: resources.memory },
        storage: Capacity { used_bytes: resources.storage_used, capacity_bytes: resources.storage },
    }))
}

/// What happened lately, newest first
#[utoipa::path(get, path = "/admin/activity", tag = "admin", params(ActivityQuery), responses(
    (status = 200, body = Vec<EventView>),
    (status = 400, description = "limit is not from 1 to 1000", body = ErrorBody),
    CallerErrors,
))]
async fn activity(State(app): State<Arc<App>>, Query(query): Query<ActivityQuery>) -> Result<Json<Vec<EventView>>> {
    let limit = limit(query.limit, 100, MAX_EVENTS)?;
    Ok(Json(app.activity.recent(limit).await?.into_iter().map(EventView::from).collect()))
}

/// What happens from now on
///
/// Server-sent events named `activity`; each holds an event with `meta` parsed. A listener that is too slow misses some.
/// The stream ends with the session.
#[utoipa::path(get, path = "/admin/events", tag = "admin", security(("session" = [])), responses(
    (status = 200, description = "A stream that does not end", content_type = "text/event-stream", body = String),
    CallerErrors,
))]
async fn events(
    State(app): State<Arc<App>>,
    session: Credential,
) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>>> {
    let events = BroadcastStream::new(app.activity.listen()).filter_map(async |event| to_sse(event.ok()?).map(Ok));
    let end = async move {
        tokio::select! {
            () = app.shutdown.cancelled() => {}
            () = session.ended(&app.auth, LOOK_EVERY) => {}
        }
    };
    Sse::new(events.take_until(Box::pin(end))).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

fn to_sse(event: Event) -> Option<sse::Event> {
    sse::Event::default().event("activity").json_data(EventView::parsed(event)).ok()
}
