//! `/v1/images`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::ErrorBody;
use super::json::{Json, drain};
use super::path::Path;
use super::replies::{Binary, BodyErrors, CallerErrors};
use super::time::Time;
use crate::app::App;
use crate::error::{Error, Result};
use crate::images::{FileKind, Image};
use crate::seeds::{Seeds, Status};
use crate::vms::request::null_is_absent;

pub(super) fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, delete))
        .routes(routes!(put_kernel))
        .routes(routes!(put_rootfs))
        .routes(routes!(put_modules))
        .routes(routes!(put_bundle))
        .routes(routes!(set_default))
}

/// What VMs are made from.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Image)]
struct ImageBody {
    #[schema(example = "img-7c1f2a90-5e0b-4a58-a7d8-0d6f7a3c9b11")]
    id: String,
    name: String,
    description: String,
    created_at: Time,
    /// Whether a VM that names no image gets this one.
    is_default: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel_filename: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rootfs_filename: Option<&'static str>,
    /// Length of the root filesystem.
    #[serde(skip_serializing_if = "Option::is_none")]
    base_rootfs_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel_uploaded_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rootfs_uploaded_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    modules_filename: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    modules_uploaded_at: Option<Time>,
    checksums: Checksums,
    /// How it is about the memory that VMs of this image start from.
    seed_status: SeedStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "seed-img-7c1f2a90-5e0b-4a58-a7d8-0d6f7a3c9b11")]
    seed_snapshot_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed_updated_at: Option<Time>,
    /// What it takes on the server's disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    seed_size_bytes: Option<u64>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    seed_error: Option<String>,
}

/// Whether there is a seed of the size that every image gets.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum SeedStatus {
    /// Seeds are off, or the image is not complete.
    None,
    /// It is being made.
    Building,
    /// VMs start from it.
    Ready,
    /// It could not be made; VMs are booted.
    Error,
}

/// SHA-256 in hexadecimal of what was uploaded. Files that were given in place have none.
#[derive(Serialize, ToSchema)]
struct Checksums {
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rootfs: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    modules: Option<String>,
}

impl ImageBody {
    fn of(image: Image, seeds: &Seeds) -> Self {
        let (seed_status, seed_updated_at, seed_size_bytes, seed_error) = match seeds.status(&image.id) {
            Status::None => (SeedStatus::None, None, None, None),
            Status::Building => (SeedStatus::Building, None, None, None),
            Status::Ready { at, bytes } => (SeedStatus::Ready, Some(Time(at)), Some(bytes), None),
            Status::Failed { at, why } => (SeedStatus::Error, Some(Time(at)), None, Some(why)),
        };
        let (kernel, rootfs, modules) =
            (image.file(FileKind::Kernel), image.file(FileKind::Rootfs), image.file(FileKind::Modules));
        Self {
            is_default: image.is_default,
            kernel_filename: kernel.map(|_| "vmlinux"),
            rootfs_filename: rootfs.map(|_| "rootfs.ext4"),
            base_rootfs_bytes: rootfs.map(|file| file.bytes),
            kernel_uploaded_at: kernel.map(|file| Time(file.uploaded_at)),
            rootfs_uploaded_at: rootfs.map(|file| Time(file.uploaded_at)),
            modules_filename: modules.map(|_| "modules.cpio"),
            modules_uploaded_at: modules.map(|file| Time(file.uploaded_at)),
            checksums: Checksums {
                kernel: kernel.and_then(|file| file.sha256.clone()),
                rootfs: rootfs.and_then(|file| file.sha256.clone()),
                modules: modules.and_then(|file| file.sha256.clone()),
            },
            seed_snapshot_id: matches!(seed_status, SeedStatus::Ready).then(|| format!("seed-{}", image.id)),
            seed_status,
            seed_updated_at,
            seed_size_bytes,
            seed_error,
            created_at: Time(image.created_at),
            id: image.id,
            name: image.name,
            description: image.description,
        }
    }
}

#[derive(Deserialize, ToSchema)]
struct CreateImage {
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    #[serde(default, deserialize_with = "null_is_absent")]
    #[schema(max_length = 2000)]
    description: String,
}

