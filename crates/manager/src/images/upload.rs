//! Uploads: received whole, verified, then put in place at once.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use serde_json::json;

use super::receive::{Received, receive};
use super::{FileKind, Images, bundle, verify};
use crate::clock::now_ms;
use crate::error::{Error, Result};
use crate::store::images::ImageFileRow;

impl Images {
    /// Takes one file of an image. If the stream breaks off or the file is not what it should be, nothing changes.
    pub async fn upload<E>(
        self: &Arc<Self>,
        id: &str,
        kind: FileKind,
        stream: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<()> {
        self.changeable(id).await?;
        let received = receive(stream, &self.tmp).await?;
        let received = blocking(move || verify::file(kind, received.path()).map(|_| received)).await?;
        self.put(id, vec![(kind, received)], event(kind)).await
    }

    /// Takes a zip archive with any of an image's files. All of them change, or none.
    pub async fn upload_bundle<E>(
        self: &Arc<Self>,
        id: &str,
        stream: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<()> {
        self.changeable(id).await?;
        let archive = receive(stream, &self.tmp).await?;
        let tmp = self.tmp.clone();
        let files = blocking(move || bundle::extract(archive.path(), &tmp)).await?;
        self.put(id, files, "image.bundle_uploaded").await
    }

    /// Goes on to its end even if the client has gone: file and checksum change together.
    async fn put(self: &Arc<Self>, id: &str, files: Vec<(FileKind, Received)>, event: &'static str) -> Result<()> {
        let (images, id) = (Arc::clone(self), id.to_owned());
        tokio::spawn(async move { images.put_now(id, files, event).await })
            .await
            .map_err(|error| Error::internal("an upload failed", error))?
    }

    async fn put_now(&self, id: String, files: Vec<(FileKind, Received)>, event: &str) -> Result<()> {
        let _change = self.change.lock().await;
        let image = self.changeable(&id).await?;
        let dir = self.dir.join(&id);
        let rows: Vec<_> = files.iter().map(|(kind, file)| row(&id, *kind, file)).collect();
        blocking(move || move_all(files, &dir)).await?;
        self.store.put_image_files(&rows).await?;
        self.changes.send_replace(());
        let meta: serde_json::Map<_, _> =
            rows.iter().map(|row| (row.kind.clone(), json!({ "bytes": row.bytes, "sha256": row.sha256 }))).collect();
        self.activity.record(event, &id, format!("Files of image {} uploaded", image.name), Some(meta.into())).await;
        Ok(())
    }
}

fn event(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Kernel => "image.kernel_uploaded",
        FileKind::Rootfs => "image.rootfs_uploaded",
        FileKind::Modules => "image.modules_uploaded",
    }
}

fn row(id: &str, kind: FileKind, file: &Received) -> ImageFileRow {
    ImageFileRow {
        image_id: id.to_owned(),
        kind: kind.as_str().to_owned(),
        path: None,
        bytes: i64::try_from(file.bytes).unwrap_or(i64::MAX),
        sha256: Some(file.sha256.clone()),
        uploaded_at: now_ms(),
    }
}

fn move_all(files: Vec<(FileKind, Received)>, dir: &PathBuf) -> Result<()> {
    let fail = |error| Error::internal(format!("cannot put an upload into {}", dir.display()), error);
    fs::DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(fail)?;
    files.into_iter().try_for_each(|(kind, file)| file.move_to(&dir.join(kind.as_str()))).map_err(fail)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::internal("an upload failed", error))?
}
