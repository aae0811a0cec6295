//! Memory that many machines start with, each changing only its own copy of it.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::version::READ_ONLY_TEMPLATES;
use crate::Version;
use crate::sparse;

/// Gives memory files to machines in a form that none of them can write to.
///
/// QEMU before 8.2 opens the file for writing even when it maps it privately, and makes a hole in it where its guest puts a page
/// into the balloon, which reaches all machines of the same snapshot. So its machines get a sealed copy in memory (holes
/// left out) that nobody can write to. It is made once for all machines of a snapshot that live at the same time, and is there as
/// long as one of them does, or as it is kept.
#[derive(Debug, Default)]
pub(super) struct Templates(Mutex<HashMap<PathBuf, Arc<Mutex<Slot>>>>);

/// The copy of one snapshot's memory. Locked while it is made, so that only who needs the same one waits.
#[derive(Debug, Default)]
struct Slot {
    kept: Option<Arc<Template>>,
    shared: Weak<Template>,
}

/// Memory to start machines from. To be held as long as one lives that was.
#[derive(Debug)]
pub(super) struct Template {
    pub(super) memory: File,
    /// Of the file that it is, or is a copy of.
    modified: SystemTime,
}

impl Templates {
    /// Opens the memory in the file `path`. Blocks for the first machine of a snapshot.
    pub(super) fn open(&self, path: &Path, version: Version) -> io::Result<Arc<Template>> {
        let file = File::open(path)?;
        let modified = file.metadata()?.modified()?;
        if version >= READ_ONLY_TEMPLATES {
            return Ok(Arc::new(Template { memory: file, modified }));
        }
        let slot = self.slot(path);
        let mut slot = lock(&slot);
        if let Some(copy) = slot.shared.upgrade().filter(|copy| copy.modified == modified) {
            return Ok(copy);
        }
        // Nothing but what is returned holds it: the start that it is for may have been given up.
        let template = Arc::new(Template { memory: seal(&file)?, modified });
        *slot = Slot { shared: Arc::downgrade(&template), kept: None };
        Ok(template)
    }

    /// Keeps a snapshot's copy, if there is one, though no machine lives that was started from it.
    pub(super) fn keep(&self, path: &Path) {
        self.change(path, |slot| slot.kept = slot.shared.upgrade());
    }

    /// Keeps a snapshot's copy no longer than machines live that were started from it.
    pub(super) fn forget(&self, path: &Path) {
        self.change(path, |slot| slot.kept = None);
    }

    fn change(&self, path: &Path, change: impl FnOnce(&mut Slot)) {
        let slot = lock(&self.0).get(path).cloned();
        // While a new copy is made the one before is of no use, and nobody waits here.
        if let Some(mut slot) = slot.as_ref().and_then(|slot| slot.try_lock().ok()) {
            change(&mut slot);
        }
    }

    fn slot(&self, path: &Path) -> Arc<Mutex<Slot>> {
        let mut slots = lock(&self.0);
        slots.retain(|path, slot| {
            let in_use = Arc::strong_count(slot) > 1;
            in_use || path.exists() && slot.try_lock().is_ok_and(|slot| slot.shared.strong_count() > 0)
        });
        Arc::clone(slots.entry(path.to_owned()).or_default())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
        let copy = templates.open(&path, OLD).unwrap();
        assert!(copy.memory.write_all_at(b"x", 0).is_err());
        assert!(copy.memory.set_len(0).is_err());
        assert!(Arc::ptr_eq(&copy, &templates.open(&path, OLD).unwrap()));
        std::fs::remove_file(&path).unwrap();
        assert!(templates.open(&path, OLD).is_err());
        let mut left = [0; 3];
        copy.memory.read_exact_at(&mut left, 0).unwrap();
        assert_eq!(&left, b"abc", "a machine keeps what it started from");
    }

    #[test]
    fn a_copy_goes_when_it_is_forgotten_and_its_last_machine_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("memory"), dir.path().join("other"));
        std::fs::write(&path, b"abc").unwrap();
        std::fs::write(&other, b"def").unwrap();
        let templates = Templates::default();
        let open = |path| templates.open(path, OLD).unwrap();
        let kept = {
            let machine = open(&path);
            templates.keep(&path);
            Arc::downgrade(&machine)
        };
        assert!(kept.upgrade().is_some(), "the next machine needs it");
        let machine = open(&path);
        templates.forget(&path);
        assert!(Arc::ptr_eq(&machine, &open(&path)), "machines share it while one of them lives");
        drop(machine);
        assert!(kept.upgrade().is_none());
        // Also without a word, when the snapshot is gone.
        let removed = {
            let machine = open(&path);
            templates.keep(&path);
            Arc::downgrade(&machine)
        };
        std::fs::remove_file(&path).unwrap();
        open(&other);
        assert!(removed.upgrade().is_none());
        assert_eq!(lock(&templates.0).len(), 1);
    }

    #[test]
    fn a_copy_for_a_start_that_was_given_up_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory");
        std::fs::write(&path, b"abc").unwrap();
        let templates = Templates::default();
        let given_up = Arc::downgrade(&templates.open(&path, OLD).unwrap());
        assert!(given_up.upgrade().is_none());
        templates.keep(&path);
        assert!(lock(&templates.slot(&path)).kept.is_none());
    }

    #[test]
    fn nobody_waits_for_the_copy_of_another_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("memory"), dir.path().join("other"));
        std::fs::write(&other, b"def").unwrap();
        let templates = Templates::default();
        let slot = templates.slot(&path);
        let _making = lock(&slot);
        templates.open(&other, OLD).unwrap();
        templates.keep(&path);
        templates.forget(&path);
    }
}
