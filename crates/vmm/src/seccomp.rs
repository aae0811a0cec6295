//! What a monitor may not even ask the kernel for, whatever program it is.
//!
//! Monitors confine themselves further, Firecracker much. This filter is there before them, in Firecracker's case from the
//! jailer on, and is for the day when a monitor is not itself any more: it shares the host's network namespace with the
//! taps, and must reach nothing through it. A monitor is connected to and connects to nothing. Nor must it take more of the
//! host's disk than the limit for its files allows.

use std::io;

/// `AUDIT_ARCH_X86_64`, linux/audit.h.
const ARCH: u32 = 0xc000_003e;

/// Bit of the call numbers of the x32 variant, which would be a second name for every call.
const X32: u32 = 0x4000_0000;

/// The part of a socket's type that is no flag; `SOCK_TYPE_MASK`, linux/net.h.
const SOCKET_TYPE: u32 = 0xf;

/// The part of an ioctl's number that says whose it is. `X` are the filesystems', of which some are other names for fallocate,
/// linux/falloc.h.
const IOCTL_TYPE: u32 = 0xff00;

/// Offsets in `struct seccomp_data`, linux/seccomp.h; arguments are looked at in their lower half, which is all that the
/// kernel uses of those below.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST: u32 = 16;
const SECOND: u32 = 24;

/// A program for the kernel's classic BPF machine.
#[derive(Debug)]
pub(crate) struct Filter(Vec<libc::sock_filter>);

impl Filter {
    pub(crate) fn new() -> Self {
        let mut program = vec![
            load(ARCHITECTURE),
            // Another architecture's calls have other numbers.
            jump(libc::BPF_JEQ, ARCH, 1, 0),
            statement(libc::BPF_RET, libc::SECCOMP_RET_KILL_PROCESS),
            load(NUMBER),
            jump(libc::BPF_JGE, X32, 0, 1),
            refuse(libc::ENOSYS),
        ];
        // It would make sockets behind the filter's back; arguments of clone3 cannot be seen, and libraries do without it.
        for absent in [libc::SYS_io_uring_setup, libc::SYS_clone3] {
            program.extend(when(absent, &[refuse(libc::ENOSYS)]));
        }
        program.extend(when(libc::SYS_connect, &[refuse(libc::ECONNREFUSED)]));
        // Streams between processes of this host. Packets could be sent without a connection.
        for call in [libc::SYS_socket, libc::SYS_socketpair] {
            let body = [
                load(FIRST),
                jump(libc::BPF_JEQ, libc::AF_UNIX.unsigned_abs(), 0, 4),
                load(SECOND),
                statement(libc::BPF_ALU | libc::BPF_AND, SOCKET_TYPE),
                jump(libc::BPF_JEQ, libc::SOCK_STREAM.unsigned_abs(), 0, 1),
                allow(),
                refuse(libc::EAFNOSUPPORT),
            ];
            program.extend(when(call, &body));
        }
        // In a user namespace of its own, a process has every capability.
        for call in [libc::SYS_unshare, libc::SYS_clone] {
            let namespace = libc::CLONE_NEWUSER.unsigned_abs();
            let body = [load(FIRST), jump(libc::BPF_JSET, namespace, 0, 1), refuse(libc::EPERM), allow()];
            program.extend(when(call, &body));
        }
        // Blocks behind a file's end: the limit for its size is not asked. Zeros and holes within it are.
        let mut body = vec![load(SECOND)];
        for mode in [0, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, libc::FALLOC_FL_ZERO_RANGE] {
            body.extend([jump(libc::BPF_JEQ, mode.unsigned_abs(), 0, 1), allow()]);
        }
        body.push(refuse(libc::EOPNOTSUPP));
        program.extend(when(libc::SYS_fallocate, &body));
        let body = [
            load(SECOND),
            statement(libc::BPF_ALU | libc::BPF_AND, IOCTL_TYPE),
            jump(libc::BPF_JEQ, u32::from(b'X') << 8, 0, 1),
            refuse(libc::ENOTTY),
            allow(),
        ];
        program.extend(when(libc::SYS_ioctl, &body));
        program.push(allow());
        Self(program)
    }

    /// Puts it on this process and all that it will start. It must not be able to gain privileges any more. Makes one
    /// system call and allocates nothing.
    pub(crate) fn install(&self) -> io::Result<()> {
        let len = u16::try_from(self.0.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
        let program = libc::sock_fprog { len, filter: self.0.as_ptr().cast_mut() };
        // SAFETY: the kernel copies the program during the call and does not change it.
        match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// `body` for one call. It ends with an answer; for other calls it is jumped over.
fn when(call: libc::c_long, body: &[libc::sock_filter]) -> Vec<libc::sock_filter> {
    let number = u32::try_from(call).expect("call numbers are small");
    let length = u8::try_from(body.len()).expect("bodies are short");
    std::iter::once(jump(libc::BPF_JEQ, number, 0, length)).chain(body.iter().copied()).collect()
}

fn load(offset: u32) -> libc::sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn allow() -> libc::sock_filter {
    statement(libc::BPF_RET, libc::SECCOMP_RET_ALLOW)
}

fn refuse(errno: i32) -> libc::sock_filter {
    statement(libc::BPF_RET, libc::SECCOMP_RET_ERRNO | errno.unsigned_abs())
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).expect("codes have 16 bits"), jt: 0, jf: 0, k }
}

fn jump(test: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    let code = u16::try_from(libc::BPF_JMP | test | libc::BPF_K).expect("codes have 16 bits");
    libc::sock_filter { code, jt, jf, k }
}
