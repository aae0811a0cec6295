//! Work inside a directory tree that was written by somebody else: paths are resolved as if the tree were `/`, so that
//! no symbolic link in it leads out.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use crate::error::{SystemError, While};

/// The root of a foreign tree.
pub(super) struct Root(OwnedFd);

impl Root {
    /// Opens it.
    pub(super) fn open(path: &str) -> Result<Self, SystemError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty()).while_(format!("open {path}"))?))
    }

    fn resolve(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT)
    }

    /// A directory, made with those above it where they are missing.
    pub(super) fn directory(&self, path: &str) -> Result<OwnedFd, SystemError> {
        let open = |path: &str| self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY);
        let made = match open(path) {
            Err(Errno::NOENT) => {
                let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
                let parent = if parent == "." { open(".").while_("open the root")? } else { self.directory(parent)? };
                match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => open(path),
                    Err(error) => Err(error),
                }
            }
            other => other,
        };
        made.while_(format!("open directory {path}"))
    }

    /// Whether there is something at a path.
    pub(super) fn has(&self, path: &str) -> bool {
        self.resolve(path, OFlags::PATH).is_ok()
    }

    /// A file's text; empty if there is none.
    pub(super) fn read(&self, path: &str) -> Result<String, SystemError> {
        match self.resolve(path, OFlags::RDONLY) {
            Err(Errno::NOENT) => Ok(String::new()),
            Err(error) => Err(error).while_(format!("read {path}")),
            Ok(file) => {
                let mut text = Vec::new();
                File::from(file).read_to_end(&mut text).while_(format!("read {path}"))?;
                Ok(String::from_utf8_lossy(&text).into_owned())
            }
        }
    }

    /// Puts a new, empty file in the place of whatever is there.
    pub(super) fn create(&self, path: &str, mode: u32) -> Result<File, SystemError> {
        let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
        let parent = self.directory(parent)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let _ = rustix::fs::unlinkat(&parent, name, AtFlags::empty());
        let made = rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(mode));
        Ok(made.while_(format!("make {path}"))?.into())
    }

    /// The same, with text in it.
    pub(super) fn replace(&self, path: &str, text: &str, mode: u32) -> Result<(), SystemError> {
        self.create(path, mode)?.write_all(text.as_bytes()).while_(format!("write {path}"))
    }
}

/// A path to an open directory, for system calls that take none.
pub(super) fn path_of(directory: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", directory.as_raw_fd())
}
