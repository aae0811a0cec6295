//! The sandbox's filesystem: the image's root filesystem under the VM's own disk, and what belongs on top.
//!
//! It comes to be in two steps. [`Prepared`] is all that needs neither the VM's disk nor its name: it is part of the seeds
//! that VMs start from, so a start pays only for what [`Prepared::build`] adds.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use rustix::fs::{FileType, Mode, OFlags, makedev, mknodat, symlinkat};
use rustix::mount::{MountFlags, mount, mount_bind, mount_bind_recursive, mount_move};

use rds_protocol::guest::Configure;
use rds_protocol::limits::USER_ID;
use rds_protocol::peer::NO_PEERS;

use super::disk::{self, DISK, HOME, Leftovers, TEMPORARY, own};
use super::graft;
use super::root::{Root, path_of};
use crate::boot::{IMAGE, mount_at};
use crate::error::{SystemError, While};

/// Where the tree is built.
pub(super) const ROOT: &str = "/sandbox";

/// A filesystem in memory, laid between the image and the disk: the directories that every sandbox has, and the files that
/// say who the VM is. On the disk they would be in its snapshots, and cost every start some writes.
pub(super) const SKELETON: &str = "/skeleton";

/// Filesystems in memory that are moved to the place of the same name in the sandbox.
pub(super) const READY: &str = "/ready";

/// Deno's cache, in the sandbox: on the disk, so that it lasts, and not in the user's home, so that it is in no archive.
pub(crate) const DENO_CACHE: &str = "var/cache/deno";

/// Where the preludes and the files for results are, in the sandbox.
pub(crate) const RUNTIME: &str = "run/rds";

/// What the kernel would else try, find impossible with a layer in memory, and complain about.
const OVERLAY_OPTIONS: &str = "index=off,xino=off,nfs_export=off";

/// Directories in the agent's namespace for what it puts into the user's files: on the disk, and in memory, from where it
/// gets into no snapshot of the disk.
pub(crate) const TREES: &str = "/disk/trees";
pub(crate) const MEMORY: &str = "/memory";

/// What a VM without peers finds in its files: where it is prepared, and its name there.
const WITHOUT_PEERS: [(&str, &str); 2] = [("/memory/none/peers", "peers"), ("/memory/none/rds", ".rds")];

