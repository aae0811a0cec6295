//! `/v1/vms`: making, finding, starting, stopping and deleting VMs.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use rds_vmm::VmId;
use serde::Deserialize;
use utoipa::{IntoParams, IntoResponses, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Caller;
use super::error::ErrorBody;
use super::exec::GuestErrors;
use super::idempotency;
use super::json::{Json, OptionalJson};
use super::path::{Path, Query, limit};
use super::replies::{BodyErrors, CallerErrors};
use crate::app::App;
use crate::egress::PatchNetwork;
use crate::error::{Error, Result};
use crate::secrets::SecretEnv;
use crate::vms::VmView;
use crate::vms::copies::{ForkVm, Forks};
use crate::vms::logs::{DEFAULT_TAIL, MAX_TAIL, VmLog};
use crate::vms::request::CreateVm;
use crate::vms::run_log::{ExecLogs, Kind};

pub(super) fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, delete))
        .routes(routes!(start))
        .routes(routes!(stop))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(fork))
        .routes(routes!(logs))
        .routes(routes!(exec_logs))
        .routes(routes!(set_secrets))
        .routes(routes!(patch_network))
}

/// What any call that names a VM may answer besides [`CallerErrors`].
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it describes replies; they are made by `Error`")]
pub(super) enum VmErrors {
    /// A rule is broken
    #[response(status = 400)]
    Invalid(ErrorBody),
    /// No such VM
    #[response(status = 404)]
    NotFound(ErrorBody),
    /// The VM's state does not allow it
    #[response(status = 409)]
    Conflict(ErrorBody),
}

/// The id in a path. Text that is no id names no VM; the words a careless client sends for "none" are a mistake.
pub(super) fn vm_id(text: &str) -> Result<VmId> {
    if matches!(text.trim(), "" | "undefined" | "null") {
        return Err(Error::invalid("A VM id is needed"));
    }
    text.parse().map_err(|_| Error::not_found("VM not found"))
}

/// List VMs
#[utoipa::path(get, path = "/vms", tag = "vms", responses(
    (status = 200, description = "All VMs, oldest first", body = Vec<VmView>),
    (status = 401, description = "No valid key or session", body = ErrorBody),
    (status = 429, description = "Too many requests", body = ErrorBody),
))]
async fn list(State(app): State<Arc<App>>) -> Json<Vec<VmView>> {
    Json(app.vms.list())
}

/// Create a VM
///
/// The reply comes when the VM runs and its agent answers. A create that fails leaves nothing behind. With an
/// `Idempotency-Key` header, the same key and body within a day give the first answer again.
#[utoipa::path(post, path = "/vms", tag = "vms", request_body = CreateVm,
    params(("Idempotency-Key" = Option<String>, Header, description = "At most 255 characters")),
    responses(
        (status = 201, description = "It runs", body = VmView),
        CallerErrors, VmErrors, GuestErrors,
    )
)]
async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Json(body): Json<CreateVm>,
) -> Result<Response> {
    let vms = app.vms.clone();
    let secrets = vms.fingerprint(&body.secret_env);
    let request = idempotency::Request::of(&headers, &caller, "POST /v1/vms", &body, secrets)?;
    idempotency::once(&app.store, request, move |asked| async move {
        match vms.made(&asked.made)?.pop() {
            Some(vm) => Ok(vm),
            None => vms.create_for(asked.claim, body).await,
        }
    })
    .await
}

