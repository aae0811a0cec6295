//! Tap devices: interfaces whose cable ends in an open file.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;

use crate::request::{about, ask};

/// `_IOW('T', …, int)`, linux/if_tun.h.
const SET_INTERFACE: libc::Ioctl = 0x4004_54ca;
const SET_PERSISTENT: libc::Ioctl = 0x4004_54cb;
const SET_OWNER: libc::Ioctl = 0x4004_54cc;

/// A packet's header says what is left to the host: its segmentation and checksums.
const FLAGS: libc::c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// Makes a device, down, that stays until it is removed. `owner` may open it besides root.
///
/// # Errors
///
/// There is one of this name, or this process may not make any.
pub fn create(name: &str, owner: Option<u32>) -> io::Result<()> {
    let file = attach(name, FLAGS | libc::IFF_TUN_EXCL)?;
    if let Some(owner) = owner {
        set(&file, SET_OWNER, owner)?;
    }
    set(&file, SET_PERSISTENT, 1)
}

/// Opens a device that is there; a process that inherits it needs no right of its own.
pub fn open(name: &str) -> io::Result<File> {
    if !exists(name)? {
        // The kernel would make one.
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no tap device {name}")));
    }
    attach(name, FLAGS)
}

/// Makes a device, down, that is there for as long as the file is open. One of this name that is there already is
/// [`io::ErrorKind::ResourceBusy`]. Only who may change this network namespace (`CAP_NET_ADMIN`) can make any.
pub fn reserve(name: &str) -> io::Result<File> {
    attach(name, libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_TUN_EXCL)
}

/// Removes a device that nobody holds open, with its addresses, routes and neighbours. Does nothing if there is none.
pub fn remove(name: &str) -> io::Result<()> {
    match open(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        file => set(&file?, SET_PERSISTENT, 0),
    }
}

/// Whether there is an interface of this name.
fn exists(name: &str) -> io::Result<bool> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: the operation reads and writes an interface request.
    match unsafe { ask(&socket, libc::SIOCGIFINDEX, &mut about(name)?) } {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
        asked => asked.map(|()| true),
    }
}

fn attach(name: &str, flags: libc::c_int) -> io::Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    let mut request = about(name)?;
    // Flags are 16 bits that happen to be signed.
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the operation reads and writes an interface request.
    unsafe { ask(&file, SET_INTERFACE, &mut request) }?;
    Ok(file)
}

fn set(file: &File, number: libc::Ioctl, value: u32) -> io::Result<()> {
    // SAFETY: these operations take a number, and no pointer.
    match unsafe { libc::ioctl(file.as_raw_fd(), number, libc::c_ulong::from(value)) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
