//! `/v1/snapshots`.

use std::sync::Arc;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::ErrorBody;
use super::json::Json;
use super::path::Query;
use super::replies::CallerErrors;
use super::time::Time;
use crate::app::App;
use crate::error::Result;
use crate::seeds::{Seed, Seeds};

pub(super) fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(list))
}

/// What a snapshot is of.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// Memory of a booted, idle VM with nothing of any user in it.
    ImageSeed,
}

/// What VMs start from.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Snapshot)]
struct SnapshotBody {
    #[schema(example = "seed-img-7c1f2a90-5e0b-4a58-a7d8-0d6f7a3c9b11")]
    id: String,
    kind: Kind,
    created_at: Time,
    cpu: u8,
    /// MiB.
    mem_mb: u32,
    /// The image that it belongs to.
    image_id: String,
    /// Whether it holds a whole disk.
    has_disk: bool,
    /// Whether it holds a VM's writable disk.
    has_overlay: bool,
    /// What it takes on the server's disk.
    size_bytes: u64,
}

impl SnapshotBody {
    fn of_seed(seed: &Seed, seeds: &Seeds) -> Self {
        Self {
            id: seeds.id(seed),
            kind: Kind::ImageSeed,
            created_at: Time(seed.created_at),
            cpu: seed.size.vcpus,
            mem_mb: seed.size.mem_mib,
            image_id: seed.image_id.clone(),
            has_disk: false,
            has_overlay: false,
            size_bytes: seed.bytes,
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
    scope: Scope,
}

/// List snapshots
#[utoipa::path(get, path = "/snapshots", tag = "snapshots", params(ListQuery), responses(
    (status = 200, description = "Oldest first", body = Vec<SnapshotBody>),
    (status = 400, description = "No such scope", body = ErrorBody),
    CallerErrors,
))]
async fn list(State(app): State<Arc<App>>, Query(query): Query<ListQuery>) -> Result<Json<Vec<SnapshotBody>>> {
    let mut snapshots = Vec::new();
    if query.scope != Scope::User {
        snapshots.extend(app.seeds.list().iter().map(|seed| SnapshotBody::of_seed(seed, &app.seeds)));
    }
    Ok(Json(snapshots))
}
