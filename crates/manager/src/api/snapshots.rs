//! `/v1/snapshots`, and taking them.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Caller;
use super::error::ErrorBody;
use super::exec::GuestErrors;
use super::idempotency;
use super::images::SeedStatus;
use super::json::{Json, OptionalJson};
use super::path::{Path, Query};
use super::replies::CallerErrors;
use super::time::Time;
use super::vms::{VmErrors, vm_id};
use crate::app::App;
use crate::error::{Error, Result};
use crate::seeds::{Seed, Seeds, Unfinished};
use crate::snapshots::Kind;
use crate::store::snapshots::SnapshotRow;

pub(super) fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(delete)).routes(routes!(take))
}

/// What VMs start from.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Snapshot)]
struct SnapshotBody {
    #[schema(example = "seed-img-7c1f2a90-5e0b-4a58-a7d8-0d6f7a3c9b11")]
    id: String,
    kind: Kind,
    /// Of a seed that is not there: since when it is being made, or known to fail.
    created_at: Time,
    cpu: u8,
    /// MiB.
    mem_mb: u32,
    /// The image that it belongs to.
    image_id: String,
    /// Whether it is there, for a seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<SeedStatus>,
    /// Why a seed could not be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    /// The VM that it was taken of, which may be gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    source_vm_id: Option<String>,
    /// The seed that the VM had been started from, which may be gone. Nothing of it is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    base_seed_snapshot_id: Option<String>,
    /// Whether it holds a disk that belongs to its memory.
    has_disk: bool,
    /// Whether it holds a VM's writable disk.
    has_overlay: bool,
    /// What it takes on the server's disk.
    size_bytes: u64,
    /// Size of the disk in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_size_mb: Option<u64>,
    /// How long the VM could not write while it was taken, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    frozen_ms: Option<f64>,
    /// How long the VM stood still while it was taken with its memory, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    paused_ms: Option<f64>,
}

impl SnapshotBody {
    fn of_seed(seed: &Seed, seeds: &Seeds) -> Self {
        let of = Unfinished { image_id: seed.image_id.clone(), size: seed.size, at: seed.created_at, why: None };
        Self { status: Some(SeedStatus::Ready), size_bytes: seed.bytes, ..Self::of_unfinished(of, seeds) }
    }

    fn of_unfinished(seed: Unfinished, seeds: &Seeds) -> Self {
        Self {
            id: seeds.id(&seed.image_id, seed.size),
            kind: Kind::ImageSeed,
            created_at: Time(seed.at),
            cpu: seed.size.vcpus,
            mem_mb: seed.size.mem_mib,
            image_id: seed.image_id,
            status: Some(if seed.why.is_some() { SeedStatus::Error } else { SeedStatus::Building }),
            error: seed.why,
            source_vm_id: None,
            base_seed_snapshot_id: None,
            has_disk: false,
            has_overlay: false,
            size_bytes: 0,
            disk_size_mb: None,
            frozen_ms: None,
            paused_ms: None,
        }
    }
}

impl From<SnapshotRow> for SnapshotBody {
    fn from(row: SnapshotRow) -> Self {
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        let memory = row.kind == Kind::Vm.as_str();
        let held = Some(std::time::Duration::from_micros(count(row.frozen_us)).as_secs_f64() * 1000.0);
        Self {
            id: row.id,
            kind: if memory { Kind::Vm } else { Kind::UserOverlay },
            created_at: Time(row.created_at),
            cpu: u8::try_from(row.cpu).unwrap_or(u8::MAX),
            mem_mb: u32::try_from(row.mem_mb).unwrap_or(u32::MAX),
            image_id: row.image_id,
            status: None,
            error: None,
            source_vm_id: Some(row.source_vm_id),
            base_seed_snapshot_id: row.base_seed,
            has_disk: memory,
            has_overlay: true,
            size_bytes: count(row.size_bytes),
            disk_size_mb: Some(count(row.disk_bytes) >> 20),
            frozen_ms: held.filter(|_| !memory),
            paused_ms: held.filter(|_| memory),
        }
    }
}

