//! Control groups: one for everything that is run for a client, and in it one for each program with its descendants.
//!
//! Owns the limits that keep the agent answering whatever a program does.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::boot::CGROUPS;
use crate::error::{SystemError, While};

/// Part of the memory that is free at boot which is kept from programs: for what the kernel charges to nobody while they
/// run, and for the agent. Without it the whole machine runs out of memory before the sandbox does, and every page of
/// every program is fought for until something is killed.
const RESERVE_PART: u64 = 12;

/// The least that is kept.
const RESERVE_BYTES: u64 = 8 * 1024 * 1024;

/// Most processes and threads in the sandbox, however much memory there is.
pub(crate) const MAX_PIDS: u64 = 4096;

/// Memory for each process: a process without work has 60 KiB of page tables, stack and bookkeeping in the kernel.
const BYTES_PER_PID: u64 = 160 * 1024;

/// The group of everything in the sandbox.
pub(crate) struct Cgroups {
    parent: PathBuf,
    /// Processes and threads of one program.
    pids_each: u64,
    next: Cell<u64>,
    /// Made ahead, so that making one costs a program's start nothing.
    spare: RefCell<Option<Cgroup>>,
    /// Groups whose main program has ended while something it started lives on.
    lingering: RefCell<Vec<PathBuf>>,
}

/// The group of one program and its descendants.
pub(crate) struct Cgroup {
    path: PathBuf,
    directory: OwnedFd,
}

impl Cgroups {
    /// Makes the sandbox's group and sets its limits.
    pub(crate) fn new() -> Result<Self, SystemError> {
        let root = Path::new(CGROUPS);
        let parent = root.join("sandbox");
        enable(root)?;
        fs::create_dir(&parent).while_("make the sandbox's cgroup")?;
        let memory = rustix::system::sysinfo();
        let free = (memory.freeram + memory.bufferram) * u64::from(memory.mem_unit);
        set(&parent, "memory.max", free.saturating_sub(RESERVE_BYTES.max(free / RESERVE_PART)))?;
        let pids = MAX_PIDS.min(free / BYTES_PER_PID);
        set(&parent, "pids.max", pids)?;
        enable(&parent)?;
        let made = Self {
            parent,
            // One that forks without end leaves room to start others.
            pids_each: pids / 2,
            next: Cell::new(0),
            spare: RefCell::default(),
            lingering: RefCell::default(),
        };
        made.prepare();
        Ok(made)
    }

    /// A fresh group.
    pub(crate) fn take(&self) -> Result<Cgroup, SystemError> {
        match self.spare.take() {
            Some(group) => Ok(group),
            None => self.make(),
        }
    }

    /// Gives a group back whose main program has ended or was never started. It is removed once it is empty. Also makes the
    /// next one ahead.
    pub(crate) fn give_back(&self, group: Cgroup) {
        self.lingering.borrow_mut().push(group.path);
        self.lingering.borrow_mut().retain(|path| fs::remove_dir(path).is_err());
        self.prepare();
    }

    /// Holds every process in the sandbox still, or lets all of them go on. The kernel tells when all are, see
    /// [`Self::stand_still`].
    pub(crate) fn hold(&self, hold: bool) -> Result<(), SystemError> {
        set(&self.parent, "cgroup.freeze", hold.into())
    }

    /// Whether every process in the sandbox is held still.
    pub(crate) fn stand_still(&self) -> Result<bool, SystemError> {
        let events =
            fs::read_to_string(self.parent.join("cgroup.events")).while_("read the sandbox's cgroup.events")?;
        Ok(events.lines().any(|line| line == "frozen 1"))
    }

    fn prepare(&self) {
        if self.spare.borrow().is_none() {
            // A failure shows when a group is really needed.
            self.spare.replace(self.make().ok());
        }
    }

    fn make(&self) -> Result<Cgroup, SystemError> {
        let number = self.next.replace(self.next.get() + 1);
        let path = self.parent.join(format!("exec-{number}"));
        fs::create_dir(&path).while_("make a program's cgroup")?;
        let directory = self.set_up(&path).inspect_err(|_| {
            let _ = fs::remove_dir(&path);
        })?;
        Ok(Cgroup { path, directory })
    }

    fn set_up(&self, path: &Path) -> Result<OwnedFd, SystemError> {
        set(path, "pids.max", self.pids_each)?;
        // Half of a program that ran out of memory is worse than none of it.
        set(path, "memory.oom.group", 1)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).while_("open a program's cgroup")
    }
}

impl Cgroup {
    /// The group's directory, to start a process in it.
    pub(crate) fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// Kills every process in the group at once, whatever session or process group it is in.
    pub(crate) fn kill(&self) -> io::Result<()> {
        fs::write(self.path.join("cgroup.kill"), "1")
    }
}

fn set(group: &Path, name: &str, value: u64) -> Result<(), SystemError> {
    fs::write(group.join(name), value.to_string()).while_(format!("set {name}"))
}

/// Lets the groups below this one be limited.
fn enable(group: &Path) -> Result<(), SystemError> {
    fs::write(group.join("cgroup.subtree_control"), "+memory +pids +cpu").while_("enable cgroup controllers")
}
