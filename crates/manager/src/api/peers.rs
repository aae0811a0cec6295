//! `/v1/vms/{id}/peers`, `/v1/peers/approvals` and `/internal/v1/peer/invoke`: peers of a VM, and calls to them.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::ErrorBody;
use super::exec::GuestErrors;
use super::json::{Bytes, Json, RUN_BYTES};
use super::path::Path;
use super::replies::CallerErrors;
use super::request_id;
use super::vms::{VmErrors, vm_id};
use crate::app::App;
use crate::error::{Error, Result, retry_seconds};
use crate::peers::{CallError, CallFailure, CallResult, PatchLink, PendingCall};

pub(super) fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(sync))
        .routes(routes!(patch, unlink))
        .routes(routes!(approvals))
        .routes(routes!(approve))
        .routes(routes!(deny))
}

/// For whoever has the bearer token of a VM's present start.
pub(super) fn bridge_router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(invoke))
}

/// Sync a VM's peers
///
/// Reads the manifests of all its providers and replaces `/workspace/peers` and `/workspace/.rds` at once.
#[utoipa::path(post, path = "/vms/{id}/peers/sync", tag = "peers", params(("id" = String, Path)), responses(
    (status = 204, description = "They are up to date"),
    CallerErrors, VmErrors, GuestErrors,
))]
async fn sync(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<StatusCode> {
    app.vms.sync_peers(vm_id(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Change a link
///
/// What is absent stays. A running VM's peers are synced; when that fails, nothing is changed.
#[utoipa::path(patch, path = "/vms/{id}/peers/{alias}", tag = "peers",
    params(("id" = String, Path), ("alias" = String, Path)), request_body = PatchLink,
    responses((status = 204, description = "It is changed"), CallerErrors, VmErrors, GuestErrors))]
async fn patch(
    State(app): State<Arc<App>>,
    Path((id, alias)): Path<(String, String)>,
    Json(body): Json<PatchLink>,
) -> Result<StatusCode> {
    app.vms.patch_link(vm_id(&id)?, alias, body).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Take a link away
///
/// The VM's code can call that provider no more. A running VM's peers are synced if all other providers can be read;
/// otherwise its code sees the proxies until the next sync.
#[utoipa::path(delete, path = "/vms/{id}/peers/{alias}", tag = "peers",
    params(("id" = String, Path), ("alias" = String, Path)),
    responses((status = 204, description = "It is gone"), CallerErrors, VmErrors, GuestErrors))]
async fn unlink(State(app): State<Arc<App>>, Path((id, alias)): Path<(String, String)>) -> Result<StatusCode> {
    app.vms.unlink(vm_id(&id)?, alias).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List calls that wait for approval
#[utoipa::path(get, path = "/peers/approvals", tag = "peers", responses(
    (status = 200, description = "Oldest first", body = Vec<PendingCall>),
    CallerErrors,
))]
async fn approvals(State(app): State<Arc<App>>) -> Json<Vec<PendingCall>> {
    Json(app.vms.peers().pending())
}

/// Approve a call
#[utoipa::path(post, path = "/peers/approvals/{id}/approve", tag = "peers", params(("id" = String, Path)), responses(
    (status = 204, description = "It goes on"),
    (status = 404, description = "No such call waits", body = ErrorBody),
    CallerErrors,
))]
async fn approve(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<StatusCode> {
    app.vms.peers().decide(&id, true).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Deny a call
#[utoipa::path(post, path = "/peers/approvals/{id}/deny", tag = "peers", params(("id" = String, Path)), responses(
    (status = 204, description = "It is refused"),
    (status = 404, description = "No such call waits", body = ErrorBody),
    CallerErrors,
))]
async fn deny(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<StatusCode> {
    app.vms.peers().decide(&id, false).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A call of a consumer's code.
#[derive(ToSchema)]
#[schema(as = PeerCall, rename_all = "camelCase")]
#[expect(dead_code, reason = "it describes a body whose bytes the service reads itself, more strictly than serde")]
struct PeerCall {
    /// The provider's name in the calling VM.
    alias: String,
    /// Absolute path of the module in the provider.
    #[schema(example = "/workspace/sdk/mail.ts")]
    module_path: String,
    /// `default` if absent.
    export_name: Option<String>,
    /// Empty if absent.
    args: Option<Vec<Value>>,
    /// Time limit in milliseconds, at most 120000; 30000 if absent.
    timeout_ms: Option<u64>,
}

/// Call a peer
///
/// With the bearer token in `/workspace/.rds/peer-bridge.json` of a running VM, for that VM. Code in the VM needs no
/// network for this: its proxies send the same over the channel out of the VM.
#[utoipa::path(post, path = "/internal/v1/peer/invoke", tag = "peers", security(("bridge" = [])),
    request_body = PeerCall,
    responses(
        (status = 200, body = CallResult),
        (status = 400, description = "No call, or its arguments do not fit their schemas", body = CallError),
        (status = 401, description = "No valid bridge token", body = CallError),
        (status = 403, description = "Not linked, not declared, or refused by the link's policy", body = CallError),
        (status = 409, description = "The provider is not running", body = CallError),
        (status = 413, description = "Body over 1 MiB", body = ErrorBody),
        (status = 415, description = "The body is not JSON", body = ErrorBody),
        (status = 429, description = "A limit is reached; `Retry-After` says when to try again", body = CallError),
        (status = 500, description = "The server failed", body = CallError),
        (status = 502, description = "The provider's function threw, or its result cannot be used", body = CallError),
        (status = 503, description = "The audit log takes no records, or the server is stopping", body = CallError),
        (status = 504, description = "The provider did not answer in time", body = CallError),
    )
)]
async fn invoke(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes<RUN_BYTES>) -> Result<Response, Response> {
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let consumer = token.and_then(|token| app.vms.peers().by_token(token));
    let consumer =
        consumer.ok_or_else(|| Error::Unauthorized("The bearer token is missing or not valid").into_response())?;
    let called = app.vms.peers().call(consumer, body.0).await;
    let json = [(header::CONTENT_TYPE, "application/json")];
    called.map(|result| (json, result.into_json()).into_response()).map_err(IntoResponse::into_response)
}

impl IntoResponse for CallFailure {
    fn into_response(self) -> Response {
        let failure = self.of_request(request_id::current);
        let status = StatusCode::from_u16(failure.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(failure.body)).into_response();
        if let Some(wait) = failure.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, retry_seconds(wait).into());
        }
        response
    }
}
