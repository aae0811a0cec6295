//! The sandbox's init: it holds the namespaces open and reaps orphans. It has no file of the agent, no secret and
//! nothing to be talked into.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_move, unmount};
use rustix::process::WaitOptions;

use super::tree;

/// Waits for the order to enclose the sandbox, answers it with an error number or 0, then reaps for ever.
pub(super) fn run(order: OwnedFd) -> i32 {
    if let Err(error) = forget_the_agent(&order) {
        return error.raw_os_error().unwrap_or(1);
    }
    let mut byte = [0; 1];
    if rustix::io::read(&order, &mut byte) != Ok(1) {
        return 1;
    }
    let code = enclose().err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO));
    let _ = rustix::io::write(&order, &code.to_ne_bytes());
    drop(order);
    loop {
        // Without a child there is nobody to wait for until an orphan arrives, and no signal says so.
        if rustix::process::wait(WaitOptions::empty()).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}

fn forget_the_agent(order: &OwnedFd) -> io::Result<()> {
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    drop(null);
    rustix::thread::set_name(c"sandbox-init")?;
    rustix::process::setpriority_process(None, 0)?;
    let keep = order.as_raw_fd().unsigned_abs();
    for (first, last) in [(3, keep - 1), (keep + 1, u32::MAX)] {
        // SAFETY: closes numbers that nothing in this copy of the agent uses again.
        if first <= last && unsafe { libc::close_range(first, last, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Makes the sandbox's tree the root of a mount namespace in which nothing else can be reached.
fn enclose() -> io::Result<()> {
    // SAFETY: unshare with namespace flags touches no memory of ours.
    if unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWIPC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    for other in ["/proc", "/sys", "/dev", crate::boot::IMAGE, tree::DISK, tree::MEMORY] {
        unmount(other, UnmountFlags::DETACH)?;
    }
    // An initramfs can't be pivoted away from; the tree is laid over it, and no path leads below.
    rustix::process::chdir(tree::ROOT)?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")?;
    let hidden = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", hidden, None)?;
    mount("sysfs", "/sys", "sysfs", hidden | MountFlags::RDONLY, None)?;
    Ok(())
}
