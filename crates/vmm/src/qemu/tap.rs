//! Opening a tap device, so that a process without any right to do so can use it.

use std::ffi::{c_char, c_short};
use std::fs::File;
use std::io;

use rustix::ioctl::{Setter, ioctl, opcode};

/// `struct ifreq` as far as it is used here; the kernel copies all of it.
#[repr(C)]
struct Request {
    name: [c_char; 16],
    flags: c_short,
    rest: [u8; 22],
}

const SET_INTERFACE: rustix::ioctl::Opcode = opcode::write::<i32>(b'T', 202);
const TAP: c_short = 0x0002;
const NO_PACKET_INFORMATION: c_short = 0x1000;
/// Packets carry what is needed to leave their segmentation and checksums to the host.
const OFFLOAD_HEADER: c_short = 0x4000;

/// Opens the device of this name, which must be there already.
pub(super) fn open(name: &str) -> io::Result<File> {
    if !std::path::Path::new("/sys/class/net").join(name).join("tun_flags").exists() {
        // The kernel would make one.
        return Err(io::Error::new(io::ErrorKind::NotFound, "there is no such tap device"));
    }
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    let mut request = Request { name: [0; 16], flags: TAP | NO_PACKET_INFORMATION | OFFLOAD_HEADER, rest: [0; 22] };
    for (to, from) in request.name.iter_mut().take(15).zip(name.bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: this operation reads (and may change) a `struct ifreq`, whose size and layout `Request` has.
    unsafe { ioctl(&file, Setter::<SET_INTERFACE, Request>::new(request)) }?;
    Ok(file)
}
