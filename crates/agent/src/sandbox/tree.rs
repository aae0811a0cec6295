//! The sandbox's filesystem: the image's root filesystem under the VM's own disk, and what belongs on top.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Gid, Mode, OFlags, Uid, makedev, mknodat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_bind};

use rds_protocol::limits::USER_ID;

use super::root::{Root, path_of};
use crate::boot::{IMAGE, mount_at, wait_for};
use crate::error::{SystemError, While};

/// Where the tree is built.
pub(super) const ROOT: &str = "/sandbox";

/// Where the VM's own disk is mounted.
pub(crate) const DISK: &str = "/disk";

/// Deno's cache, in the sandbox: on the disk, so that it lasts, and not in the user's home, so that it is in no archive.
pub(crate) const DENO_CACHE: &str = "var/cache/deno";

/// Where the preludes and the files for results are, in the sandbox.
pub(crate) const RUNTIME: &str = "run/rds";

const DISK_FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOATIME);

/// Directories of the disk.
pub(crate) const HOME: &str = "home";
const TEMPORARY: [(&str, &str); 2] = [("tmp", "tmp"), ("vartmp", "var/tmp")];
const TRASH: &str = "/disk/trash";

/// Directories in the agent's namespace for what it puts into the user's files: on the disk, and in memory, from where it
/// gets into no snapshot of the disk.
pub(crate) const TREES: &str = "/disk/trees";
pub(crate) const MEMORY: &str = "/memory";

/// What the agent keeps open of the sandbox's filesystem. It works relative to these and never by a path.
pub(crate) struct Tree {
    /// The VM's disk.
    pub(crate) disk: OwnedFd,
    /// `/workspace`.
    pub(crate) workspace: OwnedFd,
    /// `/dev/pts`.
    pub(crate) terminals: OwnedFd,
    /// Where programs leave their results, root's.
    pub(crate) results: OwnedFd,
    /// Whether the image has `bash`.
    pub(crate) has_bash: bool,
}

/// Mounts the disk and builds the tree. Returns it and says when the disk and the overlay were in place.
pub(crate) fn build(hostname: &str, machine_id: &str, mounted: impl FnOnce()) -> Result<Tree, SystemError> {
    mount_disk(machine_id)?;
    mount_overlay()?;
    mounted();
    let root = Root::open(ROOT)?;
    for (source, target) in TEMPORARY {
        bind(&root, source, target)?;
    }
    bind(&root, HOME, "workspace")?;
    bind(&root, HOME, "home/user")?;
    let terminals = make_devices(&root)?;
    let results = make_runtime(&root)?;
    own(&root.directory(DENO_CACHE)?, "Deno's cache")?;
    for kernel in ["proc", "sys"] {
        root.directory(kernel)?;
    }
    write_identity(&root, hostname, machine_id)?;
    flush_from_now_on()?;
    Ok(Tree {
        disk: rustix::fs::open(DISK, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).while_("open the disk")?,
        workspace: root.directory("workspace")?,
        terminals,
        results,
        has_bash: root.has("bin/bash"),
    })
}

/// Removes what was in the temporary directories at the last start. Takes as long as there is much of it.
pub(crate) fn empty_trash() -> i32 {
    i32::from(std::fs::remove_dir_all(TRASH).is_err())
}

fn mount_disk(machine_id: &str) -> Result<(), SystemError> {
    wait_for("/dev/vdb")?;
    // Until programs can write there is nothing that a flush could save, and one takes as long as the host's disk is busy.
    mount_at("/dev/vdb", "ext4", DISK, DISK_FLAGS, Some(c"nobarrier"))?;
    let disk = Root::open(DISK)?;
    for name in ["upper", "work", "trash"] {
        disk.directory(name)?;
    }
    own(&disk.directory(HOME)?, "the home directory")?;
    // Every start has trees of its own.
    for name in TEMPORARY.map(|(name, _)| name).into_iter().chain(["trees"]) {
        // Moving is instant, whatever is in it. The machine id is new for every start.
        let trash = format!("{TRASH}/{machine_id}-{name}");
        match rustix::fs::rename(format!("{DISK}/{name}"), trash) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error).while_(format!("empty {name}")),
        }
        let made = disk.directory(name)?;
        if name != "trees" {
            rustix::fs::fchmod(&made, Mode::from_raw_mode(0o1777)).while_(format!("open up {name}"))?;
        }
    }
    mount_at("tmpfs", "tmpfs", MEMORY, MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=755,size=16m"))
}

