//! That a database and a storage root belong together: both have the same random id.
//!
//! A server that starts removes whatever the database does not know from the storage root, and forgets what has no files
//! there. With a volume that is not mounted, or another database, that would be everything; so it does not start then.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::config::StorageConfig;
use crate::error::{Error, Result};
use crate::store::Store;

/// The storage root's side: a file with the id.
struct Root<'a> {
    storage: &'a StorageConfig,
    file: PathBuf,
}

/// Refuses a database and a storage root that are not of one installation. A new pair gets its id, and so does one from
/// before there were any. The storage root's lock is held.
pub(crate) async fn check(storage: &StorageConfig, store: &Store) -> Result<()> {
    let root = Root { storage, file: storage.storage_root.join("installation") };
    let (place, file) = (storage.storage_root.display(), root.file.display());
    let draft = root.file.with_extension("new");
    match (store.installation().await?, read(&root.file)?) {
        (Some(ours), Some(its)) if ours == its => Ok(()),
        (Some(ours), Some(its)) => Err(Error::Conflict(format!(
            "the database belongs to installation {ours}, and STORAGE_ROOT {place} to {its}: start with two that belong \
             together"
        ))),
        (None, None) => {
            let id = Uuid::new_v4().to_string();
            write(&draft, &id)?;
            store.set_installation(&id).await?;
            put(&draft, &root.file)
        }
        // An earlier server was killed between the last two steps.
        (Some(ours), None) if read(&draft)?.as_ref() == Some(&ours) => put(&draft, &root.file),
        (Some(ours), None) if root.has_no_files()? && store.has_no_files().await? => {
            write(&draft, &ours)?;
            put(&draft, &root.file)
        }
        (Some(ours), None) => Err(Error::Conflict(format!(
            "the database belongs to an installation, and STORAGE_ROOT {place} to none: is its volume mounted? To give up \
             the files of all VMs and snapshots, write {ours} into {file}"
        ))),
        (None, Some(its)) if root.has_no_files()? && store.has_no_files().await? => store.set_installation(&its).await,
        (None, Some(_)) => Err(Error::Conflict(format!(
            "STORAGE_ROOT {place} belongs to an installation, and the database to none: is it the right one? To give up all \
             VMs, snapshots and images that it does not know, remove {file}"
        ))),
    }
}

