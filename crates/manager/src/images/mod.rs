//! Images: what VMs are made from. A kernel, a root filesystem and, where the kernel needs some, its modules.
//!
//! Files lie in `IMAGES_DIR/<id>`, each under a name that its row in the store has. None is ever changed or replaced: an upload
//! brings new files and then changes the rows, all of them or none, and what no row names is removed when nobody is about
//! to open it. A VM that runs keeps the files that it has open. One image may be given in place by KERNEL_PATH and its
//! companions; its files are not ours. This module must not know HTTP or what a VM does with the files.

mod bundle;
mod in_place;
mod receive;
mod tidy;
mod upload;
mod verify;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rds_image::initramfs::MAX_PART_BYTES;
use tokio::sync::watch;
use tracing::Instrument as _;
use uuid::Uuid;

pub use crate::store::images::FileKind;

use crate::activity::Activity;
use crate::clock::now_ms;
use crate::config::StorageConfig;
use crate::error::{Error, Result};
use crate::hold::{Hold, Holds};
use crate::store::Store;
use crate::store::images::{ImageFileRow, ImageRow};

/// Bytes of an uploaded file, and of each file in a bundle (section 6 of the wire contract: 3 GiB).
pub const MAX_UPLOAD_BYTES: u64 = 3 * 1024 * 1024 * 1024;

/// What an image's id begins with.
const PREFIX: &str = "img-";

/// Bytes of one file of an image. Modules live in the guest's memory.
fn max_bytes(kind: FileKind) -> u64 {
    match kind {
        FileKind::Kernel | FileKind::Rootfs => MAX_UPLOAD_BYTES,
        FileKind::Modules => MAX_PART_BYTES,
    }
}

/// An image as clients see it.
#[derive(Debug, Clone)]
pub struct Image {
    /// `img-…`.
    pub id: String,
    /// For people.
    pub name: String,
    /// For people.
    pub description: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Whether a VM that names no image gets this one.
    pub is_default: bool,
    /// What has been uploaded so far.
    pub files: Vec<ImageFile>,
}

impl Image {
    /// The file of a kind, if it is there.
    pub fn file(&self, kind: FileKind) -> Option<&ImageFile> {
        self.files.iter().find(|file| file.kind == kind)
    }
}

/// One file of an image.
#[derive(Debug, Clone)]
pub struct ImageFile {
    /// Which.
    pub kind: FileKind,
    /// Its length.
    pub bytes: u64,
    /// Hexadecimal; absent for a file given in place.
    pub sha256: Option<String>,
    /// Milliseconds since 1970.
    pub uploaded_at: i64,
    /// Where it lies.
    pub path: PathBuf,
    /// Whether it was given there and is not ours.
    pub in_place: bool,
}

/// The files of a complete image, which belong together. As long as one from [`Images::resolve`] lives the image cannot be
/// deleted, and these files stay whatever is uploaded.
#[derive(Debug, Clone)]
pub struct ImageFiles {
    /// `img-…`.
    pub id: String,
    /// An ELF `vmlinux` or a bzImage.
    pub kernel: PathBuf,
    /// An ext4 file system.
    pub rootfs: PathBuf,
    /// A cpio archive, if the kernel needs modules.
    pub modules: Option<PathBuf>,
    _hold: Option<Arc<Hold>>,
}

#[cfg(test)]
impl ImageFiles {
    /// Files of no service's.
    pub(crate) fn unheld(id: &str, kernel: PathBuf, rootfs: PathBuf) -> Self {
        Self { id: id.to_owned(), kernel, rootfs, modules: None, _hold: None }
    }
}

/// The service.
#[derive(Debug)]
pub struct Images {
    store: Store,
    activity: Activity,
    dir: PathBuf,
    drafts: PathBuf,
    /// Taken by whoever changes an image or begins to use one, for the moment of doing so.
    change: tokio::sync::Mutex<()>,
    holds: Holds,
    changes: watch::Sender<()>,
}

impl Images {
    /// Registers the image that is given in place, if there is one, and removes what belongs to no image.
    pub async fn start(config: &StorageConfig, store: Store, activity: Activity) -> Result<Self> {
        in_place::register(config, &store).await?;
        let (dir, drafts) = (config.images_dir(), config.image_drafts_dir());
        let (change, holds, changes) = (tokio::sync::Mutex::default(), Holds::default(), watch::Sender::new(()));
        let images = Self { store, activity, dir, drafts, change, holds, changes };
        images.tidy_all().await?;
        Ok(images)
    }

    /// Changes whenever an image's files do.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// All images, oldest first.
    pub async fn list(&self) -> Result<Vec<Image>> {
        let mut files: HashMap<String, Vec<ImageFileRow>> = HashMap::new();
        for file in self.store.image_files(None).await? {
            files.entry(file.image_id.clone()).or_default().push(file);
        }
        let rows = self.store.images().await?;
        rows.into_iter()
            .map(|row| {
                let files = files.remove(&row.id).unwrap_or_default();
                self.image(row, files)
            })
            .collect()
    }

    /// One image.
    pub async fn get(&self, id: &str) -> Result<Image> {
        let row = self.store.image(id).await?.ok_or_else(|| Error::not_found("Image not found"))?;
        let files = self.store.image_files(Some(id)).await?;
        self.image(row, files)
    }

