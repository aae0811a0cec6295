//! Starting a QEMU process that outlives the manager.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;

use rds_netif::tap;
use rds_seccomp::Filter;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Gid, Resource, Uid};
use rustix::thread::{set_no_new_privs, set_thread_gid, set_thread_groups, set_thread_uid};

use super::arguments::{Descriptors, Memory};
use super::files;
use crate::HypervisorError;
use crate::accelerator::Accelerator;
use crate::hypervisor::{Log, MachineSpec, Port};
use crate::privileges::drop_all;
use crate::process::{self, Child, limit, set_apart};
use crate::seccomp;

/// Threads that a process may have besides one for each virtual CPU: as many as 64 read and write its disks, and QEMU ends if
/// it cannot start one.
pub(super) const OWN_THREADS: u64 = 96;

/// Descriptors that it may have open. It needs some 40.
const DESCRIPTORS: u64 = 256;

/// The open files that a process is given. It needs no right of its own to any of them.
pub(super) struct Inheritance {
    kernel: File,
    initramfs: File,
    rootfs: File,
    disk: File,
    serial: File,
    stdout: File,
    stderr: File,
    qmp: OwnedFd,
    port_in: OwnedFd,
    port_out: OwnedFd,
    tap: Option<File>,
    memory: Option<File>,
}

impl Inheritance {
    /// Opens the parts of a machine and makes its sockets and logs in its directory.
    pub(super) fn open(spec: &MachineSpec) -> Result<Self, HypervisorError> {
        let dir = &spec.dir;
        Ok(Self {
            kernel: open(&spec.kernel, OpenOptions::new().read(true))?,
            initramfs: open(&spec.initramfs, OpenOptions::new().read(true))?,
            rootfs: open(&spec.rootfs, OpenOptions::new().read(true))?,
            disk: open(&spec.disk, OpenOptions::new().read(true).write(true))?,
            serial: open_log(dir, Log::Serial)?,
            stdout: open_log(dir, Log::Stdout)?,
            stderr: open_log(dir, Log::Stderr)?,
            qmp: listen(&files::qmp(dir))?,
            port_in: listen(&files::port(dir, Port::In))?,
            port_out: listen(&files::port(dir, Port::Out))?,
            tap: spec.nic.as_ref().map(|nic| tap::open(&nic.tap).map_err(HypervisorError::io(&nic.tap))).transpose()?,
            memory: None,
        })
    }

    /// Adds the memory that a machine starts with a private copy of.
    pub(super) fn start_from(&mut self, memory: File) -> Memory {
        Memory::CopyOf(self.memory.insert(memory).as_raw_fd())
    }

    pub(super) fn descriptors(&self) -> Descriptors {
        Descriptors {
            kernel: self.kernel.as_raw_fd(),
            initramfs: self.initramfs.as_raw_fd(),
            rootfs: self.rootfs.as_raw_fd(),
            disk: self.disk.as_raw_fd(),
            serial: self.serial.as_raw_fd(),
            qmp: self.qmp.as_raw_fd(),
            port_in: self.port_in.as_raw_fd(),
            port_out: self.port_out.as_raw_fd(),
            tap: self.tap.as_ref().map_or(-1, AsRawFd::as_raw_fd),
        }
    }

    fn numbers(&self) -> Vec<RawFd> {
        let fds = self.descriptors();
        let always = [fds.kernel, fds.initramfs, fds.rootfs, fds.disk, fds.serial, fds.qmp, fds.port_in, fds.port_out];
        always.into_iter().chain([&self.tap, &self.memory].into_iter().flatten().map(AsRawFd::as_raw_fd)).collect()
    }
}

/// Whom a process runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Credentials {
    user: Uid,
    /// The one supplementary group that it keeps: that of `/dev/kvm`.
    group: Option<Gid>,
}