impl Root<'_> {
    /// Whether there is nothing that rows may know of.
    fn has_no_files(&self) -> Result<bool> {
        for dir in [self.storage.vms_dir(), self.storage.snapshots_dir(), self.storage.images_dir()] {
            let failed = |error| Error::internal(format!("cannot read {}", dir.display()), error);
            for entry in fs::read_dir(&dir).map_err(failed)? {
                // Locks and drafts are nothing that rows know.
                if !entry.map_err(failed)?.file_name().as_encoded_bytes().starts_with(b".") {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

fn read(file: &Path) -> Result<Option<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(file, error)),
    }
}

fn write(file: &Path, id: &str) -> Result<()> {
    let written = File::create(file).and_then(|mut file| {
        writeln!(file, "{id}")?;
        file.sync_all()
    });
    written.map_err(|error| failed(file, error))
}

fn put(draft: &Path, file: &Path) -> Result<()> {
    fs::rename(draft, file).map_err(|error| failed(file, error))
}

fn failed(file: &Path, error: io::Error) -> Error {
    Error::internal(format!("cannot read or write {}", file.display()), error)
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};
    use tempfile::TempDir;

    use super::*;
    use crate::storage;

    struct Pair {
        _dir: TempDir,
        config: StorageConfig,
        store: Store,
    }

    impl Pair {
        /// A new storage root, and a new database somewhere else.
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("root");
            let args = ["test", "--storage-root", root.to_str().unwrap()];
            let matches = StorageConfig::augment_args(clap::Command::new("test")).try_get_matches_from(args).unwrap();
            let config = StorageConfig::from_arg_matches(&matches).unwrap();
            storage::prepare(&config).unwrap();
            let store = Store::sqlite(&dir.path().join("db")).await.unwrap();
            Self { _dir: dir, config, store }
        }

        fn fill(&self) {
            fs::create_dir(self.config.snapshots_dir().join("snap-1")).unwrap();
        }

        fn id(&self) -> Option<String> {
            read(&self.config.storage_root.join("installation")).unwrap()
        }
    }

    async fn fill(store: &Store) {
        let row = crate::store::snapshots::SnapshotRow {
            id: "snap-1".into(),
            created_at: 1,
            cpu: 1,
            mem_mb: 1,
            image_id: "img-a".into(),
            source_vm_id: "a".into(),
            disk_bytes: 1,
            size_bytes: 1,
            frozen_us: 1,
            kind: "user_overlay".into(),
            fits: None,
            base_seed: None,
        };
        store.insert_snapshot(&row, None).await.unwrap();
    }

    fn refused(checked: &Result<()>) -> bool {
        matches!(checked, Err(Error::Conflict(why)) if why.contains("installation") && !why.contains('\n'))
    }

    #[tokio::test]
    async fn a_pair_gets_one_id_and_keeps_it() {
        let (new, old) = (Pair::new().await, Pair::new().await);
        old.fill();
        fill(&old.store).await;
        for pair in [&new, &old] {
            check(&pair.config, &pair.store).await.unwrap();
            let id = pair.id().unwrap();
            assert_eq!(pair.store.installation().await.unwrap().as_ref(), Some(&id));
            check(&pair.config, &pair.store).await.unwrap();
            assert_eq!(pair.id().as_ref(), Some(&id));
        }
        for (root, database) in [(&new, &old), (&old, &new)] {
            assert!(refused(&check(&root.config, &database.store).await));
        }
    }

    #[tokio::test]
    async fn a_root_that_lost_its_volume_is_not_taken() {
        let (pair, other) = (Pair::new().await, Pair::new().await);
        check(&pair.config, &pair.store).await.unwrap();
        fill(&pair.store).await;
        assert!(refused(&check(&other.config, &pair.store).await));
        assert_eq!(other.id(), None);
        // As the error says.
        fs::write(other.config.storage_root.join("installation"), pair.id().unwrap()).unwrap();
        check(&other.config, &pair.store).await.unwrap();
    }

    #[tokio::test]
    async fn a_root_is_not_given_to_a_new_database() {
        let (pair, other) = (Pair::new().await, Pair::new().await);
        check(&pair.config, &pair.store).await.unwrap();
        pair.fill();
        assert!(refused(&check(&pair.config, &other.store).await));
        assert_eq!(other.store.installation().await.unwrap(), None);
        fs::remove_file(pair.config.storage_root.join("installation")).unwrap();
        check(&pair.config, &other.store).await.unwrap();
    }

    #[tokio::test]
    async fn sides_without_anything_may_be_replaced() {
        let (pair, other) = (Pair::new().await, Pair::new().await);
        check(&pair.config, &pair.store).await.unwrap();
        check(&pair.config, &other.store).await.unwrap();
        let third = Pair::new().await;
        check(&third.config, &other.store).await.unwrap();
        assert_eq!(third.id(), pair.id());
    }

    #[tokio::test]
    async fn a_first_start_that_was_cut_off_is_finished() {
        let pair = Pair::new().await;
        pair.fill();
        fill(&pair.store).await;
        let file = pair.config.storage_root.join("installation");
        write(&file.with_extension("new"), "one").unwrap();
        check(&pair.config, &pair.store).await.unwrap();
        let id = pair.id().unwrap();
        assert_ne!(id, "one", "the database never had it");
        fs::rename(&file, file.with_extension("new")).unwrap();
        check(&pair.config, &pair.store).await.unwrap();
        assert_eq!(pair.id().unwrap(), id);
    }
}
