//! Starting a copy of the agent.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use rustix::process::Pid;

/// linux/sched.h. The libc crate's constants are each an `int`, in which these flags are lost.
const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// The lowest number that is not a standard stream's.
const FIRST: u32 = 3;

/// Runs `child` in a copy of the agent, which ends with the status it returns. The copy starts in `cgroup`.
///
/// The agent has one thread, so the copy finds no lock held and may do anything, allocating included. Of the agent's open
/// files it has the standard streams and those in `keep`, and must use no other: what the agent has open for somebody
/// else would else not end before the copy does. Nor has it the agent's signal handlers, which write to such files.
pub(crate) fn fork(cgroup: Option<BorrowedFd<'_>>, keep: &[RawFd], child: impl FnOnce() -> i32) -> io::Result<Pid> {
    let others = others(keep);
    // SAFETY: all fields are integers; zero means absent.
    let mut how: libc::clone_args = unsafe { std::mem::zeroed() };
    how.exit_signal = libc::SIGCHLD as u64;
    how.flags = CLONE_CLEAR_SIGHAND;
    if let Some(cgroup) = cgroup {
        how.flags |= CLONE_INTO_CGROUP;
        how.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM the child has its own copy of memory and stack, as after fork(2). `how` outlives the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const how, size_of::<libc::clone_args>()) };
    match pid {
        0 => {
            // SAFETY: closes numbers that nothing in this copy of the agent uses again.
            let closed = others.iter().all(|(first, last)| unsafe { libc::close_range(*first, *last, 0) } == 0);
            let status = if closed { child() } else { libc::EXIT_FAILURE };
            // SAFETY: ends the process without running destructors of what belongs to the agent.
            unsafe { libc::_exit(status) }
        }
        pid => i32::try_from(pid).ok().and_then(Pid::from_raw).filter(|_| pid > 0).ok_or_else(io::Error::last_os_error),
    }
}

/// For a copy of the agent: makes it a process like any other, which the kernel may kill for its memory.
pub(super) fn give_up_protection() -> io::Result<()> {
    std::fs::write("/proc/self/oom_score_adj", "0")?;
    Ok(rustix::process::setpriority_process(None, 0)?)
}

/// All numbers but the standard streams' and those to keep, as ranges: the first and the last of each.
fn others(keep: &[RawFd]) -> Vec<(u32, u32)> {
    let mut keep: Vec<_> = keep.iter().map(|number| number.unsigned_abs()).filter(|number| *number >= FIRST).collect();
    keep.sort_unstable();
    let starts = std::iter::once(FIRST).chain(keep.iter().map(|number| number + 1));
    let ends = keep.iter().map(|number| number - 1).chain([u32::MAX]);
    starts.zip(ends).filter(|(first, last)| first <= last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_others_are_all_but_those_to_keep() {
        assert_eq!(others(&[]), [(3, u32::MAX)]);
        assert_eq!(others(&[3]), [(4, u32::MAX)]);
        assert_eq!(others(&[9, 5, 6, 5]), [(3, 4), (7, 8), (10, u32::MAX)]);
        assert_eq!(others(&[0, 2, 4]), [(3, 3), (5, u32::MAX)]);
    }
}
