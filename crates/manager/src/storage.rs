//! The storage root and the images' directory: what is in them, and the locks that keep them to one server.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::config::StorageConfig;
use crate::error::{Error, Result};
use crate::file_lock;

/// The directories are this process's while this lives. The kernel takes the locks back when the process ends, however.
#[derive(Debug)]
pub struct Lock {
    files: Vec<File>,
}

/// Makes the directories, takes the lock and removes what an earlier server left unfinished.
pub fn prepare(config: &StorageConfig) -> Result<Lock> {
    make_dir(&config.storage_root)?;
    let mut lock = lock(&config.storage_root)?;
    make_dir(&config.images_dir())?;
    // What belongs to no image of this server is removed there, too.
    lock.files.push(take(&config.images_dir(), ".lock", "IMAGES_DIR")?);
    for tmp in [config.tmp_dir(), config.image_drafts_dir()] {
        match fs::remove_dir_all(&tmp) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::internal(format!("cannot empty {}", tmp.display()), error));
            }
            _ => make_dir(&tmp)?,
        }
    }
    for dir in [config.vms_dir(), config.seeds_dir(), config.snapshots_dir()] {
        make_dir(&dir)?;
    }
    for dir in [config.templates_dir(), config.initramfs_dir()] {
        let failed = |error| Error::internal(format!("cannot tidy up {}", dir.display()), error);
        rds_image::remove_drafts(&dir).map_err(failed)?;
        rds_image::disk::prune_templates(&dir).map_err(failed)?;
    }
    Ok(lock)
}

/// Others may pass through (VM processes have uids of their own) but not list.
fn make_dir(dir: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(dir)
        .map_err(|error| Error::internal(format!("cannot make directory {}", dir.display()), error))
}

/// A directory that only the manager may enter: monitors get what they use as open descriptors.
pub(crate) fn make_private_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Takes the storage root for this process.
pub fn lock(root: &Path) -> Result<Lock> {
    Ok(Lock { files: vec![take(root, "lock", "STORAGE_ROOT")?] })
}

/// Takes the directory of a setting.
fn take(dir: &Path, file: &str, setting: &str) -> Result<File> {
    file_lock::take(&dir.join(file), || {
        format!("another server is using {}: stop it, or give this one another {setting}", dir.display())
    })
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    #[test]
    fn a_second_server_is_refused_until_the_first_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let first = lock(dir.path()).unwrap();
        assert!(matches!(lock(dir.path()), Err(Error::Conflict(message)) if message.contains("STORAGE_ROOT")));
        drop(first);
        lock(dir.path()).unwrap();
    }

    #[test]
    fn two_servers_never_share_a_directory_of_images() {
        let (one, other, images) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let config = |root: &Path, images: &Path| {
            let args = ["test", "--storage-root", root.to_str().unwrap(), "--images-dir", images.to_str().unwrap()];
            let command = StorageConfig::augment_args(clap::Command::new("test"));
            StorageConfig::from_arg_matches(&command.try_get_matches_from(args).unwrap()).unwrap()
        };
        let first = prepare(&config(one.path(), images.path())).unwrap();
        let second = prepare(&config(other.path(), images.path()));
        assert!(matches!(second, Err(Error::Conflict(message)) if message.contains("IMAGES_DIR")));
        drop(first);
        prepare(&config(one.path(), one.path())).unwrap();
    }
}
