//! Removes what belongs to no image: files whose place others took, and what a server that died left of an upload.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use super::{Images, PREFIX, blocking};
use crate::error::{Chain, Error, Result};
use crate::store::images::ImageFileRow;

impl Images {
    /// Removes the files of an image that no row names: at once, or as soon as nobody is about to open them. The caller
    /// has `change`.
    pub(super) async fn tidy(self: &Arc<Self>, id: &str) {
        if !self.holds.is_held(id) {
            return self.remove_unnamed(id).await;
        }
        let (images, id) = (Arc::clone(self), id.to_owned());
        tokio::spawn(async move {
            loop {
                images.holds.released(&id).await;
                let _change = images.change.lock().await;
                if !images.holds.is_held(&id) {
                    return images.remove_unnamed(&id).await;
                }
            }
        });
    }

    async fn remove_unnamed(&self, id: &str) {
        let removed = async {
            let rows = self.store.image_files(Some(id)).await?;
            let (dir, named) = (self.dir.join(id), names(rows).remove(id).unwrap_or_default());
            blocking(move || keep_only(&named, &dir).map_err(|error| failed(&dir, error))).await
        };
        if let Err(error) = removed.await {
            tracing::warn!(id, error = %Chain(&error), "files that belong to no image are left");
        }
    }

    /// The same for all images there are or were, before anybody uses them. What has another name is not ours.
    pub(super) async fn tidy_all(&self) -> Result<()> {
        let (dir, mut named) = (self.dir.clone(), names(self.store.image_files(None).await?));
        blocking(move || {
            for entry in fs::read_dir(&dir).map_err(|error| failed(&dir, error))? {
                let entry = entry.map_err(|error| failed(&dir, error))?;
                let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let Some(id) = entry.file_name().to_str().filter(|name| is_dir && is_id(name)).map(str::to_owned)
                else {
                    continue;
                };
                if let Err(error) = keep_only(&named.remove(&id).unwrap_or_default(), &entry.path()) {
                    tracing::warn!(id, %error, "files that belong to no image are left");
                }
            }
            Ok(())
        })
        .await
    }
}

/// Whether a server gave this id to an image of its own.
fn is_id(name: &str) -> bool {
    let number = name.strip_prefix(PREFIX);
    number.is_some_and(|number| Uuid::try_parse(number).is_ok_and(|uuid| uuid.to_string() == number))
}

/// The names of our own files, by the image.
fn names(rows: Vec<ImageFileRow>) -> HashMap<String, HashSet<String>> {
    let mut names: HashMap<_, HashSet<_>> = HashMap::new();
    for row in rows.into_iter().filter(|row| row.in_place == 0) {
        names.entry(row.image_id).or_default().insert(row.path);
    }
    names
}

/// Removes all else from an image's directory, and the directory with the last of it.
fn keep_only(named: &HashSet<String>, dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| named.contains(name)) {
            continue;
        }
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) }?;
    }
    if named.is_empty() { fs::remove_dir(dir) } else { Ok(()) }
}

fn failed(dir: &Path, error: io::Error) -> Error {
    Error::internal(format!("cannot tidy up {}", dir.display()), error)
}
