//! The place that programs are run in: a process id, mount and IPC namespace with an init of its own.
//!
//! It has two stages, each a type. [`Waiting`]: its init process exists and holds nothing; this is what a memory
//! snapshot captures. [`Sandbox`]: it has its filesystem, and programs can be launched in it.

pub(crate) mod disk;
mod fork;
mod graft;
mod init;
mod jail;
pub(crate) mod launch;
pub(crate) mod rehearsal;
mod root;
mod seccomp;
mod trash;
pub(crate) mod tree;

use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, UnmountFlags, open_tree};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, PidfdFlags};
use rustix::thread::{UnshareFlags, unshare_unsafe};

pub(crate) use fork::fork;

use crate::cgroup::Cgroups;
use crate::error::{SystemError, While};
use crate::reaper::Reaper;
use tree::Tree;

/// A sandbox whose init waits for its filesystem.
pub(crate) struct Waiting {
    init: Pid,
    order: UnixStream,
}

/// A sandbox that programs can be launched in.
pub(crate) struct Sandbox {
    /// Init's process, by which its namespaces are entered.
    init: OwnedFd,
    /// The agent's own executable, for what it runs as the user.
    agent: OwnedFd,
    /// What the agent keeps open of the sandbox's filesystem.
    pub(crate) tree: Tree,
}

impl Waiting {
    /// Makes the process id namespace and starts its init. From here on every child of the agent is born into it, and
    /// the agent can't have threads any more (unshare(2)).
    pub(crate) fn start() -> Result<Self, SystemError> {
        // SAFETY: only a namespace is unshared, no open files.
        unsafe { unshare_unsafe(UnshareFlags::NEWPID) }.while_("make a process id namespace")?;
        let (order, other) = UnixStream::pair().while_("make a socket pair")?;
        let init = fork(None, &[other.as_raw_fd()], || init::run(other.into())).while_("start the sandbox's init")?;
        Ok(Self { init, order })
    }

    /// Gives the sandbox its filesystem, which the agent itself can't reach by any path afterwards.
    pub(crate) fn enclose(mut self, tree: Tree) -> Result<Sandbox, SystemError> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        let mounts = open_tree(CWD, tree::ROOT, flags).while_("take the sandbox's filesystem")?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let mounts = [mounts.as_fd()];
        ancillary.push(SendAncillaryMessage::ScmRights(&mounts));
        sendmsg(&self.order, &[IoSlice::new(&[1])], &mut ancillary, SendFlags::empty())
            .while_("order the sandbox's init")?;
        let mut reply = [0; 4];
        self.order.read_exact(&mut reply).while_("hear from the sandbox's init")?;
        match i32::from_ne_bytes(reply) {
            0 => {}
            code => return Err(std::io::Error::from_raw_os_error(code)).while_("enclose the sandbox"),
        }
        rustix::mount::unmount(tree::ROOT, UnmountFlags::DETACH).while_("let go of the sandbox's filesystem")?;
        let init = rustix::process::pidfd_open(self.init, PidfdFlags::empty()).while_("open the sandbox's init")?;
        let agent = std::fs::File::open("/proc/self/exe").while_("open the agent's executable")?.into();
        Ok(Sandbox { init, agent, tree })
    }
}

/// What launching a program takes, apart from the sandbox itself.
pub(crate) struct Keepers {
    /// Waits for every child.
    pub(crate) reaper: Reaper,
    /// Limits every child.
    pub(crate) cgroups: Cgroups,
}
