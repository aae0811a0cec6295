//! The seeds on the disk: one directory each, named after its key, complete or not there.
//!
//! A seed is written under another name and renamed when it is whole. A machine that runs from one holds its files open,
//! so a seed may be removed at any time.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rds_vmm::hypervisor::SnapshotDir;
use serde::{Deserialize, Serialize};

use super::key::Key;
use super::{Seed, Size};
use crate::storage::make_private_dir;

/// What a seed's directory says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct About {
    image_id: String,
    size: Size,
    /// Milliseconds since 1970.
    created_at: i64,
    /// Of the other files.
    digest: String,
}

const ABOUT: &str = "seed.json";

/// Suffix of a directory that is not complete.
const DRAFT: &str = ".new";

/// The directory of all seeds.
#[derive(Debug, Clone)]
pub(super) struct Shelf(pub(super) PathBuf);

impl Shelf {
    /// Where seeds are built, each in a machine's directory of its own, and what is not complete.
    pub(super) fn workshop(&self) -> PathBuf {
        self.0.join("build")
    }

    /// Every seed; what is no seed is removed.
    pub(super) fn take_stock(&self) -> io::Result<Vec<Seed>> {
        let mut seeds = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            match read(&path) {
                Some(seed) => seeds.push(seed),
                None => remove(&path)?,
            }
        }
        Ok(seeds)
    }

    /// An empty directory for a snapshot that is to become this seed.
    pub(super) fn draft(&self, key: &Key) -> io::Result<SnapshotDir> {
        let dir = self.workshop().join(format!("{key}{DRAFT}"));
        remove(&dir)?;
        make_private_dir(&dir)?;
        Ok(SnapshotDir(dir))
    }

    /// Puts a complete snapshot in its place, on stable storage.
    pub(super) fn publish(&self, draft: &SnapshotDir, key: &Key, image_id: &str, size: Size) -> io::Result<Seed> {
        let (created_at, digest) = (crate::clock::now_ms(), digest(&draft.0)?);
        let about = About { image_id: image_id.to_owned(), size, created_at, digest };
        fs::write(draft.0.join(ABOUT), serde_json::to_vec(&about)?)?;
        for entry in fs::read_dir(&draft.0)? {
            File::open(entry?.path())?.sync_all()?;
        }
        File::open(&draft.0)?.sync_all()?;
        let dir = self.0.join(key.to_string());
        remove(&dir)?;
        fs::rename(&draft.0, &dir)?;
        File::open(&self.0)?.sync_all()?;
        read(&dir).ok_or_else(|| io::Error::other("a seed is not as it was written"))
    }

    /// Bytes that are free for new files.
    pub(super) fn free_bytes(&self) -> io::Result<u64> {
        let facts = rustix::fs::statvfs(&self.0)?;
        Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
    }
}

/// Removes a file or directory, whichever it is, if it is there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The digest of a seed's files.
pub(super) fn digest(dir: &Path) -> io::Result<String> {
    super::digest::digest(dir, ABOUT)
}

/// Notes that a seed was used now.
pub(super) fn touch(seed: &Seed) -> io::Result<()> {
    File::open(&seed.dir.0)?.set_modified(SystemTime::now())
}

/// How long a seed has not been used.
pub(super) fn idle(seed: &Seed) -> Duration {
    let modified = fs::metadata(&seed.dir.0).and_then(|facts| facts.modified());
    modified.ok().and_then(|time| time.elapsed().ok()).unwrap_or_default()
}

fn read(path: &Path) -> Option<Seed> {
    use std::os::unix::fs::MetadataExt as _;
    let key = Key::parse(path.file_name()?.to_str()?)?;
    let about: About = serde_json::from_slice(&fs::read(path.join(ABOUT)).ok()?).ok()?;
    let blocks = fs::read_dir(path).ok()?.flatten().filter_map(|entry| Some(entry.metadata().ok()?.blocks()));
    let bytes = blocks.sum::<u64>() * 512;
    let About { image_id, size, created_at, digest } = about;
    Some(Seed { key, dir: SnapshotDir(path.to_owned()), image_id, size, created_at, bytes, digest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_whole_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf(dir.path().to_owned());
        let key = Key::parse("0123456789abcdef0123456789abcdef").unwrap();
        let size = Size { vcpus: 1, mem_mib: 256 };
        let draft = shelf.draft(&key).unwrap();
        fs::write(draft.0.join("memory"), "m").unwrap();
        let seed = shelf.publish(&draft, &key, "img-a", size).unwrap();
        assert_eq!((seed.image_id.as_str(), seed.size), ("img-a", size));
        // As after a power cut in the middle of the next one.
        fs::write(shelf.draft(&Key::parse(&"f".repeat(32)).unwrap()).unwrap().0.join("memory"), "m").unwrap();
        fs::create_dir(dir.path().join("e".repeat(32))).unwrap();
        fs::write(dir.path().join("stray"), "s").unwrap();
        let found = shelf.take_stock().unwrap();
        assert_eq!(found.iter().map(|seed| &seed.key).collect::<Vec<_>>(), [&key]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(idle(&found[0]) < Duration::from_secs(60));
        touch(&found[0]).unwrap();
    }
}
