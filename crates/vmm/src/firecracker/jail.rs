//! A machine's jail: the directory that its monitor sees as `/`, and the door to it.
//!
//! Files of the machine are mounted into it, each read-only unless it is the machine's own, in the monitor's mount
//! namespace alone: they end with the process, need no common filesystem, and the monitor can do nothing to an image's
//! file but read it. Once the monitor runs, everything in here is its own doing. So no path is followed: what is in the
//! jail is opened without symbolic links, and must be of the kind that it should be.

use std::ffi::{CString, OsStr};
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::net::sockopt::socket_peercred;
use tokio::net::UnixStream;

use crate::process::Process;

/// Names in the jail, as the monitor sees them.
pub(super) mod inside {
    pub(in super::super) const KERNEL: &str = "/kernel";
    pub(in super::super) const INITRAMFS: &str = "/initramfs";
    pub(in super::super) const ROOTFS: &str = "/rootfs";
    pub(in super::super) const DISK: &str = "/disk";
    pub(in super::super) const LOG: &str = "/log";
    /// A snapshot to start from.
    pub(in super::super) const MEMORY: &str = "/memory";
    pub(in super::super) const STATE: &str = "/state";
    pub(in super::super) const API: &str = "/run/api.sock";
    pub(in super::super) const VSOCK: &str = "/run/v.sock";
    /// A snapshot that is made.
    pub(in super::super) const NEW_MEMORY: &str = "/run/memory";
    pub(in super::super) const NEW_STATE: &str = "/run/state";
}

/// Bytes of the jailer's process file; it holds one number.
const NUMBER_BYTES: u64 = 16;

/// A file of the machine and where its monitor sees it.
#[derive(Debug)]
pub(super) struct Mount {
    pub(super) source: CString,
    pub(super) target: CString,
    pub(super) writable: bool,
}

/// Where a machine's jail is.
#[derive(Debug, Clone)]
pub(super) struct Jail {
    /// The directory whose name is the machine's id.
    home: PathBuf,
    /// Name of the monitor's program.
    program: PathBuf,
}

impl Jail {
    /// The jail of the machine `id` below `base`; the names in between are the jailer's rule.
    pub(super) fn new(base: &Path, program: &Path, id: &OsStr) -> Self {
        let program = PathBuf::from(program.file_name().unwrap_or_default());
        Self { home: base.join(&program).join(id), program }
    }

    fn root(&self) -> PathBuf {
        self.home.join("root")
    }

    /// The directory in which the monitor makes its sockets.
    pub(super) fn sockets(&self) -> PathBuf {
        self.root().join("run")
    }

    /// Makes the jail empty, in place of whatever was left of an earlier one.
    pub(super) fn make(&self) -> io::Result<()> {
        self.remove()?;
        DirBuilder::new().recursive(true).mode(0o700).create(self.sockets())
    }

    /// Makes the place at which `source` is to be mounted.
    pub(super) fn mount(&self, source: &Path, target: &str, writable: bool) -> io::Result<Mount> {
        let target = self.root().join(target.trim_start_matches('/'));
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&target)?;
        let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other);
        Ok(Mount { source: text(&source.canonicalize()?)?, target: text(&target)?, writable })
    }

    /// Removes the jail; its process has ended. No link in it is followed.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.home) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The number that the jailer wrote down for the process that it started. The process may have changed it since.
    pub(super) fn recorded_pid(&self) -> io::Result<i32> {
        let mut name = self.program.clone();
        name.add_extension("pid");
        let name = self.program.with_file_name(name);
        let file = File::from(self.open(&name, OFlags::RDONLY | OFlags::NONBLOCK)?);
        if !file.metadata()?.is_file() {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut text = String::new();
        file.take(NUMBER_BYTES).read_to_string(&mut text)?;
        text.trim().parse().map_err(io::Error::other)
    }

    /// Connects to a socket in the jail that `process` listens at.
    pub(super) async fn connect(&self, socket: &str, process: &Process) -> io::Result<UnixStream> {
        let found = File::from(self.open(Path::new(socket.trim_start_matches('/')), OFlags::PATH)?);
        if !found.metadata()?.file_type().is_socket() {
            return Err(io::Error::new(ErrorKind::InvalidData, "it is no socket"));
        }
        // By descriptor: neither can the name lead elsewhere meanwhile, nor is the path too long for an address.
        let stream = UnixStream::connect(format!("/proc/self/fd/{}", found.as_raw_fd())).await?;
        let peer = socket_peercred(&stream)?;
        if peer.pid.as_raw_nonzero().get() != process.pid() {
            return Err(io::Error::new(ErrorKind::PermissionDenied, "another process listens there"));
        }
        Ok(stream)
    }

    /// Moves a regular file of exactly the length that `fits` accepts out of the jail, and takes it from its owner.
    pub(super) fn take_out(&self, file: &str, to: &Path, fits: impl Fn(u64) -> bool) -> io::Result<()> {
        let name = Path::new(file.trim_start_matches('/'));
        let held = File::from(self.open(name, OFlags::RDWR | OFlags::NONBLOCK)?);
        let facts = held.metadata()?;
        if !facts.is_file() || facts.nlink() != 1 || !fits(facts.len()) {
            return Err(io::Error::new(ErrorKind::InvalidData, "the monitor did not write what it should"));
        }
        rustix::fs::fchown(&held, Some(rustix::process::Uid::ROOT), Some(rustix::process::Gid::ROOT))?;
        // Monitors that start from it run as other users.
        rustix::fs::fchmod(&held, Mode::from_raw_mode(0o444))?;
        let parent = self.open(name.parent().unwrap_or(Path::new(".")), OFlags::PATH | OFlags::DIRECTORY)?;
        let moved = rustix::fs::renameat(&parent, name.file_name().unwrap_or_default(), CWD, to);
        match moved {
            Err(rustix::io::Errno::XDEV) => copy(&held, to)?,
            other => other?,
        }
        let there = fs::symlink_metadata(to)?;
        let same = there.is_file() && (moved.is_err() || (there.dev(), there.ino()) == (facts.dev(), facts.ino()));
        same.then_some(())
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "the monitor put another file in its place"))
    }

    /// Opens what is in the jail, following no link and leaving it nowhere.
    fn open(&self, name: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let root = rustix::fs::open(
            self.root(),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        Ok(openat2(root, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), resolve)?)
    }
}

