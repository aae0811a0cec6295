//! What a monitor may not even ask the kernel for, whatever program it is.
//!
//! Monitors confine themselves further, Firecracker much. This filter is there before them, in Firecracker's case from the
//! jailer on, and is for the day when a monitor is not itself any more: it shares the host's network namespace with the
//! taps, and must reach nothing through it. A monitor is connected to and connects to nothing. Nor must it take more of the
//! host's disk than the limit for its files allows.

use rds_seccomp::{Filter, allow, argument, if_any, if_equal, kill, mask, refuse, when};

/// The part of a socket's type that is no flag; `SOCK_TYPE_MASK`, linux/net.h.
const SOCKET_TYPE: u32 = 0xf;

/// The part of an ioctl's number that says whose it is. `X` are the filesystems', of which some are other names for fallocate,
/// linux/falloc.h.
const IOCTL_TYPE: u32 = 0xff00;

/// The filter. Of the arguments that it looks at, the kernel uses the lower half alone.
pub(crate) fn filter() -> Filter {
    let mut rules = Vec::new();
    // It would make sockets behind the filter's back; arguments of clone3 cannot be seen, and libraries do without it.
    for absent in [libc::SYS_io_uring_setup, libc::SYS_clone3] {
        rules.push(when(absent, &[refuse(libc::ENOSYS)]));
    }
    rules.push(when(libc::SYS_connect, &[refuse(libc::ECONNREFUSED)]));
    // Streams between processes of this host. Packets could be sent without a connection.
    for call in [libc::SYS_socket, libc::SYS_socketpair] {
        let body = [
            argument(0),
            if_equal(libc::AF_UNIX.unsigned_abs(), 0, 4),
            argument(1),
            mask(SOCKET_TYPE),
            if_equal(libc::SOCK_STREAM.unsigned_abs(), 0, 1),
            allow(),
            refuse(libc::EAFNOSUPPORT),
        ];
        rules.push(when(call, &body));
    }
    // In a user namespace of its own, a process has every capability.
    for call in [libc::SYS_unshare, libc::SYS_clone] {
        let namespace = libc::CLONE_NEWUSER.unsigned_abs();
        rules.push(when(call, &[argument(0), if_any(namespace, 0, 1), refuse(libc::EPERM), allow()]));
    }
    // Blocks behind a file's end: the limit for its size is not asked. Zeros and holes within it are.
    let mut body = vec![argument(1)];
    for mode in [0, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, libc::FALLOC_FL_ZERO_RANGE] {
        body.extend([if_equal(mode.unsigned_abs(), 0, 1), allow()]);
    }
    body.push(refuse(libc::EOPNOTSUPP));
    rules.push(when(libc::SYS_fallocate, &body));
    let filesystems = if_equal(u32::from(b'X') << 8, 0, 1);
    let body = [argument(1), mask(IOCTL_TYPE), filesystems, refuse(libc::ENOTTY), allow()];
    rules.push(when(libc::SYS_ioctl, &body));
    Filter::new(kill(), rules)
}
