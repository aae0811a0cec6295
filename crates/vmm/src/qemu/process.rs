//! Which process is a machine's: found again after the manager was killed, and never confused with another.
//!
//! A process is identified by its standard output, which is a file in the machine's directory: no other user can have
//! that file open, and two managers have different directories. The process file (pid and start time) only saves the
//! search.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::arguments::NAME_PREFIX;
use super::files;
use super::memory::GuestMemory;
use crate::hypervisor::VmId;

/// A process that is a machine's, held by a descriptor: it stays this one even if its number is used again.
#[derive(Debug)]
pub(super) struct Process {
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
    pub(super) fn locate(dir: &Path) -> Option<Self> {
        let recorded = fs::read_to_string(files::process(dir)).ok().and_then(|text| Identity::parse(&text));
        match recorded {
            Some(identity) => Self::open(identity, &canonical(dir)),
            None => {
                let dir = canonical(dir);
                all().filter(|process| process.dir == dir).find_map(|process| Self::open(process.identity, &dir))
            }
        }
    }

    /// Holds the process with this identity if it is there and belongs to `dir` (canonical).
    fn open(identity: Identity, dir: &Path) -> Option<Self> {
        let held = pidfd_open(Pid::from_raw(identity.pid)?, PidfdFlags::NONBLOCK).ok()?;
        // Only what is read after the process is held is about the held process.
        let same = Identity::of(identity.pid)? == identity && directory(identity.pid)? == dir;
        same.then_some(Self { held, pid: identity.pid })
    }

    /// Ends the process at once, without waiting.
    pub(super) fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.held, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The guest's memory.
    pub(super) fn memory(&self) -> io::Result<GuestMemory> {
        GuestMemory::of(self.pid)
    }

    /// Waits until the process has ended.
    pub(super) async fn wait(self) -> io::Result<()> {
        // SAFETY: an owned descriptor stays the same one, open, until the registration drops it.
        let ended = unsafe { AsyncFd::register_with_interest(self.held, Interest::READABLE) }?;
        ended.readable().await?.retain_ready();
        Ok(())
    }
}

impl Identity {
    /// The identity of a process that has not ended.
    fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self { pid, start: start_time(&stat)? })
    }

    fn parse(text: &str) -> Option<Self> {
        let (pid, start) = text.trim().split_once(' ')?;
        Some(Self { pid: pid.parse().ok()?, start: start.parse().ok()? })
    }
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

/// Records the process of the machine in `dir`, all or nothing.
pub(super) fn record(dir: &Path, pid: u32) -> io::Result<()> {
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    // One that has ended already is found out by whoever waits for it.
    let start = Identity::of(pid).map_or(0, |identity| identity.start);
    let (path, draft) = (files::process(dir), dir.join("process.new"));
    fs::write(&draft, format!("{pid} {start}\n"))?;
    fs::rename(draft, path)
}

/// Forgets the process of the machine in `dir`.
pub(super) fn forget(dir: &Path) -> io::Result<()> {
    match fs::remove_file(files::process(dir)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Ids of the machines in directories under `parent` that have a process.
pub(super) fn find(parent: &Path) -> Vec<VmId> {
    let parent = canonical(parent);
    all().filter(|process| process.dir.parent() == Some(&parent)).map(|process| process.id).collect()
}

/// A process that looks like a machine's.
struct Candidate {
    id: VmId,
    identity: Identity,
    dir: PathBuf,
}

/// Every machine's process on this host that this user can see into.
fn all() -> impl Iterator<Item = Candidate> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let id = name(&fs::read(entry.path().join("cmdline")).ok()?)?;
        Some(Candidate { id, identity: Identity::of(pid)?, dir: directory(pid)? })
    })
}

/// The VM in the `-name` of a command line.
fn name(command_line: &[u8]) -> Option<VmId> {
    let mut words = command_line.split(|byte| *byte == 0);
    words.find(|word| *word == b"-name")?;
    std::str::from_utf8(words.next()?).ok()?.strip_prefix(NAME_PREFIX)?.parse().ok()
}

/// The directory of the file that a machine's process has as its standard output. It may have been removed.
fn directory(pid: i32) -> Option<PathBuf> {
    let output = fs::read_link(format!("/proc/{pid}/fd/1")).ok()?;
    let name = output.file_name()?.to_str()?;
    let name = name.strip_suffix(" (deleted)").unwrap_or(name);
    (name == files::STDOUT).then(|| output.parent().map(Path::to_owned))?
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
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_move_the_fields() {
        let rest = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(start_time(&format!("12 (a) b (c) S {rest}")), Some(4711));
        assert_eq!(start_time(&format!("12 (qemu) Z {rest}")), None);
        assert_eq!(start_time("12 (qemu) S 1 2"), None);
        assert_eq!(start_time(""), None);
    }

    #[test]
    fn only_our_own_names_are_machines() {
        let id = "6c0b0d0e-4d8c-4e4a-9f0b-0a1b2c3d4e5f";
        let named = |text: String| name(text.replace(' ', "\0").as_bytes()).map(|id| id.to_string());
        assert_eq!(named(format!("qemu -name rds-{id} -m 1")).as_deref(), Some(id));
        assert_eq!(named(format!("qemu -name other-{id}")), None);
        assert_eq!(named(format!("vi rds-{id}")), None);
        assert_eq!(named("qemu -name".into()), None);
    }

    #[test]
    fn another_process_is_never_taken_for_a_machine() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Process::locate(dir.path()).is_none(), "no process file");
        record(dir.path(), std::process::id()).unwrap();
        assert!(Process::locate(dir.path()).is_none(), "alive, but its output is elsewhere");
        fs::write(files::process(dir.path()), "not numbers").unwrap();
        assert!(Process::locate(dir.path()).is_none());
        forget(dir.path()).unwrap();
        forget(dir.path()).unwrap();
    }
}
