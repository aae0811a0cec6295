//! Which process is a machine's: found again after the manager was killed, and never confused with another.
//!
//! A process is identified by its number, its start time and the host's boot, which its process file in the machine's
//! directory has: nothing that the process does to itself changes them. The file is there, and empty, before the process is.
//! One whose manager died before it filled that file is found among all of the host by its standard output, which is a file
//! in the machine's directory: no other user can have that file open, and two managers have different directories. This module must not know what the process does; a driver tells what marks its
//! own with [`Marks`]. What ends machines looks for those of every driver: the one that runs them now may not be the one
//! that started them.
//!
//! That a process has ended is only said if it is known: with no descriptor left, for one, nothing of it can be read.

mod held;
mod spawn;

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, getpriority_process, setpriority_process, setrlimit, setsid, umask};
use tokio::time::{sleep, timeout};

use held::{Identity, boot, numbers, present};
pub(crate) use held::{Process, text};
pub(crate) use spawn::{Child, spawn};

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

impl Process {
    /// The running process of the machine in `dir`, if there is one.
    pub(crate) fn locate(dir: &Path, marks: &Marks) -> io::Result<Option<Self>> {
        let recorded = match present(text(dir.join(marks.file)))? {
            Some(text) => Identity::parse(&text, boot()?),
            None if fs::exists(dir)? => return Ok(None),
            None => None,
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
                && directory(held.pid(), marks)?.is_some_and(|output| output == dir)
            {
                return Ok(Some(held));
            }
        }
        Ok(None)
    }
}

/// Sets this process, which is to be a monitor, apart from the manager: in a session of its own, with files that are nobody
/// else's and no core dump, which would hold the guest's secrets. In the `background` it yields the processors. Makes system
/// calls alone, so it may be called between fork and exec.
pub(crate) fn set_apart(background: bool) -> io::Result<()> {
    setsid()?;
    if background {
        yield_processors()?;
    }
    umask(Mode::from_raw_mode(0o077));
    limit(Resource::Core, 0)
}

/// Gives this process no more of a resource, for good. Makes one system call.
pub(crate) fn limit(resource: Resource, value: u64) -> io::Result<()> {
    Ok(setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })?)
}

/// Makes this process, and what it starts, yield the processors. Another process of the same need gets three times as
/// much; one that yields more would never end on a busy host. Where sessions are scheduled as groups, a process's own
/// priority counts only within its session.
fn yield_processors() -> io::Result<()> {
    // From where the server is: nobody may go back without a capability, which it need not have.
    setpriority_process(None, getpriority_process(None)?.saturating_add(5).min(19))?;
    if let Ok(group) = rustix::fs::open(c"/proc/self/autogroup", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        // The system bounds how often this may be done; the machine is only less polite then.
        let _ = rustix::io::write(&group, b"5");
    }
    Ok(())
}

/// Notes that the machine in `dir` may have a process from now on, which is looked for until it is recorded or forgotten.
pub(crate) fn announce(dir: &Path, marks: &Marks) -> io::Result<()> {
    fs::write(dir.join(marks.file), "")
}

/// Records the process of the machine in `dir`. One that has ended already is found out by whoever waits for it; of a record
/// that was cut off nothing is believed.
pub(crate) fn record(dir: &Path, pid: u32, marks: &Marks) -> io::Result<()> {
    let Some(Identity { pid, start }) = Identity::of(i32::try_from(pid).map_err(io::Error::other)?)? else {
        return Ok(());
    };
    fs::write(dir.join(marks.file), format!("{pid} {start} {}\n", boot()?))
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
        }
        forget(dir, marks).map_err(failed)?;
    }
    Ok(())
}

/// Ids of the machines in directories under `parent` that have a process, whichever driver started it. One that nobody has
/// announced, as by an older server, is announced, so that it is found again when it is to be ended.
pub(crate) fn find(parent: &Path) -> Vec<VmId> {
    let parent = canonical(parent);
    let mut found = Vec::new();
    for marks in DRIVERS {
        let known = all(marks).filter_map(|process| {
            process.inspect_err(|error| tracing::warn!(%error, "cannot tell whose process one is")).ok()
        });
        for process in known.filter(|process| process.dir.parent() == Some(&parent)) {
            let announced = match fs::exists(process.dir.join(marks.file)) {
                Ok(false) if process.dir.exists() => announce(&process.dir, marks),
                other => other.map(drop),
            };
            if let Err(error) = announced {
                tracing::warn!(%error, dir = %process.dir.display(), "cannot note that a machine has a process");
            }
            found.push(process.id);
        }
    }
    found
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
