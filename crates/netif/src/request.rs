//! The layouts of what the kernel is asked with.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use crate::Mac;

/// A request about the interface `name`, all else zero.
pub(crate) fn about(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: an interface request is plain data, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name = name_bytes(name)?;
    Ok(request)
}

/// The name as the kernel takes it, ending with a zero.
pub(crate) fn name_bytes(name: &str) -> io::Result<[libc::c_char; libc::IFNAMSIZ]> {
    let mut bytes = [0; libc::IFNAMSIZ];
    if name.is_empty() || name.len() >= bytes.len() || name.contains('/') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the name of an interface"));
    }
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Ok(bytes)
}

/// An Internet address where the kernel wants any socket address.
pub(crate) fn internet(address: Ipv4Addr) -> libc::sockaddr {
    let mut socket = empty(libc::AF_INET);
    // The port comes first, and there is none.
    for (to, from) in socket.sa_data.iter_mut().skip(2).zip(address.octets()) {
        *to = from.cast_signed();
    }
    socket
}

/// A hardware address where the kernel wants any socket address.
pub(crate) fn hardware(mac: Mac) -> libc::sockaddr {
    let mut socket = empty(i32::from(libc::ARPHRD_ETHER));
    for (to, from) in socket.sa_data.iter_mut().zip(mac.0) {
        *to = from.cast_signed();
    }
    socket
}

fn empty(family: i32) -> libc::sockaddr {
    let family = libc::sa_family_t::try_from(family).expect("families are small numbers");
    libc::sockaddr { sa_family: family, sa_data: [0; 14] }
}

/// Asks the kernel.
///
/// # Safety
///
/// `number` must be an operation that takes a `T` and keeps no pointer to it.
pub(crate) unsafe fn ask<T>(file: &impl AsRawFd, number: libc::Ioctl, request: &mut T) -> io::Result<()> {
    // SAFETY: the caller's promise; the request lives through the call.
    match unsafe { libc::ioctl(file.as_raw_fd(), number, std::ptr::from_mut(request)) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
