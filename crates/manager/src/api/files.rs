//! `/v1/vms/{id}/files`: files in and out of a VM.

use std::io;
use std::sync::Arc;

use crate::vms::files::Piece;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use rds_protocol::files::{FileKind, Listing, Stat};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::exec::GuestErrors;
use super::json::Json;
use super::path::{Path, Query};
use super::replies::{Binary, CallerErrors};
use super::vms::{VmErrors, vm_id};
use crate::app::App;
use crate::clock;
use crate::error::{Error, Result};

pub(super) fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(upload))
        .routes(routes!(download))
        .routes(routes!(read, write))
        .routes(routes!(list))
        .routes(routes!(stat))
}

/// Content types of an archive (section 4 of the wire contract).
const ARCHIVE_TYPES: [&str; 3] = ["application/gzip", "application/x-gzip", "application/octet-stream"];

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Dest {
    /// A directory under `/workspace`; it is made.
    dest: String,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Where {
    /// A path under `/workspace`.
    path: String,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct WriteTo {
    /// A path under `/workspace`; its directories are made.
    path: String,
    /// Whether the file is a program.
    #[serde(default)]
    executable: bool,
}

/// A file or directory. Symbolic links are reported, not followed.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = FileStat)]
struct StatBody {
    name: String,
    /// `file`, `directory`, `symlink` or `other`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Length in bytes; 0 for anything but a file.
    size: u64,
    /// Permission bits.
    mode: u32,
    /// RFC 3339.
    #[schema(format = DateTime)]
    modified_at: String,
}

/// The entries of a directory, sorted by name.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = FileList)]
struct ListBody {
    entries: Vec<StatBody>,
    /// Whether there are more than these.
    truncated: bool,
}

impl From<Stat> for StatBody {
    fn from(stat: Stat) -> Self {
        let kind = match stat.kind {
            FileKind::File => "file",
            FileKind::Directory => "directory",
            FileKind::Symlink => "symlink",
            FileKind::Other => "other",
        };
        let modified_at = clock::rfc3339(stat.modified_ms);
        Self { name: stat.name, kind, size: stat.size, mode: stat.mode, modified_at }
    }
}

impl From<Listing> for ListBody {
    fn from(list: Listing) -> Self {
        Self { entries: list.entries.into_iter().map(StatBody::from).collect(), truncated: list.truncated }
    }
}

/// Upload a tar.gz
///
/// At most 10 MiB, 10,000 entries and 250 MiB unpacked; files and directories at relative paths only. It is checked
/// whole before anything is written. Files belong to uid 1000; of their modes the executable bit is kept.
#[utoipa::path(post, path = "/vms/{id}/files/upload", tag = "files", params(("id" = String, Path), Dest),
    request_body(content(
        (inline(Binary) = "application/gzip"),
        (inline(Binary) = "application/x-gzip"),
        (inline(Binary) = "application/octet-stream"),
    )),
    responses((status = 204, description = "It is unpacked"), CallerErrors, VmErrors, GuestErrors))]
async fn upload(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(query): Query<Dest>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode> {
    let id = vm_id(&id)?;
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if !kind.is_some_and(|kind| ARCHIVE_TYPES.contains(&kind.split(';').next().unwrap_or(kind).trim())) {
        return Err(Error::UnsupportedMedia(format!("content-type must be one of {}", ARCHIVE_TYPES.join(", "))));
    }
    app.vms.upload(id, &query.dest, pieces(body)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Download a directory or file as a tar.gz
#[utoipa::path(get, path = "/vms/{id}/files/download", tag = "files", params(("id" = String, Path), Where),
    responses((status = 200, content_type = "application/gzip", body = inline(Binary)), CallerErrors, VmErrors, GuestErrors))]
async fn download(State(app): State<Arc<App>>, Path(id): Path<String>, Query(query): Query<Where>) -> Result<Response> {
    let content = app.vms.download(vm_id(&id)?, &query.path).await?;
    Ok(stream("application/gzip", content))
}

/// Read a file
#[utoipa::path(get, path = "/vms/{id}/files/content", tag = "files", params(("id" = String, Path), Where),
    responses((status = 200, content_type = "application/octet-stream", body = inline(Binary)), CallerErrors, VmErrors, GuestErrors))]
async fn read(State(app): State<Arc<App>>, Path(id): Path<String>, Query(query): Query<Where>) -> Result<Response> {
    let content = app.vms.read_file(vm_id(&id)?, &query.path).await?;
    Ok(stream("application/octet-stream", content))
}

/// Write a file
///
/// At most 10 MiB. A file that is there is replaced.
#[utoipa::path(put, path = "/vms/{id}/files/content", tag = "files", params(("id" = String, Path), WriteTo),
    request_body(content = inline(Binary), content_type = "application/octet-stream"),
    responses((status = 204, description = "It is written"), CallerErrors, VmErrors, GuestErrors))]
async fn write(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(query): Query<WriteTo>,
    body: Body,
) -> Result<StatusCode> {
    app.vms.write_file(vm_id(&id)?, &query.path, query.executable, pieces(body)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List a directory
#[utoipa::path(get, path = "/vms/{id}/files/list", tag = "files", params(("id" = String, Path), Where),
    responses((status = 200, body = ListBody), CallerErrors, VmErrors, GuestErrors))]
async fn list(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(query): Query<Where>,
) -> Result<Json<ListBody>> {
    Ok(Json(app.vms.list_files(vm_id(&id)?, &query.path).await?.into()))
}

/// Look at a file or directory
#[utoipa::path(get, path = "/vms/{id}/files/stat", tag = "files", params(("id" = String, Path), Where),
    responses((status = 200, body = StatBody), CallerErrors, VmErrors, GuestErrors))]
async fn stat(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(query): Query<Where>,
) -> Result<Json<StatBody>> {
    Ok(Json(app.vms.stat_file(vm_id(&id)?, &query.path).await?.into()))
}

fn pieces(body: Body) -> impl Stream<Item = io::Result<Bytes>> + Send + Unpin {
    body.into_data_stream().map_err(io::Error::other)
}

fn stream(kind: &'static str, content: impl Stream<Item = Piece> + Send + 'static) -> Response {
    ([(header::CONTENT_TYPE, kind)], Body::from_stream(content)).into_response()
}
