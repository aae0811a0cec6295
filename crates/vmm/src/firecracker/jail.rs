//! A machine's jail: what its monitor sees as `/`, and the door to it.
//!
//! The root is a small filesystem in memory, which nobody but the monitor has mounted: it cannot fill the host's disk, and
//! leaves nothing behind. Files of the machine are mounted into it, each read-only unless it is the machine's own. All
//! mounts are in the monitor's mount namespace alone: they end with the process, need no common filesystem, and the
//! monitor can do nothing to an image's file but read it. Once the monitor runs, everything in here is its own doing. So no
//! path is followed: what is in the jail is opened without symbolic links, and must be of the kind that it should be.

use std::ffi::{CString, OsStr};
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, ResolveFlags, inotify, openat, openat2};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};
use rustix::net::sockopt::socket_peercred;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;

use crate::process::Process;

/// Names in the jail, as the monitor sees them.
pub(super) mod inside {
    pub(in super::super) const KERNEL: &str = "/kernel";
    pub(in super::super) const INITRAMFS: &str = "/initramfs";
    pub(in super::super) const ROOTFS: &str = "/rootfs";
    pub(in super::super) const DISK: &str = "/disk";
    pub(in super::super) const LOG: &str = "/log";
    pub(in super::super) const METRICS: &str = "/metrics";
    /// The directory of all the rest.
    pub(in super::super) const ROOT: &str = "/";
    /// A snapshot to start from.
    pub(in super::super) const MEMORY: &str = "/memory";
    pub(in super::super) const STATE: &str = "/state";
    pub(in super::super) const API: &str = "/run/api.sock";
    pub(in super::super) const VSOCK: &str = "/run/v.sock";
    /// A snapshot that is made.
    pub(in super::super) const NEW_MEMORY: &str = "/new-memory";
    pub(in super::super) const NEW_STATE: &str = "/new-state";
}

/// Bytes of the jailer's process file; it holds one number.
const NUMBER_BYTES: u64 = 16;

/// Bytes for what a monitor makes in its root, which is sockets, and how many files and directories there may be. The
/// jailer makes 12, the driver 9.
const ROOM: u64 = 64 * 1024;
const FILES: &str = "48";

/// Between two attempts to reach a socket that has its name and is not yet listened at, which takes one system call.
const ALMOST: Duration = Duration::from_micros(200);

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
}

impl Jail {
    /// The jail of the machine `id` below `base`; the names in between are the jailer's rule.
    pub(super) fn new(base: &Path, program: &Path, id: &OsStr) -> Self {
        Self { home: base.join(program.file_name().unwrap_or_default()).join(id) }
    }

    /// The directory that is the jail's alone, with the machine's name.
    pub(super) fn home(&self) -> &Path {
        &self.home
    }

    /// The directory over which the monitor's mount namespace has its root. For all others it is empty.
    pub(super) fn place(&self) -> PathBuf {
        self.home.join("root")
    }

    /// Makes the place, instead of whatever was left of an earlier one.
    pub(super) fn make(&self) -> io::Result<()> {
        remove(&self.home)?;
        DirBuilder::new().recursive(true).mode(0o700).create(self.place())
    }

    /// How to mount `source` into a root that will be over the place.
    pub(super) fn mount(&self, root: &Root, source: &Path, target: &str, writable: bool) -> io::Result<Mount> {
        let name = target.trim_start_matches('/');
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        openat(root, name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Mount { source: text(&std::path::absolute(source)?)?, target: text(&self.place().join(name))?, writable })
    }
}

