//! Uploads: received whole, verified, then put in place at once.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use serde_json::json;
use uuid::Uuid;

use super::receive::{Received, receive};
use super::{FileKind, Images, MAX_UPLOAD_BYTES, blocking, bundle, max_bytes, verify};
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
        let received = receive(stream, max_bytes(kind), &self.drafts).await?;
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
        let archive = receive(stream, MAX_UPLOAD_BYTES, &self.drafts).await?;
        let drafts = self.drafts.clone();
        let files = blocking(move || bundle::extract(archive.path(), &drafts)).await?;
        self.put(id, files, "image.bundle_uploaded").await
    }

    /// Goes on to its end even if the client has gone.
    async fn put(self: &Arc<Self>, id: &str, files: Vec<(FileKind, Received)>, event: &'static str) -> Result<()> {
        let (images, id) = (Arc::clone(self), id.to_owned());
        tokio::spawn(async move { images.put_now(id, files, event).await })
            .await
            .map_err(|error| Error::internal("an upload failed", error))?
    }

    async fn put_now(
        self: &Arc<Self>,
        id: String,
        files: Vec<(FileKind, Received)>,
        event: &'static str,
    ) -> Result<()> {
        let _change = self.change.lock().await;
        let image = self.changeable(&id).await?;
        let placed = self.place(&id, files).await;
        self.changes.send_replace(());
        // The files before, or those of this upload.
        self.tidy(&id).await;
        let rows = placed?;
        let meta: serde_json::Map<_, _> =
            rows.iter().map(|row| (row.kind.clone(), json!({ "bytes": row.bytes, "sha256": row.sha256 }))).collect();
        self.activity.record(event, &id, format!("Files of image {} uploaded", image.name), Some(meta.into())).await;
        Ok(())
    }

    /// The image changes with its rows: all that they are to name is there by then.
    async fn place(&self, id: &str, files: Vec<(FileKind, Received)>) -> Result<Vec<ImageFileRow>> {
        let rows: Vec<_> = files.iter().map(|(kind, file)| row(id, *kind, file)).collect();
        let dir = self.dir.join(id);
        let moves = files.into_iter().zip(&rows).map(|((_, file), row)| (file, dir.join(&row.path))).collect();
        blocking(move || {
            let failed = |error| Error::internal(format!("cannot put an upload into {}", dir.display()), error);
            move_all(moves, &dir).map_err(failed)
        })
        .await?;
        self.store.put_image_files(&rows).await?;
        Ok(rows)
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
        // No other file has it, so none is replaced, not even by one with the same content.
        path: format!("{kind}-{}", Uuid::new_v4()),
        in_place: 0,
        bytes: i64::try_from(file.bytes).unwrap_or(i64::MAX),
        sha256: Some(file.sha256.clone()),
        uploaded_at: now_ms(),
    }
}

fn move_all(moves: Vec<(Received, PathBuf)>, dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    moves.into_iter().try_for_each(|(file, to)| file.move_to(&to))?;
    for changed in [Some(dir), dir.parent()].into_iter().flatten() {
        File::open(changed)?.sync_all()?;
    }
    Ok(())
}
