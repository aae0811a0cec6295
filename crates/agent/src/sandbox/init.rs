//! The sandbox's init: it holds the namespaces open, and orphans are its own. It has no file of the agent, no secret and
//! nothing to be talked into.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::CWD;
use rustix::mount::{MountFlags, MoveMountFlags, UnmountFlags, mount, mount_move, move_mount, unmount};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::tree;

/// Waits for the sandbox's tree, encloses the sandbox in it, answers with an error number or 0, then is there for ever.
pub(super) fn run(order: OwnedFd) -> i32 {
    if let Err(error) = forget_the_agent().and_then(|()| leave_the_agent()) {
        return error.raw_os_error().unwrap_or(1);
    }
    let Ok(tree) = receive(&order) else { return 1 };
    let code = enclose(&tree).err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO));
    let _ = rustix::io::write(&order, &code.to_ne_bytes());
    drop((order, tree));
    // The kernel reaps the orphans of who ignores their ends, so an idle VM is not woken for them.
    // SAFETY: it changes no handler of this program's, which has none.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    loop {
        std::thread::park();
    }
}

fn forget_the_agent() -> io::Result<()> {
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    drop(null);
    rustix::thread::set_name(c"sandbox-init")?;
    rustix::process::setpriority_process(None, 0)?;
    Ok(())
}

/// Makes a mount namespace with nothing in it but the kernel's filesystems as the sandbox is to see them.
fn leave_the_agent() -> io::Result<()> {
    // SAFETY: only namespaces are unshared, no open files.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWIPC) }?;
    for other in ["/proc", "/sys", "/dev", crate::boot::IMAGE, tree::MEMORY, tree::SKELETON, tree::READY] {
        unmount(other, UnmountFlags::DETACH)?;
    }
    let hidden = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", hidden, None)?;
    mount("sysfs", "/sys", "sysfs", hidden | MountFlags::RDONLY, None)?;
    Ok(())
}

/// The mount that comes with the order.
fn receive(order: &OwnedFd) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 1];
    recvmsg(order, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    descriptors.find_map(|mut descriptors| descriptors.next()).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Makes a tree the root, from which nothing else can be reached.
fn enclose(tree: &OwnedFd) -> io::Result<()> {
    move_mount(tree, "", CWD, tree::ROOT, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    for kernel in ["proc", "sys"] {
        mount_move(format!("/{kernel}"), format!("{}/{kernel}", tree::ROOT))?;
    }
    // An initramfs can't be pivoted away from; the tree is laid over it, and no path leads below.
    rustix::process::chdir(tree::ROOT)?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")?;
    Ok(())
}
