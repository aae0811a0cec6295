//! Processes of a server, found by the files that they hold open.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// Every process that holds a file under `root` open, except the one with number `except`.
pub(crate) fn holding(root: &Path, except: Option<u32>) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter(|pid| *pid != std::process::id() && Some(*pid) != except && holds(*pid, root)).collect()
}

fn holds(pid: u32, root: &Path) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target.starts_with(root)))
}

/// Ends a process at once.
pub(crate) fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}

/// Sends a signal to a process.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let number = i32::try_from(pid).expect("process numbers are small");
    let _ = kill_process(Pid::from_raw(number).expect("process numbers are positive"), signal);
}

/// Resident memory of a process in bytes that is its own: the pages of its program, which grows with what is compiled into it,
/// are a file's.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}