/// From here on what a program syncs is on the host's disk.
fn flush_from_now_on() -> Result<(), SystemError> {
    rustix::mount::mount_remount(DISK, DISK_FLAGS, c"barrier").while_("have the disk flushed")
}

fn mount_overlay() -> Result<(), SystemError> {
    let options = format!("lowerdir={IMAGE},upperdir={DISK}/upper,workdir={DISK}/work");
    let options = CString::new(options).expect("the options are constants without NUL");
    mount_at("overlay", "overlay", ROOT, MountFlags::NOSUID | MountFlags::NODEV, Some(&options))
}

fn bind(root: &Root, source: &str, target: &str) -> Result<(), SystemError> {
    let target = root.directory(target)?;
    mount_bind(format!("{DISK}/{source}"), path_of(&target)).while_(format!("bind {source}"))
}

fn own(directory: &OwnedFd, what: &str) -> Result<(), SystemError> {
    let (user, group) = (Uid::from_raw(USER_ID), Gid::from_raw(USER_ID));
    rustix::fs::fchown(directory, Some(user), Some(group)).while_(format!("give the user {what}"))
}

fn mount_memory(root: &Root, target: &str, options: &std::ffi::CStr) -> Result<OwnedFd, SystemError> {
    let flags = if target == "dev" { MountFlags::NOEXEC } else { MountFlags::NODEV };
    let below = root.directory(target)?;
    mount("tmpfs", path_of(&below), "tmpfs", flags | MountFlags::NOSUID, options).while_(format!("mount {target}"))?;
    root.directory(target)
}

/// Devices that every program expects, and none that leads to hardware, the channel or the kernel's log.
fn make_devices(root: &Root) -> Result<OwnedFd, SystemError> {
    let dev = mount_memory(root, "dev", c"mode=755,size=64k,nr_inodes=64")?;
    for (name, major, minor) in
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)]
    {
        let mode = Mode::from_raw_mode(0o666);
        mknodat(&dev, name, FileType::CharacterDevice, mode, makedev(major, minor))
            .while_(format!("make /dev/{name}"))?;
        // mknod is subject to the umask.
        rustix::fs::chmodat(&dev, name, mode, rustix::fs::AtFlags::empty()).while_(format!("open up /dev/{name}"))?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlinkat(target, &dev, name).while_(format!("link /dev/{name}"))?;
    }
    mount_memory(root, "dev/shm", c"mode=1777")?;
    let pts = root.directory("dev/pts")?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    let options = c"newinstance,ptmxmode=0666,mode=0620,gid=5";
    mount("devpts", path_of(&pts), "devpts", flags, options).while_("mount /dev/pts")?;
    root.directory("dev/pts")
}

/// `/run`, with what the runtimes load before a program.
fn make_runtime(root: &Root) -> Result<OwnedFd, SystemError> {
    mount_memory(root, "run", c"mode=755,size=10%")?;
    for (name, text) in crate::runtime::FILES {
        root.replace(&format!("{RUNTIME}/{name}"), text, 0o444)?;
    }
    root.directory(&format!("{RUNTIME}/results"))
}

fn write_identity(root: &Root, hostname: &str, machine_id: &str) -> Result<(), SystemError> {
    root.replace("etc/hostname", &format!("{hostname}\n"), 0o644)?;
    root.replace("etc/machine-id", &format!("{machine_id}\n"), 0o444)?;
    let hosts = format!("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 {hostname}\n");
    root.replace("etc/hosts", &hosts, 0o644)?;
    // Whatever the image brought belongs to the network it was built in.
    root.replace("etc/resolv.conf", "", 0o644)?;
    let shell = if root.has("bin/bash") { "/bin/bash" } else { "/bin/sh" };
    add_first(root, "etc/passwd", &format!("user:x:{USER_ID}:{USER_ID}:user:/home/user:{shell}\n"))?;
    add_first(root, "etc/group", &format!("user:x:{USER_ID}:\n"))
}

/// Adds an account where its name is missing; first, because the first of several with one number is its name.
fn add_first(root: &Root, path: &str, line: &str) -> Result<(), SystemError> {
    let text = root.read(path)?;
    if text.lines().any(|line| line.starts_with("user:")) {
        return Ok(());
    }
    root.replace(path, &format!("{line}{text}"), 0o644)
}
