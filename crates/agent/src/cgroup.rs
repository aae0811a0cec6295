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

/// Memory that is kept from programs: the kernel's own needs that are charged to nobody, and the agent.
const RESERVE_BYTES: u64 = 20 * 1024 * 1024;

/// Processes and threads in the sandbox.
pub(crate) const MAX_PIDS: u64 = 4096;

/// Processes and threads of one program, so that one that forks without end leaves room to start others.
const MAX_PIDS_EACH: u64 = 2048;

/// The group of everything in the sandbox.
pub(crate) struct Cgroups {
    parent: PathBuf,
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
        fs::write(root.join("cgroup.subtree_control"), "+memory +pids +cpu").while_("enable cgroup controllers")?;
        fs::create_dir(&parent).while_("make the sandbox's cgroup")?;
        let memory = rustix::system::sysinfo();
        let total = memory.totalram * u64::from(memory.mem_unit);
        set(&parent, "memory.max", total.saturating_sub(RESERVE_BYTES))?;
        set(&parent, "pids.max", MAX_PIDS)?;
        set(&parent, "cgroup.subtree_control", "+memory +pids +cpu")?;
        let made = Self { parent, next: Cell::new(0), spare: RefCell::default(), lingering: RefCell::default() };
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

    /// Gives a group back whose main program has ended. It is removed once it is empty. Also makes the next one ahead.
    pub(crate) fn give_back(&self, group: Cgroup) {
        self.lingering.borrow_mut().push(group.path);
        self.lingering.borrow_mut().retain(|path| fs::remove_dir(path).is_err());
        self.prepare();
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
        set(&path, "pids.max", MAX_PIDS_EACH)?;
        // Half of a program that ran out of memory is worse than none of it.
        set(&path, "memory.oom.group", 1)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&path, flags, Mode::empty()).while_("open a program's cgroup")?;
        Ok(Cgroup { path, directory })
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

fn set(group: &Path, name: &str, value: impl ToString) -> Result<(), SystemError> {
    fs::write(group.join(name), value.to_string()).while_(format!("set {name}"))
}
