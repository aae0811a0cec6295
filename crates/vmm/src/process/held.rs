//! A process, held so that it stays the same one, and what the kernel says of it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Bytes of a file under `/proc` that are read; one that is larger is cut.
const MOST: u64 = 64 * 1024;

/// A process that is a machine's, held by a descriptor: it stays this one even if its number is used again.
#[derive(Debug)]
pub(crate) struct Process {
    held: OwnedFd,
    pid: i32,
}

/// Number and start time (clock ticks since the host's boot) of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) pid: i32,
    pub(super) start: u64,
}

impl Process {
    /// The process that has this directory as its root and is the first of a process namespace: when it ends, all others
    /// in there end. `hint` may be its number.
    pub(crate) fn rooted(root: impl AsFd, hint: Option<i32>) -> io::Result<Option<Self>> {
        let wanted = rustix::fs::fstat(root)?;
        let rooted = |pid: i32| {
            let process = Self::hold(Identity::of(pid).ok()??).ok()??;
            let found = rustix::fs::stat(format!("/proc/{pid}/root/")).ok()?;
            let status = text(format!("/proc/{pid}/status")).ok()?;
            let same = (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino);
            (same && is_first_of_namespace(&status) && process.is_there()).then_some(process)
        };
        match hint.and_then(rooted) {
            None => Ok(numbers()?.into_iter().find_map(rooted)),
            hinted => Ok(hinted),
        }
    }

    /// The process with this number, whoever it is.
    #[cfg(test)]
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        Some(Self { held: pidfd_open(Pid::from_raw(pid)?, PidfdFlags::NONBLOCK).ok()?, pid })
    }

    /// Holds the process with this identity if it is there.
    pub(super) fn hold(identity: Identity) -> io::Result<Option<Self>> {
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
        let status = text(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let swapped = status.lines().find_map(|line| line.strip_prefix("VmSwap:"));
        swapped.is_none_or(|kib| kib.trim() != "0 kB")
    }

    /// Its control groups, as `/proc/PID/cgroup` has them; nothing if it has ended.
    pub(super) fn groups(&self) -> Option<String> {
        text(format!("/proc/{}/cgroup", self.pid)).ok().filter(|_| self.is_there())
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
    pub(super) fn of(pid: i32) -> io::Result<Option<Self>> {
        let stat = present(text(format!("/proc/{pid}/stat")))?;
        Ok(stat.and_then(|stat| start_time(&stat)).map(|start| Self { pid, start }))
    }

    /// What [`super::record`] wrote, if that was during this boot.
    pub(super) fn parse(text: &str, this_boot: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let (pid, start, boot) = (words.next()?, words.next()?, words.next()?);
        (boot == this_boot).then_some(Self { pid: pid.parse().ok()?, start: start.parse().ok()? })
    }
}

/// A name of the host's boot. Numbers and start times begin anew with each.
pub(super) fn boot() -> io::Result<&'static str> {
    static BOOT: OnceLock<String> = OnceLock::new();
    if let Some(boot) = BOOT.get() {
        return Ok(boot);
    }
    let boot = text("/proc/sys/kernel/random/boot_id")?;
    Ok(BOOT.get_or_init(|| boot.trim().to_owned()))
}

/// A small file's content. The size of what is under `/proc` is not known before it is read; mostly this takes one read and
/// one that finds the end.
pub(crate) fn text(path: impl AsRef<Path>) -> io::Result<String> {
    let mut text = String::with_capacity(4096);
    File::open(path)?.take(MOST).read_to_string(&mut text)?;
    Ok(text)
}

/// Whether this is how it shows that a file or a process is not there.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

/// What was read of a process; `None` of one that has ended.
pub(super) fn present<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The numbers of all processes that this one sees.
pub(super) fn numbers() -> io::Result<Vec<i32>> {
    let number = |name: OsString| name.to_str()?.parse().ok();
    fs::read_dir("/proc")?.filter_map(|entry| entry.map(|entry| number(entry.file_name())).transpose()).collect()
}

/// Whether a process is number 1 in a namespace right below this process's, by its `/proc/<pid>/status`.
fn is_first_of_namespace(status: &str) -> bool {
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    numbers.split_ascii_whitespace().skip(1).eq(["1"])
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
}
