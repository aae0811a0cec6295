//! Streams over a vsock: the manager opens them, each of them is new, and only the host is listened to.

use std::fs;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::stream::Stream;
use crate::error::{SystemError, While};

/// The number of a vsock among virtio devices, as sysfs writes it.
const DEVICE: &str = "0x0013";

/// The kernel's argument that says which port to listen at, and the port without it.
const ARGUMENT: &str = "rds.vsock_port=";
const PORT: u32 = 8080;

/// Streams that may wait. The manager has one at a time, and sometimes opens another to see whether it would be accepted.
const BACKLOG: libc::c_int = 16;

/// Whether the machine has a vsock.
pub(super) fn is_there() -> bool {
    let devices = fs::read_dir("/sys/bus/virtio/devices").into_iter().flatten().flatten();
    let kind = |path: std::path::PathBuf| fs::read_to_string(path.join("device")).unwrap_or_default();
    devices.map(|device| kind(device.path())).any(|kind| kind.trim_end() == DEVICE)
}

/// The port for calls into the guest; calls out of it use the next one.
pub(super) fn port() -> u32 {
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    line.split_ascii_whitespace().find_map(|word| word.strip_prefix(ARGUMENT)?.parse().ok()).unwrap_or(PORT)
}

/// What accepts the manager's streams.
pub(crate) struct Listener(AsyncFd<OwnedFd>);

impl Listener {
    pub(super) fn new(port: u32) -> Result<Self, SystemError> {
        let listen = || -> io::Result<_> {
            let flags = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
            // SAFETY: makes a descriptor and touches no memory.
            let socket = owned(unsafe { libc::socket(libc::AF_VSOCK, flags, 0) })?;
            let address = address(port);
            let size = libc::socklen_t::try_from(size_of::<libc::sockaddr_vm>()).map_err(io::Error::other)?;
            // SAFETY: the address lives through the call, and `size` is its size.
            check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) })?;
            // SAFETY: touches no memory.
            check(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) })?;
            // SAFETY: an owned descriptor stays the same one, open, until the registration drops it.
            Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
        };
        listen().while_(format!("listen at vsock port {port}")).map(Self)
    }

    /// The next stream that the host opens.
    pub(super) async fn accept(&self) -> io::Result<Stream> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|listener| accept(listener.as_raw_fd())) {
                Ok(Ok((socket, libc::VMADDR_CID_HOST))) => {
                    return Stream::new(socket);
                }
                // Whoever else can open a stream here is no manager.
                Ok(Ok(_)) | Err(_) => {}
                Ok(Err(error)) => return Err(error),
            }
        }
    }
}

/// Accepts a stream and says who opened it.
fn accept(listener: RawFd) -> io::Result<(OwnedFd, u32)> {
    let mut peer = address(0);
    let mut size = libc::socklen_t::try_from(size_of::<libc::sockaddr_vm>()).map_err(io::Error::other)?;
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the kernel writes at most `size` bytes to an address of that size.
    let socket = owned(unsafe { libc::accept4(listener, (&raw mut peer).cast(), &raw mut size, flags) })?;
    Ok((socket, peer.svm_cid))
}

/// This machine's address with a port.
fn address(port: u32) -> libc::sockaddr_vm {
    // SAFETY: an address is plain data, for which zero is a value.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::sa_family_t::try_from(libc::AF_VSOCK).expect("a family's number is small");
    address.svm_cid = libc::VMADDR_CID_ANY;
    address.svm_port = port;
    address
}

fn owned(descriptor: RawFd) -> io::Result<OwnedFd> {
    check(descriptor)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn check(outcome: libc::c_int) -> io::Result<()> {
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
