//! Which process is a machine's: found again after the manager was killed, and never confused with another.
//!
//! A process is identified by its number, its start time and the host's boot, which its process file in the machine's
//! directory has: nothing that the process does to itself changes them. One whose manager died before it wrote that file
//! is found by its standard output, which is a file in the machine's directory: no other user can have that file open, and
//! two managers have different directories. This module must not know what the process does; a driver tells what marks its
//! own with [`Marks`].

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, setpriority_process};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::hypervisor::VmId;

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
    pub(crate) fn locate(dir: &Path, marks: &Marks) -> Option<Self> {
        let recorded = fs::read_to_string(dir.join(marks.file)).ok().and_then(|text| Identity::parse(&text, &boot()));
        match recorded {
            Some(identity) => Self::hold(identity),
            None => Self::search(&canonical(dir), marks),
        }
    }

    /// The process of the machine in `dir` (canonical), found among all of this host.
    fn search(dir: &Path, marks: &Marks) -> Option<Self> {
        let found = all(marks).filter(|process| process.dir == dir);
        // What is read of a process after it is held is about the held one.
        let mut held = found.filter_map(|found| Self::hold(found.identity));
        held.find(|process| directory(process.pid, marks).is_some_and(|output| output == dir))
    }

    /// The process that has this directory as its root and is the first of a process namespace: when it ends, all others
    /// in there end. `hint` may be its number.
    pub(crate) fn rooted(root: impl AsFd, hint: Option<i32>) -> Option<Self> {
        let wanted = rustix::fs::fstat(root).ok()?;
        hint.into_iter().chain(numbers()).find_map(|pid| {
            let process = Self::hold(Identity::of(pid)?)?;
            let found = rustix::fs::stat(format!("/proc/{pid}/root/")).ok()?;
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let same = (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino);
            (same && is_first_of_namespace(&status) && process.is_there()).then_some(process)
        })
    }

    /// The process with this number, whoever it is.
    #[cfg(test)]
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        Some(Self { held: pidfd_open(Pid::from_raw(pid)?, PidfdFlags::NONBLOCK).ok()?, pid })
    }

    /// Holds the process with this identity if it is there.
    fn hold(identity: Identity) -> Option<Self> {
        let held = pidfd_open(Pid::from_raw(identity.pid)?, PidfdFlags::NONBLOCK).ok()?;
        // Only what is read after the process is held is about the held process.
        (Identity::of(identity.pid)? == identity).then_some(Self { held, pid: identity.pid })
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

    /// The directory that it has as its root.
    pub(crate) fn root(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(format!("/proc/{}/root/", self.pid), flags, Mode::empty())?;
        if self.is_there() { Ok(root) } else { Err(ErrorKind::NotFound.into()) }
    }

    /// Ends the process at once, without waiting.
    pub(crate) fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.held, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
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
    fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self { pid, start: start_time(&stat)? })
    }

    /// What [`record`] wrote, if that was during this boot.
    fn parse(text: &str, this_boot: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let (pid, start, boot) = (words.next()?, words.next()?, words.next()?);
        (boot == this_boot).then_some(Self { pid: pid.parse().ok()?, start: start.parse().ok()? })
    }
}

/// A name of the host's boot. Numbers and start times begin anew with each.
fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The numbers of all processes that this one sees.
fn numbers() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
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

/// Records the process of the machine in `dir`, all or nothing.
pub(crate) fn record(dir: &Path, pid: u32, marks: &Marks) -> io::Result<()> {
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    // One that has ended already is found out by whoever waits for it.
    let start = Identity::of(pid).map_or(0, |identity| identity.start);
    let (path, draft) = (dir.join(marks.file), dir.join("process.new"));
    fs::write(&draft, format!("{pid} {start} {}\n", boot()))?;
    fs::rename(draft, path)
}

/// Forgets the process of the machine in `dir`.
pub(crate) fn forget(dir: &Path, marks: &Marks) -> io::Result<()> {
    match fs::remove_file(dir.join(marks.file)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Ids of the machines in directories under `parent` that have a process.
pub(crate) fn find(parent: &Path, marks: &Marks) -> Vec<VmId> {
    let parent = canonical(parent);
    all(marks).filter(|process| process.dir.parent() == Some(&parent)).map(|process| process.id).collect()
}

/// A process that looks like a machine's.
struct Candidate {
    id: VmId,
    identity: Identity,
    dir: PathBuf,
}

/// Every machine's process on this host that this user can see into.
fn all(marks: &Marks) -> impl Iterator<Item = Candidate> {
    numbers().filter_map(|pid| {
        let id = (marks.named)(&fs::read(format!("/proc/{pid}/cmdline")).ok()?)?;
        Some(Candidate { id, identity: Identity::of(pid)?, dir: directory(pid, marks)? })
    })
}

/// The directory of the file that a machine's process has as its standard output. It may have been removed.
fn directory(pid: i32, marks: &Marks) -> Option<PathBuf> {
    let output = fs::read_link(format!("/proc/{pid}/fd/1")).ok()?;
    let name = output.file_name()?.to_str()?;
    let name = name.strip_suffix(" (deleted)").unwrap_or(name);
    (name == marks.output).then(|| output.parent().map(Path::to_owned))?
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
    fn only_the_first_of_a_namespace_is() {
        assert!(is_first_of_namespace("Name:\tx\nNSpid:\t4711\t1\n"));
        for other in ["NSpid:\t4711\n", "NSpid:\t4711\t2\n", "NSpid:\t4711\t7\t1\n", "NSpid:\t1\n", ""] {
            assert!(!is_first_of_namespace(other), "{other}");
        }
    }

    const MARKS: Marks = Marks { file: "pid", output: "log", named: |_| None };

    #[test]
    fn a_process_is_known_by_its_root() {
        let root = fs::File::open("/").unwrap();
        let process = Process::of(std::process::id()).unwrap();
        let (found, wanted) = (rustix::fs::fstat(process.root().unwrap()), rustix::fs::fstat(root));
        assert_eq!(found.unwrap().st_ino, wanted.unwrap().st_ino);
    }

    #[test]
    fn another_process_is_never_taken_for_a_machine() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Process::locate(dir.path(), &MARKS).is_none(), "no process file");
        record(dir.path(), std::process::id(), &MARKS).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(Process::locate(dir.path(), &MARKS).unwrap().pid(), own);
        let recorded = fs::read_to_string(dir.path().join(MARKS.file)).unwrap();
        let earlier = recorded.replace(&boot(), "4e0a5e1c-d4f3-4ba1-9a5e-f1c5a2f3b0d7");
        fs::write(dir.path().join(MARKS.file), earlier).unwrap();
        assert!(Process::locate(dir.path(), &MARKS).is_none(), "of another boot");
        fs::write(dir.path().join(MARKS.file), recorded.replacen(' ', " 1", 1)).unwrap();
        assert!(Process::locate(dir.path(), &MARKS).is_none(), "of another time");
        fs::write(dir.path().join(MARKS.file), "not numbers").unwrap();
        assert!(Process::locate(dir.path(), &MARKS).is_none());
        forget(dir.path(), &MARKS).unwrap();
        forget(dir.path(), &MARKS).unwrap();
    }
}