/// Copies a file to another filesystem.
fn copy(mut from: &File, to: &Path) -> io::Result<()> {
    let mut to = fs::OpenOptions::new().write(true).create_new(true).mode(0o444).open(to)?;
    io::copy(&mut from, &mut to).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    fn jail(base: &Path) -> Jail {
        let jail = Jail::new(base, Path::new("/opt/firecracker"), OsStr::new("vm"));
        jail.make().unwrap();
        jail
    }

    #[tokio::test]
    async fn only_a_socket_of_the_right_process_is_connected_to() {
        let base = tempfile::tempdir().unwrap();
        let jail = jail(base.path());
        let own = Process::of(std::process::id()).unwrap();
        let socket = jail.sockets().join("v.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        jail.connect(inside::VSOCK, &own).await.unwrap();

        let stranger = Process::of(1).unwrap();
        assert_eq!(jail.connect(inside::VSOCK, &stranger).await.unwrap_err().kind(), ErrorKind::PermissionDenied);

        let elsewhere = base.path().join("elsewhere");
        fs::rename(&socket, &elsewhere).unwrap();
        symlink(&elsewhere, &socket).unwrap();
        assert!(jail.connect(inside::VSOCK, &own).await.is_err(), "a link to a socket");
        fs::remove_file(&socket).unwrap();
        fs::write(&socket, "").unwrap();
        assert!(jail.connect(inside::VSOCK, &own).await.is_err(), "a file");
        fs::remove_dir_all(jail.sockets()).unwrap();
        symlink(base.path(), jail.sockets()).unwrap();
        fs::rename(&elsewhere, base.path().join("v.sock")).unwrap();
        assert!(jail.connect(inside::VSOCK, &own).await.is_err(), "a link to a directory");
    }

    #[test]
    fn what_is_taken_out_is_a_file_of_the_right_length_and_nobody_elses() {
        let base = tempfile::tempdir().unwrap();
        let jail = jail(base.path());
        let (from, to) = (jail.sockets().join("memory"), base.path().join("memory"));
        let take = || jail.take_out(inside::NEW_MEMORY, &to, |length| length == 3);
        let secret = base.path().join("secret");
        fs::write(&secret, "abc").unwrap();

        assert!(take().is_err(), "nothing");
        symlink(&secret, &from).unwrap();
        assert!(take().is_err(), "a link");
        fs::remove_file(&from).unwrap();
        fs::hard_link(&secret, &from).unwrap();
        assert!(take().is_err(), "another's file");
        fs::remove_file(&from).unwrap();
        fs::write(&from, "abcd").unwrap();
        assert!(take().is_err(), "too long");
        assert!(!to.exists());
        fs::write(&from, "abc").unwrap();
        if rustix::process::geteuid().is_root() {
            take().unwrap();
            assert_eq!(fs::read(&to).unwrap(), b"abc");
            assert_eq!(fs::metadata(&to).unwrap().mode() & 0o777, 0o444);
            assert!(!from.exists());
        }
    }

    #[test]
    fn a_removed_jail_takes_nothing_with_it() {
        let base = tempfile::tempdir().unwrap();
        let outside = base.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "").unwrap();
        let jail = jail(base.path());
        symlink(&outside, jail.sockets().join("link")).unwrap();
        jail.remove().unwrap();
        jail.remove().unwrap();
        assert!(outside.join("file").exists());
        assert!(!jail.sockets().exists());
    }

    #[test]
    fn a_process_number_is_only_a_number() {
        let base = tempfile::tempdir().unwrap();
        let jail = jail(base.path());
        let file = jail.root().join("firecracker.pid");
        assert!(jail.recorded_pid().is_err());
        fs::write(&file, "4711").unwrap();
        assert_eq!(jail.recorded_pid().unwrap(), 4711);
        fs::write(&file, "not a number").unwrap();
        assert!(jail.recorded_pid().is_err());
        fs::remove_file(&file).unwrap();
        rustix::fs::mkfifoat(CWD, &file, Mode::from_raw_mode(0o600)).unwrap();
        assert!(jail.recorded_pid().is_err(), "a pipe that nobody writes to");
    }
}
