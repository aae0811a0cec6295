//! Starting a copy of the agent.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::process::Pid;

/// linux/sched.h. The libc crate's constant is an `int`, in which the flag is lost.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Runs `child` in a copy of the agent, which ends with the status it returns. The copy starts in `cgroup`.
///
/// The agent has one thread, so the copy finds no lock held and may do anything, allocating included. It shares the
/// agent's open files until it closes them or runs another program.
pub(crate) fn fork(cgroup: Option<BorrowedFd<'_>>, child: impl FnOnce() -> i32) -> io::Result<Pid> {
    // SAFETY: all fields are integers; zero means absent.
    let mut how: libc::clone_args = unsafe { std::mem::zeroed() };
    how.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        how.flags = CLONE_INTO_CGROUP;
        how.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM the child has its own copy of memory and stack, as after fork(2). `how` outlives the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const how, size_of::<libc::clone_args>()) };
    match pid {
        0 => {
            let status = child();
            // SAFETY: ends the process without running destructors of what belongs to the agent.
            unsafe { libc::_exit(status) }
        }
        pid => i32::try_from(pid).ok().and_then(Pid::from_raw).filter(|_| pid > 0).ok_or_else(io::Error::last_os_error),
    }
}
