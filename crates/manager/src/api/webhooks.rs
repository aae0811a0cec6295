//! `/v1/admin/webhooks`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::ErrorBody;
use super::json::Json;
use super::path::{Path, Query, limit};
use super::replies::{BodyErrors, CallerErrors};
use crate::app::App;
use crate::error::Result;
use crate::webhooks::{ChangeWebhook, CreateWebhook, DeliveryView, Shown, WebhookView};

/// Deliveries in a reply at most.
const MAX_DELIVERIES: u32 = 200;

/// Needs a session.
pub(super) fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(change, delete))
        .routes(routes!(deliveries))
        .routes(routes!(test))
}

#[derive(Serialize, ToSchema)]
struct ShownWebhook {
    #[serde(flatten)]
    webhook: WebhookView,
    /// What deliveries are signed with, if that is new. It is shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

impl From<Shown> for ShownWebhook {
    fn from(shown: Shown) -> Self {
        Self { webhook: shown.webhook, secret: shown.secret.map(|secret| secret.expose_secret().to_owned()) }
    }
}

#[derive(Serialize, ToSchema)]
struct TestDelivery {
    /// Of the delivery.
    id: String,
}

#[derive(Deserialize, IntoParams)]
struct DeliveriesQuery {
    /// How many, 1 to 200; 50 if absent.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// List webhooks
#[utoipa::path(get, path = "/admin/webhooks", tag = "webhooks", security(("session" = [])), responses(
    (status = 200, body = Vec<WebhookView>),
    CallerErrors,
))]
async fn list(State(app): State<Arc<App>>) -> Result<Json<Vec<WebhookView>>> {
    Ok(Json(app.webhooks.list().await?))
}

/// Make a webhook
///
/// Events are sent by POST, signed as the Standard Webhooks specification says, and tried again for some twelve hours.
#[utoipa::path(post, path = "/admin/webhooks", tag = "webhooks", security(("session" = [])), request_body = CreateWebhook,
    responses(
        (status = 201, body = ShownWebhook),
        CallerErrors,
        BodyErrors,
    )
)]
async fn create(
    State(app): State<Arc<App>>,
    Json(body): Json<CreateWebhook>,
) -> Result<(StatusCode, Json<ShownWebhook>)> {
    Ok((StatusCode::CREATED, Json(app.webhooks.create(body).await?.into())))
}

/// Change a webhook
#[utoipa::path(patch, path = "/admin/webhooks/{id}", tag = "webhooks", security(("session" = [])),
    params(("id" = String, Path)), request_body = ChangeWebhook, responses(
        (status = 200, body = ShownWebhook),
        (status = 404, description = "No such webhook", body = ErrorBody),
        CallerErrors,
        BodyErrors,
    )
)]
async fn change(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Json(body): Json<ChangeWebhook>,
) -> Result<Json<ShownWebhook>> {
    Ok(Json(app.webhooks.change(&id, body).await?.into()))
}

/// Delete a webhook, with all that waits for it
#[utoipa::path(delete, path = "/admin/webhooks/{id}", tag = "webhooks", security(("session" = [])),
    params(("id" = String, Path)), responses(
        (status = 204, description = "Nothing is sent to it from now on"),
        (status = 404, description = "No such webhook", body = ErrorBody),
        CallerErrors,
    )
)]
async fn delete(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<StatusCode> {
    app.webhooks.delete(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What was sent to a webhook lately, newest first
#[utoipa::path(get, path = "/admin/webhooks/{id}/deliveries", tag = "webhooks", security(("session" = [])),
    params(("id" = String, Path), DeliveriesQuery), responses(
        (status = 200, body = Vec<DeliveryView>),
        (status = 400, description = "limit is not from 1 to 200", body = ErrorBody),
        (status = 404, description = "No such webhook", body = ErrorBody),
        CallerErrors,
    )
)]
async fn deliveries(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(query): Query<DeliveriesQuery>,
) -> Result<Json<Vec<DeliveryView>>> {
    let limit = limit(query.limit, 50, MAX_DELIVERIES)?;
    Ok(Json(app.webhooks.deliveries(&id, limit).await?))
}

/// Send a webhook an event for a test
#[utoipa::path(post, path = "/admin/webhooks/{id}/test", tag = "webhooks", security(("session" = [])),
    params(("id" = String, Path)), responses(
        (status = 202, description = "It is sent like any other; the log of deliveries says how that went",
         body = TestDelivery),
        (status = 404, description = "No such webhook", body = ErrorBody),
        (status = 409, description = "The webhook is disabled", body = ErrorBody),
        CallerErrors,
    )
)]
async fn test(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<(StatusCode, Json<TestDelivery>)> {
    Ok((StatusCode::ACCEPTED, Json(TestDelivery { id: app.webhooks.test(&id).await? })))
}
