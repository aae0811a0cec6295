//! Removing what programs have left, however much of it there is and however deep.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;

use crate::random;

/// Removes what is in a directory until there is nothing left or it has `enough`, which is asked after each removal. Says
/// whether there is nothing left.
///
/// A program can put more directories within each other than there is memory for open files, or than a path can name. So
/// none is gone into: what is in a directory comes up into the outermost one before it is removed.
pub(super) fn empty(path: &str, enough: impl FnMut() -> bool) -> io::Result<bool> {
    let root = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut removal = Removal { root, removed: 0, is_enough: false, enough };
    loop {
        let (before, mut is_empty) = (removal.removed, true);
        for name in names(&removal.root)? {
            is_empty = false;
            let mut next = Some(name?);
            while let Some(name) = next {
                next = removal.remove(&name)?;
                if removal.is_enough {
                    return Ok(false);
                }
            }
        }
        // What came up meanwhile is there for the next turn.
        if is_empty || removal.removed == before {
            return Ok(is_empty);
        }
    }
}

struct Removal<F> {
    root: OwnedFd,
    removed: u64,
    is_enough: bool,
    enough: F,
}

impl<F: FnMut() -> bool> Removal<F> {
    /// Removes one name, or gives a directory that was in it and is to be removed next.
    fn remove(&mut self, name: &CStr) -> io::Result<Option<CString>> {
        match unlinkat(&self.root, name, AtFlags::empty()) {
            Ok(()) => self.count(),
            Err(Errno::ISDIR) => return self.dissolve(name),
            Err(_) => {}
        }
        Ok(None)
    }

    fn dissolve(&mut self, name: &CStr) -> io::Result<Option<CString>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(&self.root, name, flags, Mode::empty())?;
        let mut below = None;
        for inner in names(&directory)? {
            let inner = inner?;
            match unlinkat(&directory, &*inner, AtFlags::empty()) {
                Ok(()) => self.count(),
                Err(Errno::ISDIR) => {
                    let fresh = CString::new(random::name()).map_err(io::Error::other)?;
                    if renameat(&directory, &*inner, &self.root, &*fresh).is_ok() {
                        below = Some(fresh);
                    }
                }
                Err(_) => {}
            }
            if self.is_enough {
                return Ok(None);
            }
        }
        if unlinkat(&self.root, name, AtFlags::REMOVEDIR).is_ok() {
            self.count();
        }
        Ok(below)
    }

    fn count(&mut self) {
        self.removed += 1;
        self.is_enough = (self.enough)();
    }
}

/// The names in a directory, which are read as they are asked for: there may be more than fit into memory.
fn names(directory: &OwnedFd) -> io::Result<impl Iterator<Item = io::Result<CString>> + use<>> {
    let names = Dir::read_from(directory)?.map(|entry| Ok(entry?.file_name().to_owned()));
    Ok(names.filter(|name| !name.as_deref().is_ok_and(|name| name == c"." || name == c"..")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    fn directory(name: &str) -> (PathBuf, OwnedFd) {
        let path = std::env::temp_dir().join(format!("rds-trash-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let open = fs::File::open(&path).unwrap().into();
        (path, open)
    }

    /// Goes on down from a directory, leaving a file and a second directory at each level.
    fn dig(mut at: OwnedFd, levels: usize) {
        let mode = Mode::from_raw_mode(0o700);
        for _ in 0..levels {
            rustix::fs::mkdirat(&at, "aside", mode).unwrap();
            rustix::fs::mkdirat(&at, "down", mode).unwrap();
            drop(openat(&at, "file", OFlags::CREATE | OFlags::WRONLY, mode).unwrap());
            at = openat(&at, "down", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
    }

    #[test]
    fn directories_deeper_than_any_path_are_removed() {
        let (path, root) = directory("deep");
        dig(root, 1000);
        std::os::unix::fs::symlink("/etc", path.join("link")).unwrap();
        assert!(empty(path.to_str().unwrap(), || false).unwrap());
        assert!(fs::exists("/etc").unwrap());
        // It would fail if anything was left.
        fs::remove_dir(path).unwrap();
    }

    #[test]
    fn no_more_is_removed_than_is_enough() {
        let (path, _) = directory("enough");
        for number in 0..10 {
            fs::write(path.join(number.to_string()), "").unwrap();
        }
        let mut removed = 0;
        let all = empty(path.to_str().unwrap(), || {
            removed += 1;
            removed == 3
        });
        assert!(!all.unwrap());
        assert_eq!(fs::read_dir(&path).unwrap().count(), 7);
        fs::remove_dir_all(path).unwrap();
    }
}
