//! Which process is a machine's: found again after the manager was killed, and never confused with another.
//!
//! A process is identified by its number, its start time and the host's boot, which its process file in the machine's
//! directory has: nothing that the process does to itself changes them. One whose manager died before it wrote that file
//! is found by its standard output, which is a file in the machine's directory: no other user can have that file open, and
//! two managers have different directories. This module must not know what the process does; a driver tells what marks its
//! own with [`Marks`]. What ends machines looks for those of every driver: the one that runs them now may not be the one
//! that started them.
//!
//! That a process has ended is only said if it is known: with no descriptor left, for one, nothing of it can be read.

use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, setpriority_process};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};

use crate::hypervisor::VmId;
use crate::{HypervisorError, firecracker, qemu};

/// Time for a process to end after it was killed. The kernel frees its memory meanwhile.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Between two looks at a process of which nothing could be told.
const DOUBT_PAUSE: Duration = Duration::from_secs(1);

/// What marks the processes of every driver.
const DRIVERS: [&Marks; 2] = [&qemu::MARKS, &firecracker::MARKS];

/// What marks a driver's processes.
#[derive(Debug)]
pub(crate) struct Marks {
    /// Name of the process file in a machine's directory.
    pub(crate) file: &'static str,
    /// Name of the file there that the process has as its standard output.
    pub(crate) output: &'static str,
    /// The VM that a command line (words that end with a NUL) names.
    pub(crate) named: fn(&[u8]) -> Option<VmId>,
}

/// A process that is a machine's, held by a descriptor: it stays this one even if its number is used again.
#[derive(Debug)]
pub(crate) struct Process {
    held: OwnedFd,
    pid: i32,
}

/// Number and start time (clock ticks since the host's boot) of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    pid: i32,
    start: u64,
}

impl Process {
    /// The running process of the machine in `dir`, if there is one.
    pub(crate) fn locate(dir: &Path, marks: &Marks) -> io::Result<Option<Self>> {
        let recorded = match fs::read_to_string(dir.join(marks.file)) {
            Ok(text) => Identity::parse(&text, &boot()?),
            Err(error) if is_gone(&error) => None,
            Err(error) => return Err(error),
        };
        match recorded {
            Some(identity) => Self::hold(identity),
            None => Self::search(&canonical(dir), marks),
        }
    }

    /// The process of the machine in `dir` (canonical), found among all of this host.
    fn search(dir: &Path, marks: &Marks) -> io::Result<Option<Self>> {
        for found in all(marks) {
            let found = found?;
            if found.dir != dir {
                continue;
            }
            // What is read of a process after it is held is about the held one.
            if let Some(held) = Self::hold(found.identity)?
                && directory(held.pid, marks)?.is_some_and(|output| output == dir)
            {
                return Ok(Some(held));
            }
        }
        Ok(None)
    }

    /// The process that has this directory as its root and is the first of a process namespace: when it ends, all others
    /// in there end. `hint` may be its number.
    pub(crate) fn rooted(root: impl AsFd, hint: Option<i32>) -> io::Result<Option<Self>> {
        let wanted = rustix::fs::fstat(root)?;
        let rooted = |pid: i32| {
            let process = Self::hold(Identity::of(pid).ok()??).ok()??;
            let found = rustix::fs::stat(format!("/proc/{pid}/root/")).ok()?;
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let same = (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino);
            (same && is_first_of_namespace(&status) && process.is_there()).then_some(process)
        };
        Ok(hint.into_iter().chain(numbers()?).find_map(rooted))
    }

