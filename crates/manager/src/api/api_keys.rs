//! `/v1/admin/api-keys`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::ErrorBody;
use super::json::Json;
use super::path::Path;
use super::replies::{BodyErrors, CallerErrors};
use super::time::{self, Time};
use crate::app::App;
use crate::auth::ApiKey;
use crate::error::Result;

/// Needs a session.
pub(super) fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(revoke))
}

/// A key without its secret.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ApiKey)]
struct ApiKeyBody {
    id: String,
    name: String,
    #[schema(example = "rds_0123456789ab")]
    prefix: String,
    created_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_at: Option<Time>,
    /// Up to a minute behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_at: Option<Time>,
}

impl From<ApiKey> for ApiKeyBody {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id,
            name: key.name,
            prefix: key.prefix,
            created_at: Time(key.created_at),
            expires_at: key.expires_at.map(Time),
            revoked_at: key.revoked_at.map(Time),
            last_used_at: key.last_used_at.map(Time),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CreatedApiKey {
    #[serde(flatten)]
    key: ApiKeyBody,
    /// The whole key. It is shown this once.
    api_key: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CreateApiKey {
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// RFC 3339.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

/// List API keys
#[utoipa::path(get, path = "/admin/api-keys", tag = "api-keys", security(("session" = [])), responses(
    (status = 200, body = Vec<ApiKeyBody>),
    CallerErrors,
))]
async fn list(State(app): State<Arc<App>>) -> Result<Json<Vec<ApiKeyBody>>> {
    Ok(Json(app.auth.api_keys().await?.into_iter().map(ApiKeyBody::from).collect()))
}

/// Make an API key
#[utoipa::path(post, path = "/admin/api-keys", tag = "api-keys", security(("session" = [])), request_body = CreateApiKey,
    responses(
        (status = 201, body = CreatedApiKey),
        CallerErrors,
        BodyErrors,
    )
)]
async fn create(
    State(app): State<Arc<App>>,
    Json(body): Json<CreateApiKey>,
) -> Result<(StatusCode, Json<CreatedApiKey>)> {
    let expires_at = body.expires_at.as_deref().map(|text| time::parse("expiresAt", text)).transpose()?;
    let made = app.auth.create_api_key(&body.name, expires_at).await?;
    let meta = json!({ "name": made.key.name, "prefix": made.key.prefix });
    app.activity.record("apikey.created", &made.key.id, format!("API key {} made", made.key.name), Some(meta)).await;
    let api_key = made.secret.expose_secret().to_owned();
    Ok((StatusCode::CREATED, Json(CreatedApiKey { key: made.key.into(), api_key })))
}

/// Revoke an API key
#[utoipa::path(post, path = "/admin/api-keys/{id}/revoke", tag = "api-keys", security(("session" = [])),
    params(("id" = String, Path)), responses(
        (status = 204, description = "The key is refused from now on"),
        (status = 404, description = "No such key", body = ErrorBody),
        CallerErrors,
    )
)]
async fn revoke(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<StatusCode> {
    app.auth.revoke_api_key(&id).await?;
    app.activity.record("apikey.revoked", &id, "API key revoked", None).await;
    Ok(StatusCode::NO_CONTENT)
}
