//! The initramfs that a guest boots from: one for each agent and image, made once. This module owns their directory.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rds_image::initramfs::assemble;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use crate::config::StorageConfig;
use crate::error::{Error, Result};
use crate::images::ImageFiles;

/// What was made, by what it was made of. One is made at a time: it takes some megabytes of memory for a moment, which
/// many creates at once would multiply.
#[derive(Debug, Default)]
pub(crate) struct Initramfs(Mutex<HashMap<[Option<Part>; 2], PathBuf>>);

/// One file, as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Part {
    path: PathBuf,
    bytes: u64,
    modified: SystemTime,
}

impl Part {
    fn of(path: &Path) -> Result<Self> {
        let failed = |error| Error::internal(format!("cannot read {}", path.display()), error);
        let meta = fs::metadata(path).map_err(failed)?;
        Ok(Self { path: path.to_owned(), bytes: meta.len(), modified: meta.modified().map_err(failed)? })
    }
}

impl Initramfs {
    /// The file for an image.
    pub(crate) async fn path(&self, storage: &StorageConfig, image: &ImageFiles) -> Result<PathBuf> {
        let (agent, modules) = (storage.agent_path(), image.modules.clone());
        let parts = [Some(Part::of(&agent)?), modules.as_deref().map(Part::of).transpose()?];
        let mut made = self.0.lock().await;
        if let Some(path) = made.get(&parts).filter(|path| path.exists()) {
            return Ok(path.clone());
        }
        let dir = storage.initramfs_dir();
        let path = spawn_blocking(move || assemble(&agent, modules.as_deref(), &dir))
            .await
            .map_err(|error| Error::internal("the task that makes an initramfs ended", error))?
            .map_err(|error| Error::internal("cannot make an initramfs", error))?;
        // Whoever is about to open another one holds its image, and thereby what it was made of.
        made.retain(|[_, modules], _| modules.as_ref().is_none_or(|modules| modules.path.exists()));
        made.insert(parts, path.clone());
        if let Err(error) = keep_only(&made.values().collect(), &storage.initramfs_dir()) {
            tracing::warn!(%error, "cannot remove an initramfs that is not needed any more");
        }
        Ok(path)
    }
}

/// Removes what earlier servers, agents and images left. What is still needed and not known yet is made anew.
fn keep_only(needed: &HashSet<&PathBuf>, dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "cpio") && !needed.contains(&path) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_needs_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let [needed, old, other] = ["a.cpio", "b.cpio", ".new-c"].map(|name| dir.path().join(name));
        for path in [&needed, &old, &other] {
            fs::write(path, "").unwrap();
        }
        keep_only(&HashSet::from([&needed]), dir.path()).unwrap();
        assert!(needed.exists() && other.exists() && !old.exists());
    }
}
