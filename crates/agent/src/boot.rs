//! From the kernel's hand-over to an anonymous guest that waits for orders.
//!
//! Everything here may end up in a memory snapshot that many VMs start from: it must not know who the VM is, hold a
//! secret or mount a writable disk.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, mount};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};

use crate::error::{SystemError, While};

/// Where the image's root filesystem is mounted, read-only.
pub(crate) const IMAGE: &str = "/image";

/// The agent's own cgroup tree.
pub(crate) const CGROUPS: &str = "/sys/fs/cgroup";

/// How long a device may take to appear once its driver is loaded.
const DEVICE_PATIENCE: Duration = Duration::from_secs(5);

/// Settings of the kernel that take from user processes what they have no use for here.
const SETTINGS: [(&str, &str); 11] = [
    ("user/max_user_namespaces", "0"),
    ("kernel/dmesg_restrict", "1"),
    ("kernel/kptr_restrict", "2"),
    ("kernel/perf_event_paranoid", "3"),
    ("kernel/unprivileged_bpf_disabled", "1"),
    ("kernel/sysrq", "0"),
    ("kernel/yama/ptrace_scope", "1"),
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_symlinks", "1"),
    // Open files are charged to the sandbox's memory; the kernel's own bound is a tenth of a small guest's memory.
    ("fs/file-max", "4194304"),
    ("net/ipv4/ping_group_range", "0 2147483647"),
];

/// Mounts the kernel's filesystems and turns the standard streams to the kernel's log.
pub(crate) fn mount_kernel_filesystems() -> Result<(), SystemError> {
    let hidden = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    for (kind, target, flags) in [
        ("proc", "/proc", hidden),
        ("sysfs", "/sys", hidden),
        ("devtmpfs", "/dev", MountFlags::NOSUID | MountFlags::NOEXEC),
        ("cgroup2", CGROUPS, hidden),
    ] {
        mount_at(kind, kind, target, flags, None)?;
    }
    let null = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()).while_("open /dev/null")?;
    let log = rustix::fs::open("/dev/kmsg", OFlags::WRONLY, Mode::empty()).while_("open /dev/kmsg")?;
    dup2_stdin(&null).while_("redirect the standard input")?;
    dup2_stdout(&log).while_("redirect the standard output")?;
    dup2_stderr(&log).while_("redirect the standard error")?;
    // A program that was started without standard streams would otherwise be given these numbers for its files.
    for stream in [null, log] {
        use std::os::fd::IntoRawFd;
        if stream.as_raw_fd() <= 2 {
            let _ = stream.into_raw_fd();
        }
    }
    Ok(())
}

/// Makes the agent the last thing that the kernel gives up, and its memory nobody else's to read.
pub(crate) fn protect_self() -> Result<(), SystemError> {
    fs::write("/proc/self/oom_score_adj", "-1000").while_("protect the agent from the OOM killer")?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .while_("make the agent's memory unreadable")?;
    rustix::process::setpriority_process(None, -10).while_("raise the agent's priority")?;
    let files = rustix::process::Rlimit { current: Some(65_536), maximum: Some(65_536) };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, files).while_("raise the agent's file limit")?;
    drop_bounding_set();
    for (name, value) in SETTINGS {
        // A kernel that lacks a setting lacks the feature.
        let _ = fs::write(Path::new("/proc/sys").join(name), value);
    }
    Ok(())
}

/// Takes every capability out of the bounding set: nothing the agent starts can ever gain one. It keeps its own.
fn drop_bounding_set() {
    for bit in 0..u64::BITS {
        // It fails past the last capability.
        if remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)).is_err() {
            break;
        }
    }
}

/// Loads the modules that the initramfs brought, in the order it names, and frees their files' memory.
pub(crate) fn load_modules() -> Result<(), SystemError> {
    let order = match fs::read_to_string("/modules/order") {
        Ok(order) => order,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).while_("read /modules/order"),
    };
    for name in order.lines().filter(|name| !name.is_empty()) {
        let file = fs::File::open(Path::new("/modules").join(name)).while_(format!("open module {name}"))?;
        match rustix::system::finit_module(&file, c"", 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error).while_(format!("load module {name}")),
        }
    }
    fs::remove_dir_all("/modules").while_("remove the modules' files")
}

/// Mounts the image's root filesystem.
pub(crate) fn mount_image() -> Result<(), SystemError> {
    wait_for("/dev/vda")?;
    // `noload`: an image that was not unmounted cleanly has a journal to replay, and nobody may write to it.
    mount_at("/dev/vda", "ext4", IMAGE, MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID, Some(c"noload"))
}

/// Waits until a device's node is there.
pub(crate) fn wait_for(device: &str) -> Result<(), SystemError> {
    let start = Instant::now();
    while !Path::new(device).exists() {
        if start.elapsed() > DEVICE_PATIENCE {
            return Err(io::Error::from(io::ErrorKind::NotFound)).while_(format!("find {device}"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Mounts a filesystem on a directory that is made if needed.
pub(crate) fn mount_at(
    source: &str,
    kind: &str,
    target: &str,
    flags: MountFlags,
    options: Option<&CStr>,
) -> Result<(), SystemError> {
    match rustix::fs::mkdirat(CWD, target, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error).while_(format!("make {target}")),
    }
    mount(source, target, kind, flags, options).while_(format!("mount {kind} on {target}"))
}

/// Brings up the loopback interface; its addresses come with it.
pub(crate) fn raise_loopback() -> Result<(), SystemError> {
    rds_netif::Interface::new("lo").and_then(|lo| lo.up()).while_("raise the loopback interface")
}
