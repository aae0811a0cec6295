//! System calls that no program in the sandbox needs, refused before the kernel's code for them is reached.
//!
//! This makes the kernel's attack surface smaller. What the calls would do is out of reach of uid 1000 in any case.

use std::io;

/// Refused with EPERM.
const DENIED: [i64; 38] = [
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_open_by_handle_at,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
];

/// Refused with ENOSYS, so that programs fall back to other ways of doing the same.
const ABSENT: [i64; 3] = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// `AUDIT_ARCH_X86_64`, linux/audit.h.
const ARCH: u32 = 0xc000_003e;

/// Bit of the call numbers of the x32 variant, which would be a second name for every call.
const X32: u32 = 0x4000_0000;

/// Offsets in `struct seccomp_data`, linux/seccomp.h.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// Installs the filter for this process and all that it will start. It must not be able to gain privileges any more.
pub(super) fn install() -> io::Result<()> {
    let mut program = filter();
    let length = u16::try_from(program.len()).expect("the filter is short");
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the program during the call.
    match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The filter as a program for the kernel's classic BPF machine.
fn filter() -> Vec<libc::sock_filter> {
    let refuse = |errno: i32| statement(libc::BPF_RET, libc::SECCOMP_RET_ERRNO | errno.unsigned_abs());
    let mut program = vec![
        load(ARCHITECTURE),
        // Another architecture's calls have other numbers: refuse all of them.
        jump(libc::BPF_JEQ, ARCH, 1, 0),
        refuse(libc::ENOSYS),
        load(NUMBER),
        jump(libc::BPF_JGE, X32, 0, 1),
        refuse(libc::ENOSYS),
    ];
    for (numbers, errno) in [(&DENIED[..], libc::EPERM), (&ABSENT[..], libc::ENOSYS)] {
        for number in numbers {
            let number = u32::try_from(*number).expect("call numbers are small");
            program.extend([jump(libc::BPF_JEQ, number, 0, 1), refuse(errno)]);
        }
    }
    program.push(statement(libc::BPF_RET, libc::SECCOMP_RET_ALLOW));
    program
}

fn load(offset: u32) -> libc::sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).expect("codes have 16 bits"), jt: 0, jf: 0, k }
}

fn jump(test: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    let code = u16::try_from(libc::BPF_JMP | test | libc::BPF_K).expect("codes have 16 bits");
    libc::sock_filter { code, jt, jf, k }
}
