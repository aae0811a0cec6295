//! Memory that many machines start with, each changing only its own copy of it.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::version::READ_ONLY_TEMPLATES;
use crate::Version;
use crate::sparse;

/// Gives memory files to machines in a form that none of them can write to.
///
/// QEMU before 8.2 opens the file for writing even when it maps it privately. A machine that runs as another user has no
/// right to do so, and must not get it: it would reach all machines of the same snapshot. Such a machine gets a sealed
/// copy in memory (made once for a snapshot, holes left out) that nobody can write to.
#[derive(Debug, Default)]
pub(super) struct Templates(Mutex<HashMap<PathBuf, Sealed>>);

#[derive(Debug)]
struct Sealed {
    memory: File,
    /// Of the file that it is a copy of.
    modified: SystemTime,
}

impl Templates {
    /// Opens the memory in the file `path`. Blocks for the first machine of a snapshot.
    pub(super) fn open(&self, path: &Path, version: Version, own_user: bool) -> io::Result<File> {
        let file = File::open(path)?;
        if own_user || version >= READ_ONLY_TEMPLATES {
            return Ok(file);
        }
        let modified = file.metadata()?.modified()?;
        let mut copies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A snapshot that was removed needs no copy; a machine that runs from one holds it itself.
        copies.retain(|path, _| path.exists());
        if let Some(copy) = copies.get(path).filter(|copy| copy.modified == modified) {
            return copy.memory.try_clone();
        }
        let memory = seal(&file)?;
        let shared = memory.try_clone()?;
        copies.insert(path.to_owned(), Sealed { memory, modified });
        Ok(shared)
    }
}

/// A copy of a file in memory that cannot be changed any more.
fn seal(file: &File) -> io::Result<File> {
    let copy = File::from(memfd_create("rds-template", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    sparse::clone(file, &copy)?;
    fcntl_add_seals(&copy, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    const OLD: Version = crate::qemu::OLDEST;

    #[test]
    fn a_copy_is_shared_and_cannot_be_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory");
        std::fs::write(&path, b"abc").unwrap();
        let templates = Templates::default();
        let copy = templates.open(&path, OLD, false).unwrap();
        assert!(copy.write_all_at(b"x", 0).is_err());
        assert!(copy.set_len(0).is_err());
        templates.open(&path, OLD, false).unwrap();
        assert_eq!(templates.0.lock().unwrap().len(), 1);
        std::fs::remove_file(&path).unwrap();
        assert!(templates.open(&path, OLD, false).is_err());
        let mut left = [0; 3];
        copy.read_exact_at(&mut left, 0).unwrap();
        assert_eq!(&left, b"abc", "a machine keeps what it started from");
    }
}
