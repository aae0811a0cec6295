//! Starting the jailer, which becomes or starts Firecracker.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rds_seccomp::Filter;
use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, mount_bind, mount_change, mount_remount, move_mount,
};
use rustix::process::Resource;
use rustix::thread::{UnshareFlags, set_no_new_privs, set_thread_gid, set_thread_uid};

use super::files;
use super::jail::{Mount, Root};
use crate::hypervisor::Log;
use crate::process::{self, Child, limit, set_apart};
use crate::seccomp;
use crate::{HypervisorError, privileges};

/// What a jailer does before it is one.
#[derive(Debug)]
pub(super) struct Role<'a> {
    /// What the monitor is to have as its root, and over which directory.
    pub(super) root: &'a Root,
    pub(super) place: CString,
    pub(super) mounts: Vec<Mount>,
    /// Processes and threads that the monitor's user may have.
    pub(super) threads: u64,
    /// Whether the machine yields the processors to all others.
    pub(super) background: bool,
}

/// Starts `jailer` for the machine in `dir`. It ends as soon as Firecracker is started.
pub(super) fn start(
    jailer: &Path,
    arguments: &[String],
    dir: &Path,
    role: &Role<'_>,
) -> Result<Child, HypervisorError> {
    let logs = [open_log(&files::log(dir, Log::Serial))?, open_log(&files::log(dir, Log::Stderr))?];
    let filter = seccomp::filter();
    let started = process::spawn(jailer, arguments, logs, || prepare(role, &filter));
    started.map_err(|source| HypervisorError::Spawn { program: jailer.into(), source })
}

/// What a process does to itself before it becomes the jailer. Still with the manager's rights: it sets up what the
/// jailer does not. Makes system calls alone.
fn prepare(role: &Role<'_>, filter: &Filter) -> io::Result<()> {
    set_apart(role.background)?;
    limit(Resource::Nproc, role.threads)?;
    // Capabilities go when root becomes another user. They would stay with who never was root.
    set_thread_gid(rustix::process::Gid::ROOT)?;
    set_thread_uid(rustix::process::Uid::ROOT)?;
    // SAFETY: a new mount namespace takes nothing from a process with one thread and no borrowed file descriptors.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    mount_change(c"/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    move_mount(role.root, c"", CWD, role.place.as_c_str(), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    for mount in &role.mounts {
        mount_bind(mount.source.as_c_str(), mount.target.as_c_str())?;
        let harmless = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let flags = if mount.writable { harmless } else { harmless | MountFlags::RDONLY };
        mount_remount(mount.target.as_c_str(), flags, c"")?;
    }
    // A server that is not root has its own by inheritance, and to become the monitor's user would not take that away.
    privileges::bequeath_none()?;
    set_no_new_privs(true)?;
    filter.install()
}

/// A log that is only ever appended to, readable by nobody else.
pub(super) fn open_log(path: &Path) -> Result<File, HypervisorError> {
    let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    opened.map_err(HypervisorError::io(path.display().to_string()))
}
