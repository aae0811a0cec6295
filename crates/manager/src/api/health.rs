//! `/healthz` and `/readyz`: for whoever watches over the process.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::ErrorBody;
use super::json::Json;
use crate::app::App;
use crate::error::Result;

pub(super) fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(live)).routes(routes!(ready))
}

/// That the server is well.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// Always true.
    ok: bool,
}

/// The process answers
#[utoipa::path(get, path = "/healthz", tag = "operation", responses((status = 200, body = Health)), security(()))]
async fn live() -> Json<Health> {
    Json(Health { ok: true })
}

/// The database answers too
#[utoipa::path(get, path = "/readyz", tag = "operation", security(()), responses(
    (status = 200, body = Health),
    (status = 503, description = "Not ready", body = ErrorBody),
))]
async fn ready(State(app): State<Arc<App>>) -> Result<Json<Health>> {
    app.store.ping().await?;
    Ok(Json(Health { ok: true }))
}