/// Whose snapshots.
#[derive(Deserialize, ToSchema, Default, PartialEq, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Scope {
    /// Those that users made.
    #[default]
    User,
    /// Those that the server made by itself.
    Internal,
    /// All.
    All,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// `user` (default), `internal` or `all`.
    #[serde(default)]
    #[param(inline)]
    scope: Scope,
}

/// List snapshots
#[utoipa::path(get, path = "/snapshots", tag = "snapshots", params(ListQuery), responses(
    (status = 200, description = "Oldest first", body = Vec<SnapshotBody>),
    (status = 400, description = "No such scope", body = ErrorBody),
    CallerErrors,
))]
async fn list(State(app): State<Arc<App>>, Query(query): Query<ListQuery>) -> Result<Json<Vec<SnapshotBody>>> {
    let mut snapshots: Vec<SnapshotBody> = Vec::new();
    if query.scope != Scope::Internal {
        snapshots.extend(app.vms.snapshots().list().await?.into_iter().map(SnapshotBody::from));
    }
    if query.scope != Scope::User {
        snapshots.extend(app.seeds.list().iter().map(|seed| SnapshotBody::of_seed(seed, &app.seeds)));
        let unfinished = app.seeds.unfinished().into_iter();
        snapshots.extend(unfinished.map(|seed| SnapshotBody::of_unfinished(seed, &app.seeds)));
    }
    snapshots.sort_by_key(|snapshot| snapshot.created_at.0);
    Ok(Json(snapshots))
}

/// Delete a snapshot
///
/// VMs that were made from it are not touched.
#[utoipa::path(delete, path = "/snapshots/{id}", tag = "snapshots", params(("id" = String, Path)), responses(
    (status = 204, description = "It is gone"),
    (status = 400, description = "It is the server's own", body = ErrorBody),
    (status = 404, description = "No such snapshot", body = ErrorBody),
    CallerErrors,
))]
async fn delete(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<StatusCode> {
    if app.seeds.list().iter().any(|seed| app.seeds.id(&seed.image_id, seed.size) == id) {
        return Err(Error::invalid("The server makes this one by itself and removes it with its image"));
    }
    app.vms.snapshots().delete(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What to keep of a VM.
#[derive(Default, Serialize, Deserialize, ToSchema)]
struct TakeSnapshot {
    /// `user_overlay` (default) or `vm`.
    kind: Option<Kind>,
}

/// Keep a VM as it is now
///
/// `user_overlay`: its disk. The guest writes down what it has in memory and is held for a moment, so the disk is whole. No
/// running program is in it. `vm`: its memory and its disk. The VM stands still meanwhile. A VM from it has the same size,
/// and programs go on in it, with a host name, machine id, random source and clock of its own; refused with 409 if the VM
/// has had secrets since it was started or is linked to peers. A snapshot outlives its VM. With an `Idempotency-Key` header, the same key within a day gives the first answer again.
#[utoipa::path(post, path = "/vms/{id}/snapshots", tag = "snapshots",
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "At most 255 characters")),
    request_body = Option<TakeSnapshot>,
    responses((status = 201, body = SnapshotBody), CallerErrors, VmErrors, GuestErrors))]
async fn take(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    OptionalJson(body): OptionalJson<TakeSnapshot>,
) -> Result<Response> {
    let id = vm_id(&id)?;
    if body.kind == Some(Kind::ImageSeed) {
        return Err(Error::invalid("kind must be user_overlay or vm"));
    }
    let request = idempotency::Request::of(&headers, &caller, &format!("POST /v1/vms/{id}/snapshots"), &body, None)?;
    let vms = app.vms.clone();
    idempotency::once(&app.store, request, move |asked| async move {
        let taken = match (asked.made.first(), body.kind) {
            (Some(made), _) => vms.snapshots().get(made).await?,
            (None, Some(Kind::Vm)) => vms.take_memory_snapshot(id, asked.claim).await?,
            (None, _) => vms.take_snapshot(id, asked.claim).await?,
        };
        Ok(SnapshotBody::from(taken))
    })
    .await
}
