//! Paths below `/workspace`, resolved without following any symbolic link.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::failure::Failure;

/// The only place whose files can be reached.
const WORKSPACE: &str = "/workspace";

/// A path that has been checked: `/workspace` itself, or something below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    parts: Vec<String>,
}

impl Path {
    /// Checks the spelling of an absolute path.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let outside = || Failure::bad(format!("{text:?} is not below {WORKSPACE}"));
        let below = text.strip_prefix(WORKSPACE).ok_or_else(outside)?;
        if !below.is_empty() && !below.starts_with('/') {
            return Err(outside());
        }
        let parts: Vec<String> = below.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        if parts.iter().any(|part| part == "." || part == "..") {
            return Err(outside());
        }
        Ok(Self { parts })
    }

    /// The last component; empty for `/workspace` itself.
    pub(super) fn name(&self) -> &str {
        self.parts.last().map_or("", String::as_str)
    }

    /// The path of the directory that it is in, and its name there. `/workspace` itself has none.
    pub(super) fn split(&self) -> Result<(Self, &str), Failure> {
        let Some((name, parent)) = self.parts.split_last() else {
            return Err(Failure::bad(format!("{WORKSPACE} is a directory")));
        };
        Ok((Self { parts: parent.to_vec() }, name))
    }

    /// Opens what is there.
    pub(super) fn open(&self, flags: OFlags) -> Result<OwnedFd, Failure> {
        let root = open_root().map_err(|error| self.failed(error))?;
        let path = if self.parts.is_empty() { ".".into() } else { self.parts.join("/") };
        open_below(&root, &path, flags).map_err(|error| self.failed(error))
    }

    /// Opens a directory, made with those above it where they are missing.
    pub(super) fn make(&self) -> Result<OwnedFd, Failure> {
        let root = open_root().map_err(|error| self.failed(error))?;
        let parts = self.parts.iter().map(String::as_str);
        make_directories(root, parts).map_err(|error| self.failed(error))
    }

    /// A failure that names this path.
    pub(super) fn failed(&self, error: impl Into<io::Error>) -> Failure {
        Failure::at(&self.to_string(), &error.into())
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(WORKSPACE)?;
        self.parts.iter().try_for_each(|part| write!(f, "/{part}"))
    }
}

fn open_root() -> Result<OwnedFd, Errno> {
    rustix::fs::openat(CWD, WORKSPACE, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a relative path without leaving `directory` and without following any link.
pub(super) fn open_below(directory: impl AsFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(directory, path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty(), resolve)
}

/// Goes down from `directory`, making what is missing.
pub(super) fn make_directories<'a>(directory: OwnedFd, parts: impl Iterator<Item = &'a str>) -> Result<OwnedFd, Errno> {
    let mut here = directory;
    for name in parts {
        match rustix::fs::mkdirat(&here, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        here = open_below(&here, name, OFlags::RDONLY | OFlags::DIRECTORY)?;
    }
    Ok(here)
}

/// Makes a new file in place of whatever file or link has that name.
pub(super) fn create(directory: impl AsFd, name: &str, executable: bool) -> Result<File, Errno> {
    match rustix::fs::unlinkat(&directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(if executable { 0o755 } else { 0o644 });
    Ok(rustix::fs::openat(directory, name, flags, mode)?.into())
}

/// Makes a new file that has no name yet.
pub(super) fn create_nameless(directory: impl AsFd, executable: bool) -> io::Result<File> {
    let mode = Mode::from_raw_mode(if executable { 0o755 } else { 0o644 });
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, ".", flags, mode)?.into())
}

/// Gives a nameless file a name, in place of whatever file or link has it.
pub(super) fn name(file: &File, directory: &OwnedFd, name: &str) -> io::Result<()> {
    // A link takes no name that is in use; renaming does.
    let draft = format!(".rds-{}", crate::random::name());
    let file = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, file, directory, &draft, AtFlags::SYMLINK_FOLLOW)?;
    let renamed = rustix::fs::renameat(directory, &draft, directory, name);
    if renamed.is_err() {
        let _ = rustix::fs::unlinkat(directory, &draft, AtFlags::empty());
    }
    Ok(renamed?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_workspace_has_paths() {
        assert_eq!(Path::parse("/workspace//a/b/").unwrap().to_string(), "/workspace/a/b");
        assert_eq!(Path::parse("/workspace").unwrap().name(), "");
        for outside in ["", "/", "/workspaces", "/workspace/../etc", "/workspace/a/./b", "a", "/home/user", "/etc"] {
            assert!(Path::parse(outside).is_err(), "{outside:?}");
        }
    }

    #[test]
    fn no_link_is_followed_and_nothing_is_left() {
        let dir = std::env::temp_dir().join(format!("rds-beneath-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("a/b")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.join("link")).unwrap();
        let root = || OwnedFd::from(File::open(&dir).unwrap());
        assert!(open_below(root(), "a/b", OFlags::RDONLY).is_ok());
        assert_eq!(open_below(root(), "link/passwd", OFlags::RDONLY).unwrap_err(), Errno::LOOP);
        assert_eq!(open_below(root(), "..", OFlags::RDONLY).unwrap_err(), Errno::XDEV);
        assert!(make_directories(root(), ["link", "x"].into_iter()).is_err());
        // A link in a file's place is replaced, not written through.
        create(root(), "link", false).unwrap();
        assert!(dir.join("link").symlink_metadata().unwrap().is_file());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