impl Credentials {
    /// `user` and the group of the same number, with access to `/dev/kvm` if the accelerator needs it and a group has it.
    pub(super) fn of(user: u32, accelerator: Accelerator) -> Self {
        let device = (accelerator == Accelerator::Kvm).then(|| std::fs::metadata("/dev/kvm").ok()).flatten();
        // Group 0 is the administrator's; no VM gets that.
        let group = device.filter(|device| device.mode() & 0o060 == 0o060 && device.gid() != 0);
        Self { user: Uid::from_raw(user), group: group.map(|device| Gid::from_raw(device.gid())) }
    }

    /// Makes the calling thread, the only one of its process, run as this user for good.
    fn assume(self) -> rustix::io::Result<()> {
        match self.group {
            Some(group) => set_thread_groups(&[group])?,
            None => set_thread_groups(&[])?,
        }
        set_thread_gid(Gid::from_raw(self.user.as_raw()))?;
        set_thread_uid(self.user)
    }
}

/// What a process may use at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of the largest file.
    pub(super) largest_file: u64,
    /// Processes and threads of its user, if that is its alone.
    pub(super) threads: u64,
}

/// Who a process is on the host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Role {
    /// Whom it runs as; this user if `None`.
    pub(super) credentials: Option<Credentials>,
    pub(super) limits: Limits,
    /// Whether it yields the processors to all others.
    pub(super) background: bool,
}

/// Starts `program` in a session of its own, with nothing of the manager's but what it inherits.
pub(super) fn start(
    program: &Path,
    arguments: &[String],
    role: Role,
    inheritance: Inheritance,
) -> Result<Child, HypervisorError> {
    let numbers = inheritance.numbers();
    let clone = |file: &File| file.try_clone().map_err(HypervisorError::io("a log"));
    let logs = [clone(&inheritance.stdout)?, clone(&inheritance.stderr)?];
    let filter = seccomp::filter();
    // The descriptors' owner, `inheritance`, lives until the program has its own.
    let started = process::spawn(program, arguments, logs, || prepare(&numbers, role, &filter));
    drop(inheritance);
    started.map_err(|source| HypervisorError::Spawn { program: program.into(), source })
}

/// Makes `command` start a session of its own in `role`, with the descriptors `inherited`.
pub(super) fn confine(command: &mut std::process::Command, inherited: Vec<RawFd>, role: Role) {
    let filter = seccomp::filter();
    let prepare = move || prepare(&inherited, role, &filter);
    // SAFETY: between fork and exec only async-signal-safe calls are allowed, and `prepare` makes no others.
    unsafe { command.pre_exec(prepare) };
}

/// What a process does to itself before it becomes QEMU. Makes system calls without libc's wrappers (rustix), and allocates
/// nothing.
fn prepare(inherited: &[RawFd], role: Role, filter: &Filter) -> io::Result<()> {
    set_apart(role.background)?;
    limit(Resource::Fsize, role.limits.largest_file)?;
    limit(Resource::Nofile, DESCRIPTORS)?;
    for &number in inherited {
        // SAFETY: the number is of a descriptor that was open when this process was forked, and nothing has closed it since.
        let descriptor = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
        fcntl_setfd(descriptor, FdFlags::empty())?;
    }
    if let Some(credentials) = role.credentials {
        limit(Resource::Nproc, role.limits.threads)?;
        credentials.assume()?;
    }
    // Only root loses them with its user.
    drop_all()?;
    set_no_new_privs(true)?;
    filter.install()
}

fn open(path: &Path, options: &OpenOptions) -> Result<File, HypervisorError> {
    options.open(path).map_err(HypervisorError::io(path.display().to_string()))
}

fn open_log(dir: &Path, log: Log) -> Result<File, HypervisorError> {
    open(&files::log(dir, log), OpenOptions::new().append(true).create(true).mode(0o600))
}

/// A listening socket in place of whatever an earlier process left there.
fn listen(path: &Path) -> Result<OwnedFd, HypervisorError> {
    let bind = || {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        UnixListener::bind(path)
    };
    bind().map(OwnedFd::from).map_err(HypervisorError::io(path.display().to_string()))
}