    /// Makes an image without files.
    pub async fn create(&self, name: &str, description: &str) -> Result<Image> {
        let name = name.trim();
        if name.is_empty() || name.chars().count() > 200 {
            return Err(Error::invalid("name must be 1 to 200 characters"));
        }
        if description.chars().count() > 2000 {
            return Err(Error::invalid("description must be at most 2000 characters"));
        }
        let row = ImageRow {
            id: format!("{PREFIX}{}", Uuid::new_v4()),
            name: name.to_owned(),
            description: description.to_owned(),
            created_at: now_ms(),
            is_default: 0,
        };
        self.store.put_image(&row).await?;
        self.activity.record("image.created", &row.id, format!("Image {name} made"), None).await;
        self.image(row, Vec::new())
    }

    /// From now on a VM that names no image gets this one.
    pub async fn set_default(&self, id: &str) -> Result<()> {
        let _change = self.change.lock().await;
        if !self.store.set_default_image(id).await? {
            return Err(Error::not_found("Image not found"));
        }
        self.activity.record("image.default_set", id, "Default image changed", None).await;
        Ok(())
    }

    /// Removes an image that no VM was made from. Goes on to its end when it is dropped.
    pub async fn delete(self: &Arc<Self>, id: &str) -> Result<()> {
        let (images, id) = (Arc::clone(self), id.to_owned());
        let deleted = tokio::spawn(async move { images.delete_now(&id).await }.in_current_span()).await;
        deleted.map_err(|error| Error::internal("the task that removes an image ended", error)).flatten()
    }

    async fn delete_now(self: &Arc<Self>, id: &str) -> Result<()> {
        let _change = self.change.lock().await;
        self.changeable(id).await?;
        if self.holds.is_held(id) || self.store.vms_of_image(id).await? > 0 {
            return Err(Error::conflict("A VM uses this image: delete the VM first"));
        }
        self.store.delete_image(id).await?;
        self.changes.send_replace(());
        self.tidy(id).await;
        self.activity.record("image.deleted", id, "Image deleted", None).await;
        Ok(())
    }

    /// The files for a new VM, of the default image if none is named.
    ///
    /// [`Error::Invalid`] if there is no such image or it is not complete.
    pub async fn resolve(&self, id: Option<&str>) -> Result<ImageFiles> {
        let _change = self.change.lock().await;
        let row = match id {
            Some(id) => {
                self.store.image(id).await?.ok_or_else(|| Error::invalid(format!("There is no image {id:?}")))?
            }
            None => self.store.default_image().await?.ok_or_else(|| Error::invalid(NO_DEFAULT))?,
        };
        let files = self.store.image_files(Some(&row.id)).await?;
        let image = self.image(row, files)?;
        let hold = self.holds.hold(&image.id);
        let complete = complete(&image);
        complete.map(|files| ImageFiles { _hold: Some(hold), ..files }).map_err(|what| {
            Error::invalid(format!("Image {} has no {what} yet: upload one to /v1/images/{0}/{what}", image.id))
        })
    }

    /// The files of every complete image. They may go at any time.
    pub async fn all_complete(&self) -> Result<Vec<ImageFiles>> {
        let _change = self.change.lock().await;
        Ok(self.list().await?.iter().filter_map(|image| complete(image).ok()).collect())
    }

    /// An image whose files are ours to change.
    async fn changeable(&self, id: &str) -> Result<Image> {
        let image = self.get(id).await?;
        if image.files.iter().any(|file| file.in_place) {
            return Err(Error::conflict("This image is given by KERNEL_PATH and BASE_ROOTFS_PATH: change it there"));
        }
        Ok(image)
    }

    fn image(&self, row: ImageRow, files: Vec<ImageFileRow>) -> Result<Image> {
        let dir = self.dir.join(&row.id);
        let files = files.into_iter().map(|file| image_file(&dir, file)).collect::<Result<_>>()?;
        Ok(Image {
            id: row.id,
            name: row.name,
            description: row.description,
            created_at: row.created_at,
            is_default: row.is_default != 0,
            files,
        })
    }
}

const NO_DEFAULT: &str = "There is no default image: name one in imageId, or upload one and make it the default with \
                          POST /v1/images/:id/set-default (`rds image build debian --default` makes one)";

/// The files of an image, or the kind that it lacks.
fn complete(image: &Image) -> Result<ImageFiles, &'static str> {
    let path = |kind| image.file(kind).map(|file| file.path.clone());
    Ok(ImageFiles {
        id: image.id.clone(),
        kernel: path(FileKind::Kernel).ok_or("kernel")?,
        rootfs: path(FileKind::Rootfs).ok_or("rootfs")?,
        modules: path(FileKind::Modules),
        _hold: None,
    })
}

fn image_file(dir: &Path, row: ImageFileRow) -> Result<ImageFile> {
    let kind: FileKind = row.kind.parse()?;
    Ok(ImageFile {
        kind,
        bytes: u64::try_from(row.bytes).unwrap_or(0),
        sha256: row.sha256,
        uploaded_at: row.uploaded_at,
        in_place: row.in_place != 0,
        path: if row.in_place != 0 { PathBuf::from(row.path) } else { dir.join(row.path) },
    })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::internal("the task of an image's files ended", error))?
}