    /// The process with this number, whoever it is.
    #[cfg(test)]
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        Some(Self { held: pidfd_open(Pid::from_raw(pid)?, PidfdFlags::NONBLOCK).ok()?, pid })
    }

    /// Holds the process with this identity if it is there.
    fn hold(identity: Identity) -> io::Result<Option<Self>> {
        let Some(pid) = Pid::from_raw(identity.pid) else { return Ok(None) };
        let held = pidfd_open(pid, PidfdFlags::NONBLOCK);
        // Only what is read after the process is held is about the held process. A number that is only a thread's by now
        // cannot be held.
        if Identity::of(identity.pid)? != Some(identity) {
            return Ok(None);
        }
        match held {
            Ok(held) => Ok(Some(Self { held, pid: identity.pid })),
            Err(Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether it has not ended: nobody else has had its number until now, then.
    fn is_there(&self) -> bool {
        poll(&mut [PollFd::new(&self.held, PollFlags::IN)], Some(&Timespec::default())).is_ok_and(|ended| ended == 0)
    }

    /// Whether memory of its is, or may be, in the host's swap, proc(5).
    pub(crate) fn is_swapped(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let swapped = status.lines().find_map(|line| line.strip_prefix("VmSwap:"));
        swapped.is_none_or(|kib| kib.trim() != "0 kB")
    }

    /// Its control groups, as `/proc/PID/cgroup` has them; nothing if it has ended.
    fn groups(&self) -> Option<String> {
        fs::read_to_string(format!("/proc/{}/cgroup", self.pid)).ok().filter(|_| self.is_there())
    }

    /// The directory that it has as its root.
    pub(crate) fn root(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(format!("/proc/{}/root/", self.pid), flags, Mode::empty())?;
        if self.is_there() { Ok(root) } else { Err(ErrorKind::NotFound.into()) }
    }

    /// Ends the process at once, without waiting.
    pub(crate) fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.held, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Its number.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits until the process has ended.
    pub(crate) async fn wait(self) -> io::Result<()> {
        // SAFETY: an owned descriptor stays the same one, open, until the registration drops it.
        let ended = unsafe { AsyncFd::register_with_interest(self.held, Interest::READABLE) }?;
        ended.readable().await?.retain_ready();
        Ok(())
    }
}

impl Identity {
    /// The identity of a process that has not ended.
    fn of(pid: i32) -> io::Result<Option<Self>> {
        let stat = present(fs::read_to_string(format!("/proc/{pid}/stat")))?;
        Ok(stat.and_then(|stat| start_time(&stat)).map(|start| Self { pid, start }))
    }

    /// What [`record`] wrote, if that was during this boot.
    fn parse(text: &str, this_boot: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let (pid, start, boot) = (words.next()?, words.next()?, words.next()?);
        (boot == this_boot).then_some(Self { pid: pid.parse().ok()?, start: start.parse().ok()? })
    }
}

/// A name of the host's boot. Numbers and start times begin anew with each.
fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Whether this is how it shows that a file or a process is not there.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

/// What was read of a process; `None` of one that has ended.
fn present<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The numbers of all processes that this one sees.
fn numbers() -> io::Result<Vec<i32>> {
    let number = |name: OsString| name.to_str()?.parse().ok();
    fs::read_dir("/proc")?.filter_map(|entry| entry.map(|entry| number(entry.file_name())).transpose()).collect()
}

/// Whether a process is number 1 in a namespace right below this process's, by its `/proc/<pid>/status`.
fn is_first_of_namespace(status: &str) -> bool {
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    numbers.split_ascii_whitespace().skip(1).eq(["1"])
}

/// Makes this process, and what it starts, yield the processors. Another process of the same need gets three times as
/// much; one that yields more would never end on a busy host. Where sessions are scheduled as groups, a process's own
/// priority counts only within its session. Makes system calls alone, so it may be called between fork and exec.
pub(crate) fn yield_processors() -> io::Result<()> {
    setpriority_process(None, 5)?;
    if let Ok(group) = rustix::fs::open(c"/proc/self/autogroup", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        // The system bounds how often this may be done; the machine is only less polite then.
        let _ = rustix::io::write(&group, b"5");
    }
    Ok(())
}

/// Field 22 of `/proc/<pid>/stat` (proc(5)); `None` for a process that has ended and was not yet reaped. The second
/// field is a name that may hold spaces and parentheses.
fn start_time(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

/// Records the process of the machine in `dir`, all or nothing. One that has ended already is found out by whoever waits
/// for it.
pub(crate) fn record(dir: &Path, pid: u32, marks: &Marks) -> io::Result<()> {
    let Some(Identity { pid, start }) = Identity::of(i32::try_from(pid).map_err(io::Error::other)?)? else {
        return Ok(());
    };
    let (path, draft) = (dir.join(marks.file), dir.join("process.new"));
    fs::write(&draft, format!("{pid} {start} {}\n", boot()?))?;
    fs::rename(draft, path)
}

/// Forgets the process of the machine in `dir`.
pub(crate) fn forget(dir: &Path, marks: &Marks) -> io::Result<()> {
    present(fs::remove_file(dir.join(marks.file))).map(drop)
}

/// The process of this driver that the machine in `dir` has.
pub(crate) fn running(dir: &Path, marks: &Marks) -> Result<Process, HypervisorError> {
    let process = Process::locate(dir, marks);
    let process = process.map_err(HypervisorError::io("looking for the process"))?;
    process.ok_or(HypervisorError::NotRunning)
}

/// Whether the machine in `dir` has a process of this driver, or may have one.
pub(crate) fn is_running(dir: &Path, marks: &Marks) -> bool {
    Process::locate(dir, marks).map_or_else(
        |error| {
            tracing::warn!(%error, dir = %dir.display(), "cannot tell whether a machine runs");
            true
        },
        |process| process.is_some(),
    )
}

/// Waits until the machine in `dir` has no process of this driver any more.
pub(crate) async fn wait(dir: &Path, marks: &Marks) {
    loop {
        let ended = match Process::locate(dir, marks) {
            Ok(Some(process)) => process.wait().await,
            Ok(None) => return,
            Err(error) => Err(error),
        };
        match ended {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, dir = %dir.display(), "cannot wait for a machine's process yet"),
        }
        sleep(DOUBT_PAUSE).await;
    }
}

/// Ends every process of the machine in `dir`, whichever driver started it, waits until they are gone, and removes what they
/// leave outside the directory. The latter is tried though the former fails.
pub(crate) async fn kill(dir: &Path) -> Result<(), HypervisorError> {
    let mut groups = Vec::new();
    let ended = end(dir, &mut groups).await;
    let removed = firecracker::remove_remains(dir, &groups).await;
    ended.and(removed.map_err(HypervisorError::io("removing what a machine leaves")))
}

/// Ends every process of the machine in `dir` and notes their control groups.
async fn end(dir: &Path, groups: &mut Vec<String>) -> Result<(), HypervisorError> {
    let failed = |source| HypervisorError::Io { what: "ending the process".into(), source };
    for marks in DRIVERS {
        // A start that was abandoned may have left a jailer, which starts the monitor while it is being ended.
        while let Some(process) = Process::locate(dir, marks).map_err(failed)? {
            groups.extend(process.groups());
            process.kill().map_err(failed)?;
            let ended = timeout(KILL_LIMIT, process.wait()).await;
            ended.map_err(|_| HypervisorError::Timeout("ending the process"))?.map_err(failed)?;
            forget(dir, marks).map_err(failed)?;
        }
        forget(dir, marks).map_err(failed)?;
    }
    Ok(())
}

/// Ids of the machines in directories under `parent` that have a process, whichever driver started it.
pub(crate) fn find(parent: &Path) -> Vec<VmId> {
    let parent = canonical(parent);
    let known = DRIVERS.into_iter().flat_map(all).filter_map(|process| {
        process.inspect_err(|error| tracing::warn!(%error, "cannot tell whose process one is")).ok()
    });
    known.filter(|process| process.dir.parent() == Some(&parent)).map(|process| process.id).collect()
}

/// A process that looks like a machine's.
struct Candidate {
    id: VmId,
    identity: Identity,
    dir: PathBuf,
}

/// Every machine's process on this host that this user can see into.
fn all(marks: &Marks) -> impl Iterator<Item = io::Result<Candidate>> {
    let (numbers, failure) = match numbers() {
        Ok(numbers) => (numbers, None),
        Err(error) => (Vec::new(), Some(Err(error))),
    };
    failure.into_iter().chain(numbers.into_iter().filter_map(|pid| candidate(pid, marks).transpose()))
}

fn candidate(pid: i32, marks: &Marks) -> io::Result<Option<Candidate>> {
    let Some(command_line) = visible(fs::read(format!("/proc/{pid}/cmdline")))? else { return Ok(None) };
    let Some(id) = (marks.named)(&command_line) else { return Ok(None) };
    let (identity, dir) = (Identity::of(pid)?, directory(pid, marks)?);
    Ok(identity.zip(dir).map(|(identity, dir)| Candidate { id, identity, dir }))
}

/// What was read of a process; `None` of one that has ended, or that cannot be a machine's: another user's, or with a path
/// that is too long.
fn visible<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::InvalidFilename) => Ok(None),
        read => present(read),
    }
}

/// The directory of the file that a machine's process has as its standard output. It may have been removed.
fn directory(pid: i32, marks: &Marks) -> io::Result<Option<PathBuf>> {
    let Some(output) = visible(fs::read_link(format!("/proc/{pid}/fd/1")))? else { return Ok(None) };
    let name = output.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name = name.strip_suffix(" (deleted)").unwrap_or(name);
    Ok(output.parent().filter(|_| name == marks.output).map(Path::to_owned))
}

/// The path as `/proc` shows it. The last component may be gone.
fn canonical(dir: &Path) -> PathBuf {
    if let Ok(path) = fs::canonicalize(dir) {
        return path;
    }
    match (dir.parent().map(fs::canonicalize), dir.file_name()) {
        (Some(Ok(parent)), Some(name)) => parent.join(name),
        _ => dir.to_owned(),
    }
}

#[cfg(test)]
mod tests;