/// Get a VM
#[utoipa::path(get, path = "/vms/{id}", tag = "vms", params(("id" = String, Path)), responses(
    (status = 200, body = VmView),
    CallerErrors, VmErrors,
))]
async fn get(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<VmView>> {
    Ok(Json(app.vms.get(vm_id(&id)?)?))
}

/// Delete a VM
///
/// In any state. Nothing of it is left.
#[utoipa::path(delete, path = "/vms/{id}", tag = "vms", params(("id" = String, Path)), responses(
    (status = 204, description = "It is gone"),
    CallerErrors, VmErrors,
))]
async fn delete(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<StatusCode> {
    app.vms.delete_vm(vm_id(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Start a stopped VM
#[utoipa::path(post, path = "/vms/{id}/start", tag = "vms", params(("id" = String, Path)), responses(
    (status = 204, description = "It runs"),
    (status = 502, description = "A peer answered something unusable, or was lost", body = ErrorBody),
    (status = 504, description = "A peer did not answer in time", body = ErrorBody),
    CallerErrors, VmErrors,
))]
async fn start(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<StatusCode> {
    app.vms.start_vm(vm_id(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Stop a running VM
///
/// Its file systems are synced first; its disk is kept.
#[utoipa::path(post, path = "/vms/{id}/stop", tag = "vms", params(("id" = String, Path)), responses(
    (status = 204, description = "It is stopped"),
    CallerErrors, VmErrors,
))]
async fn stop(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<StatusCode> {
    app.vms.stop_vm(vm_id(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Pause a running VM
///
/// It stands still in memory and takes no processor time. Whatever needs it wakes it: running code, files, a call to it by
/// a peer, a snapshot. Refused with 409 while calls into it or out of it are under way, so that none is lost; programs
/// that were left running in the background are held up. Stopping and deleting work as ever.
#[utoipa::path(post, path = "/vms/{id}/pause", tag = "vms", params(("id" = String, Path)), responses(
    (status = 204, description = "It is paused"),
    CallerErrors, VmErrors,
))]
async fn pause(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<StatusCode> {
    app.vms.pause_vm(vm_id(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Resume a paused VM
///
/// It goes on where it was. Its wall clock is set right; its monotonic clock has not moved.
#[utoipa::path(post, path = "/vms/{id}/resume", tag = "vms", params(("id" = String, Path)), responses(
    (status = 204, description = "It runs"),
    CallerErrors, VmErrors,
))]
async fn resume(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<StatusCode> {
    app.vms.resume_vm(vm_id(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Copy a running VM
///
/// Each fork goes on where the VM was at one moment, with its disk as it was then, and shares what neither changes. It has
/// a host name, machine id, random source and clock of its own, the size, limits and labels of the VM, and no name; secrets
/// and links as this request grants them, none by itself. All are made, or none. The VM stands still for a moment and goes
/// on; refused with 409 if it has had secrets since it was started or is linked to peers. With an `Idempotency-Key` header,
/// the same key and body within a day give the first answer again.
#[utoipa::path(post, path = "/vms/{id}/fork", tag = "vms", request_body = Option<ForkVm>,
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "At most 255 characters")),
    responses((status = 201, description = "They run", body = Forks), CallerErrors, VmErrors, GuestErrors))]
async fn fork(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    OptionalJson(body): OptionalJson<ForkVm>,
) -> Result<Response> {
    let id = vm_id(&id)?;
    let vms = app.vms.clone();
    let (scope, secrets) = (format!("POST /v1/vms/{id}/fork"), vms.fingerprint(&body.secret_env));
    let request = idempotency::Request::of(&headers, &caller, &scope, &body, secrets)?;
    idempotency::once(&app.store, request, move |asked| async move {
        let made = vms.made(&asked.made)?;
        if made.is_empty() { vms.fork(id, body, asked.claim).await } else { Ok(Forks { vms: made }) }
    })
    .await
}

/// New secrets of a VM.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SetSecrets {
    /// All of them, each `NAME=value`; an empty list takes them away.
    secret_env: Vec<String>,
}

/// Replace a VM's secrets
///
/// Without a restart: programs that begin after the reply see the new ones, those that run keep the old. They are
/// written down first. If the VM's agent does not take them, that is an error; it is given them again until it does, and
/// what is asked of the VM meanwhile waits. Needs `VM_SECRET_KEY`.
#[utoipa::path(put, path = "/vms/{id}/secrets", tag = "vms", params(("id" = String, Path)), request_body = SetSecrets,
    responses((status = 204, description = "The VM has them"), CallerErrors, VmErrors, GuestErrors))]
async fn set_secrets(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Json(body): Json<SetSecrets>,
) -> Result<StatusCode> {
    let id = vm_id(&id)?;
    app.vms.set_secrets(id, SecretEnv::parse(body.secret_env)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Change what a VM may reach
///
/// At once, if it runs; a connection that is not allowed any more ends. What is absent stays as it is.
#[utoipa::path(patch, path = "/vms/{id}/network", tag = "vms", params(("id" = String, Path)),
    request_body = PatchNetwork,
    responses((status = 204, description = "It holds"), CallerErrors, BodyErrors, VmErrors))]
async fn patch_network(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Json(body): Json<PatchNetwork>,
) -> Result<StatusCode> {
    app.vms.patch_network(vm_id(&id)?, body).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct LogQuery {
    /// `firecracker.log` (default), `firecracker.stdout.log`, `firecracker.stderr.log`, `serial.log` or `vmm.log`.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Lines from the end, 1 to 1000.
    tail: Option<u32>,
}

/// Read the end of a VM's log
#[utoipa::path(get, path = "/vms/{id}/logs", tag = "vms", params(("id" = String, Path), LogQuery), responses(
    (status = 200, body = VmLog),
    CallerErrors, VmErrors,
))]
async fn logs(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(query): Query<LogQuery>,
) -> Result<Json<VmLog>> {
    let tail = query.tail.unwrap_or(DEFAULT_TAIL);
    if !(1..=MAX_TAIL).contains(&tail) {
        return Err(Error::invalid(format!("tail must be from 1 to {MAX_TAIL}")));
    }
    let kind = query.kind.as_deref().unwrap_or("firecracker.log");
    Ok(Json(app.vms.logs(vm_id(&id)?, kind, tail).await?))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ExecLogQuery {
    /// Entries, 1 to 200; 50 if absent.
    limit: Option<u32>,
    /// `all` (default), `exec`, `run-ts` or `run-js`.
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// List what was run in a VM
#[utoipa::path(get, path = "/vms/{id}/exec-logs", tag = "vms", params(("id" = String, Path), ExecLogQuery), responses(
    (status = 200, body = ExecLogs),
    CallerErrors, VmErrors,
))]
async fn exec_logs(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(query): Query<ExecLogQuery>,
) -> Result<Json<ExecLogs>> {
    let limit = limit(query.limit, 50, 200)?;
    let kind = match query.kind.as_deref() {
        None | Some("all") => None,
        Some("exec") => Some(Kind::Exec),
        Some("run-ts") => Some(Kind::RunTs),
        Some("run-js") => Some(Kind::RunJs),
        Some(_) => return Err(Error::invalid("type must be all, exec, run-ts or run-js")),
    };
    Ok(Json(app.vms.exec_logs(vm_id(&id)?, kind, limit).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_exact_spelling() {
        assert!(vm_id("0d6bd3a4-6f0c-4a54-8f42-9a1fbe1f2d3e").is_ok());
        for none in ["", " ", "undefined", "null"] {
            assert!(matches!(vm_id(none), Err(Error::Invalid(_))), "{none:?}");
        }
        for other in
            ["x", "../x", "a\0", "0D6BD3A4-6F0C-4A54-8F42-9A1FBE1F2D3E", "0d6bd3a46f0c4a548f429a1fbe1f2d3e", "é"]
        {
            assert!(matches!(vm_id(other), Err(Error::NotFound(_))), "{other:?}");
        }
    }
}