/// List images
#[utoipa::path(get, path = "/images", tag = "images", responses(
    (status = 200, body = Vec<ImageBody>),
    CallerErrors,
))]
async fn list(State(app): State<Arc<App>>) -> Result<Json<Vec<ImageBody>>> {
    Ok(Json(app.images.list().await?.into_iter().map(|image| ImageBody::of(image, &app.seeds)).collect()))
}

/// Make an image without files
#[utoipa::path(post, path = "/images", tag = "images", request_body = CreateImage, responses(
    (status = 201, body = ImageBody),
    CallerErrors,
    BodyErrors,
))]
async fn create(State(app): State<Arc<App>>, Json(body): Json<CreateImage>) -> Result<(StatusCode, Json<ImageBody>)> {
    let image = app.images.create(&body.name, &body.description).await?;
    Ok((StatusCode::CREATED, Json(ImageBody::of(image, &app.seeds))))
}

/// One image
#[utoipa::path(get, path = "/images/{id}", tag = "images", params(("id" = String, Path)), responses(
    (status = 200, body = ImageBody),
    (status = 404, description = "No such image", body = ErrorBody),
    CallerErrors,
))]
async fn get(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<ImageBody>> {
    Ok(Json(ImageBody::of(app.images.get(&id).await?, &app.seeds)))
}

/// Delete an image
#[utoipa::path(delete, path = "/images/{id}", tag = "images", params(("id" = String, Path)), responses(
    (status = 204, description = "It is gone"),
    (status = 404, description = "No such image", body = ErrorBody),
    (status = 409, description = "A VM uses it, or it is given in place", body = ErrorBody),
    CallerErrors,
))]
async fn delete(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<StatusCode> {
    app.images.delete(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Make an image the default
#[utoipa::path(post, path = "/images/{id}/set-default", tag = "images", params(("id" = String, Path)), responses(
    (status = 204, description = "VMs that name no image get this one"),
    (status = 404, description = "No such image", body = ErrorBody),
    CallerErrors,
))]
async fn set_default(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<StatusCode> {
    app.images.set_default(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// An upload's route: they differ in the path and in what they do with the body.
macro_rules! upload_route {
    ($name:ident, $path:literal, $summary:literal, $media:literal, |$images:ident, $id:ident, $body:ident| $upload:expr) => {
        #[doc = $summary]
        #[doc = ""]
        #[doc = "At most 3 GiB, of modules 64 MiB. Until the upload is whole and verified the image stays as it was."]
        #[utoipa::path(put, path = $path, tag = "images", params(("id" = String, Path)),
                    request_body(content = inline(Binary), content_type = $media), responses(
                        (status = 204, description = "It is in place"),
                        (status = 400, description = "It broke off, or is not what it should be", body = ErrorBody),
                        (status = 404, description = "No such image", body = ErrorBody),
                        (status = 409, description = "The image is given in place", body = ErrorBody),
                        (status = 413, description = "Larger than that", body = ErrorBody),
                        CallerErrors,
                    )
                )]
        async fn $name(State(app): State<Arc<App>>, Path($id): Path<String>, body: Body) -> Result<StatusCode> {
            let ($images, mut $body) = (&app.images, body.into_data_stream());
            match $upload.await {
                Ok(()) => Ok(StatusCode::NO_CONTENT),
                Err(error) => {
                    if !matches!(error, Error::TooLarge { .. }) {
                        drain($body, 0).await;
                    }
                    Err(error)
                }
            }
        }
    };
}

upload_route!(
    put_kernel,
    "/images/{id}/kernel",
    "Upload the kernel: an ELF vmlinux or a bzImage for x86-64",
    "application/octet-stream",
    |images, id, body| images.upload(&id, FileKind::Kernel, &mut body)
);
upload_route!(
    put_rootfs,
    "/images/{id}/rootfs",
    "Upload the root filesystem: ext4, without a partition table",
    "application/octet-stream",
    |images, id, body| images.upload(&id, FileKind::Rootfs, &mut body)
);
upload_route!(
    put_modules,
    "/images/{id}/modules",
    "Upload the kernel's modules: a newc cpio archive of modules/",
    "application/octet-stream",
    |images, id, body| images.upload(&id, FileKind::Modules, &mut body)
);
upload_route!(
    put_bundle,
    "/images/{id}/bundle",
    "Upload a zip archive with vmlinux, rootfs.ext4 or modules.cpio, at any depth",
    "application/zip",
    |images, id, body| images.upload_bundle(&id, &mut body)
);
