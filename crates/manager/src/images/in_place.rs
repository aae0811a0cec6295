//! The image that KERNEL_PATH, BASE_ROOTFS_PATH and MODULES_PATH give: used where it lies, never copied or removed.

use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::{FileKind, verify};
use crate::clock::now_ms;
use crate::config::StorageConfig;
use crate::error::{Error, Result};
use crate::store::Store;
use crate::store::images::{ImageFileRow, ImageRow};

/// Registers the image under an id that is the same for the same paths, and as the default if there is no other.
pub(super) async fn register(config: &StorageConfig, store: &Store) -> Result<()> {
    let given = match (&config.kernel_path, &config.base_rootfs_path) {
        (Some(kernel), Some(rootfs)) => {
            let mut files = vec![(FileKind::Kernel, kernel.as_path()), (FileKind::Rootfs, rootfs.as_path())];
            files.extend(config.modules_path.as_deref().map(|modules| (FileKind::Modules, modules)));
            files
        }
        _ => Vec::new(),
    };
    let id = id(&given);
    forget_others(store, &id).await?;
    if given.is_empty() {
        return Ok(());
    }
    let rows = given.iter().map(|(kind, path)| row(&id, *kind, path)).collect::<Result<Vec<_>>>()?;
    let image = ImageRow {
        id: id.clone(),
        name: "default".into(),
        description: "Given in place by KERNEL_PATH and BASE_ROOTFS_PATH".into(),
        created_at: now_ms(),
        is_default: 0,
    };
    store.put_image(&image).await?;
    store.put_image_files(&rows).await?;
    if store.default_image().await?.is_none() {
        store.set_default_image(&id).await?;
    }
    Ok(())
}

/// Images that were given in place before and are no longer, unless a VM was made from one.
async fn forget_others(store: &Store, current: &str) -> Result<()> {
    let mut others: Vec<_> = store.image_files(None).await?.into_iter().filter(|file| file.in_place != 0).collect();
    others.dedup_by(|a, b| a.image_id == b.image_id);
    for file in others {
        if file.image_id != current && store.vms_of_image(&file.image_id).await? == 0 {
            store.delete_image(&file.image_id).await?;
        }
    }
    Ok(())
}

fn id(files: &[(FileKind, &Path)]) -> String {
    let mut hash = Sha256::new();
    for (kind, path) in files {
        hash.update(kind.as_str());
        hash.update([0]);
        hash.update(path.as_os_str().as_encoded_bytes());
        hash.update([0]);
    }
    let hash = hex::encode(hash.finalize());
    format!("img-{}", hash.get(..12).unwrap_or_default())
}

fn row(image_id: &str, kind: FileKind, path: &Path) -> Result<ImageFileRow> {
    let bytes = verify::file(kind, path).map_err(|fault| match fault {
        Error::Invalid(why) => Error::Invalid(format!("{}: {why}", path.display())),
        other => other,
    })?;
    Ok(ImageFileRow {
        image_id: image_id.to_owned(),
        kind: kind.as_str().to_owned(),
        path: path.to_str().ok_or_else(|| Error::invalid("an image's path is not valid UTF-8"))?.to_owned(),
        in_place: 1,
        bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        sha256: None,
        uploaded_at: now_ms(),
    })
}