/// Removes a jail by its home; its process has ended. No link in it is followed.
pub(super) fn remove(home: &Path) -> io::Result<()> {
    match fs::remove_dir_all(home) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What a monitor has, or will have, as its root.
#[derive(Debug)]
pub(super) struct Root(OwnedFd);

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Root {
    /// A new one, mounted nowhere, with room for a program of that many bytes.
    pub(super) fn new(program: u64) -> io::Result<Self> {
        let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let size = (program + ROOM).to_string();
        for (key, value) in
            [(c"size", size.as_str()), (c"nr_inodes", FILES), (c"mode", "0700"), (c"uid", "0"), (c"gid", "0")]
        {
            fsconfig_set_string(&context, key, value)?;
        }
        fsconfig_create(&context)?;
        Ok(Self(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NOSUID)?))
    }

    /// That of a process.
    pub(super) fn of(process: &Process) -> io::Result<Self> {
        process.root().map(Self)
    }

    /// The number that the jailer wrote down for the process of `program` that it started. That process may have changed
    /// it since.
    pub(super) fn recorded_pid(&self, program: &Path) -> io::Result<i32> {
        let mut name = PathBuf::from(program.file_name().unwrap_or_default());
        name.add_extension("pid");
        let file = File::from(self.open(&name, OFlags::RDONLY | OFlags::NONBLOCK)?);
        if !file.metadata()?.is_file() {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut text = String::new();
        file.take(NUMBER_BYTES).read_to_string(&mut text)?;
        text.trim().parse().map_err(io::Error::other)
    }

    /// Connects to a socket that `process` listens at.
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

    /// Connects to a socket as soon as `process` listens at it.
    pub(super) async fn await_socket(&self, socket: &str, process: &Process) -> io::Result<UnixStream> {
        let announced = announcements(&self.sockets()?)?;
        loop {
            match self.connect(socket, process).await {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let mut ready = announced.readable().await?;
                    let mut events = [const { MaybeUninit::uninit() }; 512];
                    let _ = rustix::io::read(ready.get_inner(), &mut events);
                    ready.clear_ready();
                }
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => tokio::time::sleep(ALMOST).await,
                other => return other,
            }
        }
    }

    /// The directory in which the monitor makes its sockets.
    fn sockets(&self) -> io::Result<OwnedFd> {
        self.open(Path::new("run"), OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Opens what is in here, following no link and leaving it nowhere.
    fn open(&self, name: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        Ok(openat2(self, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), resolve)?)
    }
}

/// Tells when something is made in a directory.
fn announcements(dir: &OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
    inotify::add_watch(&watch, format!("/proc/self/fd/{}", dir.as_raw_fd()), inotify::WatchFlags::CREATE)?;
    // SAFETY: an owned descriptor stays the same one, open, until the registration drops it.
    Ok(unsafe { AsyncFd::register_with_interest(watch, Interest::READABLE) }?)
}

fn text(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    /// A directory in place of a filesystem of its own, which only root can make.
    fn root(base: &Path) -> Root {
        fs::create_dir(base.join("run")).unwrap();
        Root(File::open(base).unwrap().into())
    }

    #[tokio::test]
    async fn only_a_socket_of_the_right_process_is_connected_to() {
        let base = tempfile::tempdir().unwrap();
        let root = root(base.path());
        let own = Process::of(std::process::id()).unwrap();
        let (run, socket) = (base.path().join("run"), base.path().join("run/v.sock"));
        let _listener = UnixListener::bind(&socket).unwrap();
        root.connect(inside::VSOCK, &own).await.unwrap();

        let stranger = Process::of(1).unwrap();
        assert_eq!(root.connect(inside::VSOCK, &stranger).await.unwrap_err().kind(), ErrorKind::PermissionDenied);

        let elsewhere = base.path().join("elsewhere");
        fs::rename(&socket, &elsewhere).unwrap();
        symlink(&elsewhere, &socket).unwrap();
        assert!(root.connect(inside::VSOCK, &own).await.is_err(), "a link to a socket");
        fs::remove_file(&socket).unwrap();
        fs::write(&socket, "").unwrap();
        assert!(root.connect(inside::VSOCK, &own).await.is_err(), "a file");
        fs::remove_dir_all(&run).unwrap();
        symlink(base.path(), &run).unwrap();
        fs::rename(&elsewhere, base.path().join("v.sock")).unwrap();
        assert!(root.connect(inside::VSOCK, &own).await.is_err(), "a link to a directory");
        assert!(root.sockets().is_err(), "a link to a directory");
    }

    #[test]
    fn a_removed_jail_takes_nothing_with_it() {
        let base = tempfile::tempdir().unwrap();
        let outside = base.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "").unwrap();
        let jail = Jail::new(base.path(), Path::new("/opt/firecracker"), OsStr::new("vm"));
        jail.make().unwrap();
        symlink(&outside, jail.place().join("link")).unwrap();
        remove(jail.home()).unwrap();
        remove(jail.home()).unwrap();
        assert!(outside.join("file").exists());
        assert!(!jail.place().exists());
    }

    #[test]
    fn a_process_number_is_only_a_number() {
        let base = tempfile::tempdir().unwrap();
        let root = root(base.path());
        let file = base.path().join("firecracker.pid");
        let recorded = || root.recorded_pid(Path::new("/opt/firecracker"));
        assert!(recorded().is_err());
        fs::write(&file, "4711").unwrap();
        assert_eq!(recorded().unwrap(), 4711);
        fs::write(&file, "not a number").unwrap();
        assert!(recorded().is_err());
        fs::remove_file(&file).unwrap();
        rustix::fs::mkfifoat(CWD, &file, Mode::from_raw_mode(0o600)).unwrap();
        assert!(recorded().is_err(), "a pipe that nobody writes to");
    }
}
