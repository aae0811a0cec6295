//! System calls that no program in the sandbox needs, refused before the kernel's code for them is reached.
//!
//! This makes the kernel's attack surface smaller. What the calls would do is out of reach of uid 1000 in any case.

use rds_seccomp::{Filter, allow, argument, if_any, refuse, when};

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

/// Refused with ENOSYS, so that programs fall back to other ways of doing the same. Arguments of clone3 cannot be seen.
const ABSENT: [i64; 4] =
    [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register, libc::SYS_clone3];

/// The filter, to be installed when no privileges can be gained any more.
pub(super) fn filter() -> Filter {
    let denied = DENIED.iter().map(|call| when(*call, &[refuse(libc::EPERM)]));
    let absent = ABSENT.iter().map(|call| when(*call, &[refuse(libc::ENOSYS)]));
    // A program's child is not to be the agent's, which would have to wait for it.
    let parent = if_any(libc::CLONE_PARENT.cast_unsigned(), 0, 1);
    let siblings = when(libc::SYS_clone, &[argument(0), parent, refuse(libc::EPERM), allow()]);
    Filter::new(refuse(libc::ENOSYS), denied.chain(absent).chain([siblings]))
}