/// What the agent keeps open of the sandbox's filesystem. It works relative to these and never by a path.
pub(crate) struct Tree {
    /// The files that say who the VM is.
    pub(crate) identity: Rc<Identity>,
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

/// The part of the tree that is the same for all VMs of an image.
pub(crate) struct Prepared {
    pub(crate) identity: Rc<Identity>,
    terminals: OwnedFd,
    results: OwnedFd,
    has_bash: bool,
}

/// The files that say who the VM is, empty as long as nobody knows. They lie below the overlay: the sandbox sees what is
/// written into them at any time, since nobody in it could have made copies of its own on the disk.
pub(crate) struct Identity {
    hostname: File,
    machine_id: File,
    hosts: File,
    resolver: File,
}

impl Identity {
    /// Says who the VM is, and whom it asks for names.
    pub(crate) fn write(&self, order: &Configure) -> Result<(), SystemError> {
        let Configure { hostname, machine_id, network, .. } = order;
        let resolver = network.as_ref().map(|network| format!("nameserver {}\n", network.resolver));
        let local = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1";
        for (file, text) in [
            (&self.hostname, format!("{hostname}\n")),
            (&self.machine_id, format!("{machine_id}\n")),
            (&self.hosts, format!("{local} {hostname}\n")),
            (&self.resolver, resolver.unwrap_or_default()),
        ] {
            let written = file.set_len(0).and_then(|()| file.write_all_at(text.as_bytes(), 0));
            written.while_("write who the VM is")?;
        }
        Ok(())
    }
}

impl Prepared {
    /// Makes it, on top of the image that is mounted.
    pub(crate) fn new() -> Result<Self, SystemError> {
        let image = Root::open(IMAGE)?;
        mount_at("tmpfs", "tmpfs", SKELETON, MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=755,size=4m"))?;
        let skeleton = Root::open(SKELETON)?;
        fs::create_dir_all(ROOT).while_("make the place of the tree")?;
        for directory in ["workspace", "home/user", "tmp", "var/tmp", "dev", "run", "proc", "sys", "etc"] {
            skeleton.directory(directory)?;
        }
        own(&skeleton.directory(DENO_CACHE)?, "Deno's cache")?;
        let has_bash = image.has("bin/bash");
        write_accounts(&image, &skeleton, has_bash)?;
        mount_at("tmpfs", "tmpfs", READY, MountFlags::NOSUID, Some(c"mode=700,size=64k"))?;
        let identity = Identity {
            hostname: skeleton.create("etc/hostname", 0o644)?,
            machine_id: skeleton.create("etc/machine-id", 0o444)?,
            hosts: skeleton.create("etc/hosts", 0o644)?,
            // Whatever the image brought belongs to the network it was built in.
            resolver: skeleton.create("etc/resolv.conf", 0o644)?,
        };
        let ready = Root::open(READY)?;
        let terminals = make_devices(&ready)?;
        let results = make_runtime(&ready)?;
        mount_at("tmpfs", "tmpfs", MEMORY, MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=755,size=16m"))?;
        let memory = Root::open(MEMORY)?;
        memory.directory("none/rds")?;
        memory.replace("none/peers/index.json", NO_PEERS, 0o644)?;
        Ok(Self { identity: Rc::new(identity), terminals, results, has_bash })
    }

    /// What it has open.
    pub(super) fn descriptors(&self) -> [RawFd; 6] {
        let Identity { hostname, machine_id, hosts, resolver } = &*self.identity;
        let files: [&dyn AsRawFd; 6] = [hostname, machine_id, hosts, resolver, &self.terminals, &self.results];
        files.map(|file| file.as_raw_fd())
    }

    /// Mounts the disk and builds the tree. `start` is a name that no other start of the VM has.
    pub(crate) fn build(&self, start: &str) -> Result<(Tree, Leftovers), SystemError> {
        let leftovers = disk::mount(start)?;
        mount_overlay()?;
        disk::renew_reserve()?;
        let root = Root::open(ROOT)?;
        for (source, target) in TEMPORARY {
            let target = root.directory(target)?;
            mount_bind(format!("{DISK}/{source}"), path_of(&target)).while_(format!("bind {source}"))?;
        }
        for ready in ["dev", "run"] {
            mount_move(format!("{READY}/{ready}"), path_of(&root.directory(ready)?)).while_(format!("move {ready}"))?;
        }
        mount_bind(format!("{DISK}/{HOME}"), path_of(&root.directory("workspace")?)).while_("bind the workspace")?;
        let workspace = root.directory("workspace")?;
        for (source, name) in WITHOUT_PEERS {
            graft::attach_one(&path_of(&workspace), name, source).while_(format!("put {name} in place"))?;
        }
        let home = root.directory("home/user")?;
        mount_bind_recursive(path_of(&workspace), path_of(&home)).while_("bind the home directory")?;
        disk::flush_from_now_on()?;
        let disk = rustix::fs::open(DISK, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).while_("open the disk")?;
        let again = |directory: &OwnedFd| directory.try_clone().while_("keep a directory");
        let (terminals, results) = (again(&self.terminals)?, again(&self.results)?);
        let identity = Rc::clone(&self.identity);
        Ok((Tree { identity, disk, workspace, terminals, results, has_bash: self.has_bash }, leftovers))
    }
}

fn mount_overlay() -> Result<(), SystemError> {
    let options = format!("lowerdir={SKELETON}:{IMAGE},upperdir={DISK}/upper,workdir={DISK}/work,{OVERLAY_OPTIONS}");
    let options = CString::new(options).expect("the options are constants without NUL");
    mount_at("overlay", "overlay", ROOT, MountFlags::NOSUID | MountFlags::NODEV, Some(&options))
}

fn mount_memory(ready: &Root, target: &str, options: &std::ffi::CStr) -> Result<OwnedFd, SystemError> {
    let flags = if target == "dev" { MountFlags::NOEXEC } else { MountFlags::NODEV };
    let below = ready.directory(target)?;
    mount("tmpfs", path_of(&below), "tmpfs", flags | MountFlags::NOSUID, options).while_(format!("mount {target}"))?;
    ready.directory(target)
}

/// Devices that every program expects, and none that leads to hardware, the channel or the kernel's log.
fn make_devices(ready: &Root) -> Result<OwnedFd, SystemError> {
    let dev = mount_memory(ready, "dev", c"mode=755,size=64k,nr_inodes=64")?;
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
    mount_memory(ready, "dev/shm", c"mode=1777")?;
    let pts = ready.directory("dev/pts")?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    let options = c"newinstance,ptmxmode=0666,mode=0620,gid=5";
    mount("devpts", path_of(&pts), "devpts", flags, options).while_("mount /dev/pts")?;
    ready.directory("dev/pts")
}

/// `/run`, with what the runtimes load before a program.
fn make_runtime(ready: &Root) -> Result<OwnedFd, SystemError> {
    mount_memory(ready, "run", c"mode=755,size=10%")?;
    for (name, text) in crate::runtime::FILES {
        ready.replace(&format!("{RUNTIME}/{name}"), text, 0o444)?;
    }
    ready.directory(&format!("{RUNTIME}/results"))
}

/// The image's accounts, and the user.
fn write_accounts(image: &Root, skeleton: &Root, has_bash: bool) -> Result<(), SystemError> {
    let shell = if has_bash { "/bin/bash" } else { "/bin/sh" };
    let passwd = format!("user:x:{USER_ID}:{USER_ID}:user:/home/user:{shell}\n");
    for (path, line) in [("etc/passwd", passwd), ("etc/group", format!("user:x:{USER_ID}:\n"))] {
        let text = image.read(path)?;
        if !text.lines().any(|line| line.starts_with("user:")) {
            // First, because the first of several with one number is its name.
            skeleton.replace(path, &format!("{line}{text}"), 0o644)?;
        }
    }
    Ok(())
}
