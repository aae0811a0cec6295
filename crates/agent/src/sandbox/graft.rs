//! Putting directories of the agent's into the user's files, read-only: what the user has made there is covered, and no
//! link of the user's is followed.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::Sandbox;

/// The user's files, under both their names.
const VIEWS: [&str; 2] = ["/workspace", "/home/user"];

/// linux/mount.h.
const MOUNT_ATTR_RDONLY: u64 = 0x1;
const MOUNT_ATTR_NOSUID: u64 = 0x2;
const MOUNT_ATTR_NODEV: u64 = 0x4;

/// `struct mount_attr`, linux/mount.h.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

impl Sandbox {
    /// What a copy of the agent has to keep open for [`Sandbox::graft`].
    pub(crate) fn entrance(&self) -> RawFd {
        self.init.as_raw_fd()
    }

    /// Puts each directory, by its path in the agent's namespace, in the place of a name in the user's files. A reader
    /// sees the old one or the new one.
    ///
    /// For a copy of the agent: it is in the sandbox's mount namespace afterwards.
    pub(crate) fn graft(&self, directories: &[(&str, &str)]) -> io::Result<()> {
        let mut grafts = Vec::new();
        for view in VIEWS {
            for (source, name) in directories {
                grafts.push((view, *name, detached(source)?));
            }
        }
        move_into_thread_name_spaces(self.init.as_fd(), ThreadNameSpaceType::MOUNT)?;
        grafts.iter().try_for_each(|(view, name, tree)| attach(view, name, tree))
    }
}

/// Puts one directory in the place of a name in a view that is in the caller's own mount namespace.
pub(super) fn attach_one(view: &str, name: &str, source: &str) -> io::Result<()> {
    attach(view, name, &detached(source)?)
}

/// A mount of a directory that is nowhere yet.
fn detached(source: &str) -> io::Result<OwnedFd> {
    let tree = open_tree(CWD, source, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    let set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
    let attributes = MountAttributes { set, clear: 0, propagation: 0, user_namespace: 0 };
    let (size, empty) = (size_of::<MountAttributes>(), libc::AT_EMPTY_PATH);
    // SAFETY: the path and the attributes outlive the call, and the size is theirs.
    let outcome = unsafe {
        libc::syscall(libc::SYS_mount_setattr, tree.as_raw_fd(), c"".as_ptr(), empty, &raw const attributes, size)
    };
    if outcome == 0 { Ok(tree) } else { Err(io::Error::last_os_error()) }
}

fn attach(view: &str, name: &str, tree: &OwnedFd) -> io::Result<()> {
    let place = place(view, name)?;
    let occupied = rustix::fs::statx(&place, c"", AtFlags::EMPTY_PATH, StatxFlags::empty())?
        .stx_attributes
        .contains(StatxAttributes::MOUNT_ROOT);
    let mut flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    // What is put beneath the mount that is there comes to light when that one goes.
    flags.set(MoveMountFlags::MOVE_MOUNT_BENEATH, occupied);
    move_mount(tree, "", &place, "", flags)?;
    if occupied {
        // A directory that something is mounted on can't be renamed away.
        let path = CString::new(format!("{view}/{name}")).map_err(io::Error::other)?;
        unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    }
    Ok(())
}

/// The directory to mount on, made if needed. Anything else of that name is removed.
fn place(view: &str, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let files = rustix::fs::open(view, flags, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let open = || openat2(&files, name, flags | OFlags::NOFOLLOW, Mode::empty(), resolve);
    match open() {
        Ok(place) => return Ok(place),
        Err(Errno::NOENT) => {}
        Err(_) => rustix::fs::unlinkat(&files, name, AtFlags::empty())?,
    }
    rustix::fs::mkdirat(&files, name, Mode::from_raw_mode(0o755))?;
    Ok(open()?)
}
