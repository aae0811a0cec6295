//! The VM's own disk: mounting it, what the last start has left on it, and room for the next one.

use std::fs;
use std::os::fd::OwnedFd;

use rustix::fs::{Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::mount::MountFlags;

use rds_protocol::limits::USER_ID;

use super::fork::give_up_protection;
use super::root::Root;
use super::trash;
use crate::boot::{mount_at, wait_for};
use crate::error::{SystemError, While};

/// Where it is mounted.
pub(crate) const DISK: &str = "/disk";

const FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOATIME);

/// Its directories.
pub(crate) const HOME: &str = "home";
pub(super) const TEMPORARY: [(&str, &str); 2] = [("tmp", "tmp"), ("vartmp", "var/tmp")];
const TRASH: &str = "/disk/trash";

/// Directories that do nothing but take inodes, and how many: those that a start needs on a disk whose user has taken all
/// others. The filesystem keeps blocks for root, but no inodes.
const RESERVE: &str = "reserve";
const RESERVE_INODES: u64 = 16;

/// What was in the disk's temporary directories at the last start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leftovers {
    /// Nothing.
    None,
    /// Something that [`empty_trash`] removes.
    Trash,
}

/// Removes what was in the temporary directories at the last start, in a copy of the agent. Takes as long as there is much
/// of it.
pub(crate) fn empty_trash() -> i32 {
    let removed = give_up_protection().and_then(|()| trash::empty(TRASH, || false));
    i32::from(!removed.is_ok_and(|all| all))
}

/// Mounts it, and has it ready for a start: `start` is a name that no other start of the VM has.
pub(super) fn mount(start: &str) -> Result<Leftovers, SystemError> {
    wait_for("/dev/vdb")?;
    // Until programs can write there is nothing that a flush could save, and one takes as long as the host's disk is busy.
    mount_at("/dev/vdb", "ext4", DISK, FLAGS, Some(c"nobarrier"))?;
    if is_short()? {
        release_reserve();
    }
    let disk = Root::open(DISK)?;
    for name in ["upper", "work", "trash"] {
        disk.directory(name)?;
    }
    let home = disk.directory(HOME)?;
    if rustix::fs::fstat(&home).while_("look at the home directory")?.st_uid != USER_ID {
        own(&home, "the home directory")?;
    }
    let mut leftovers = if is_empty(TRASH) { Leftovers::None } else { Leftovers::Trash };
    // Every start has trees of its own.
    let mut renewed = TEMPORARY.map(|(name, _)| name).to_vec();
    renewed.push("trees");
    renewed.retain(|name| !is_empty(&format!("{DISK}/{name}")));
    for name in &renewed {
        // Moving is instant, whatever is in it.
        match rustix::fs::rename(format!("{DISK}/{name}"), format!("{TRASH}/{start}-{name}")) {
            Ok(()) => leftovers = Leftovers::Trash,
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error).while_(format!("empty {name}")),
        }
    }
    if is_short()? {
        let _ = trash::empty(TRASH, || is_short().is_ok_and(|short| !short));
    }
    for name in renewed {
        let made = disk.directory(name)?;
        if name != "trees" {
            rustix::fs::fchmod(&made, Mode::from_raw_mode(0o1777)).while_(format!("open up {name}"))?;
        }
    }
    Ok(leftovers)
}

/// Takes again what a start may have needed, before a program can.
pub(super) fn renew_reserve() -> Result<(), SystemError> {
    let count = fs::read_dir(format!("{DISK}/{RESERVE}")).map_or(0, Iterator::count);
    if count as u64 == RESERVE_INODES {
        return Ok(());
    }
    let disk = Root::open(DISK)?;
    let renew = || reserved().all(|name| disk.directory(&name).is_ok());
    if !renew() {
        // What was moved there is more than what the start has made.
        let _ = trash::empty(TRASH, renew);
    }
    Ok(())
}

/// From here on what a program syncs is on the host's disk.
pub(super) fn flush_from_now_on() -> Result<(), SystemError> {
    rustix::mount::mount_remount(DISK, FLAGS, c"barrier").while_("have the disk flushed")
}

/// Gives a directory to the user.
pub(super) fn own(directory: &OwnedFd, what: &str) -> Result<(), SystemError> {
    let (user, group) = (Uid::from_raw(USER_ID), Gid::from_raw(USER_ID));
    rustix::fs::fchown(directory, Some(user), Some(group)).while_(format!("give the user {what}"))
}

/// Whether there may be fewer inodes than a start takes.
fn is_short() -> Result<bool, SystemError> {
    Ok(rustix::fs::statvfs(DISK).while_("see how full the disk is")?.f_favail < RESERVE_INODES)
}

fn release_reserve() {
    for name in reserved() {
        let _ = rustix::fs::rmdir(format!("{DISK}/{name}"));
    }
}

fn reserved() -> impl Iterator<Item = String> {
    (0..RESERVE_INODES).map(|number| format!("{RESERVE}/{number}"))
}

/// Whether there is a directory with nothing in it.
fn is_empty(path: &str) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}
