//! How a copy of the agent becomes a program's process: the steps from root in the agent's namespaces to uid 1000 in the
//! sandbox, in the order in which each is still allowed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Gid, Mode, Uid};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{
    ThreadNameSpaceType, move_into_thread_name_spaces, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use rds_protocol::limits::USER_ID;

use super::fork::give_up_protection;
use super::seccomp;
use crate::cgroup::MAX_PIDS;

/// Open files of one process: enough for a server, and bounded by the sandbox's memory long before.
const MAX_FILES: u64 = 131_072;

/// Enters the sandbox's namespaces, in a session of its own. Still root, still able to undo the next step only.
pub(super) fn enter(init: &OwnedFd) -> io::Result<()> {
    rustix::process::setsid()?;
    let spaces = ThreadNameSpaceType::MOUNT | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION;
    move_into_thread_name_spaces(init.as_fd(), spaces)?;
    // The filesystem is the sandbox's by now, and so is /proc.
    give_up_protection()
}

/// Becomes the user, for good.
pub(super) fn become_user() -> io::Result<()> {
    for (resource, limit) in [(Resource::Nofile, MAX_FILES), (Resource::Nproc, MAX_PIDS), (Resource::Core, 0)] {
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    let (user, group) = (Uid::from_raw(USER_ID), Gid::from_raw(USER_ID));
    // The process has one thread, so all of it changes. With the user id, every capability is lost (capabilities(7)); the
    // bounding set has been empty since boot.
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)?;
    set_no_new_privs(true)?;
    seccomp::filter().install()?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    reset_signals()
}

/// Gives the signals their default meaning: Rust ignores SIGPIPE, and ignoring is inherited.
fn reset_signals() -> io::Result<()> {
    // SAFETY: sets a default action and an empty mask, both by value.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()))
    }
}

/// Lets no file but the standard streams into the next program.
pub(super) fn close_the_rest() -> io::Result<()> {
    // SAFETY: only marks descriptors.
    check(unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) })
}

fn check(outcome: libc::c_int) -> io::Result<()> {
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
