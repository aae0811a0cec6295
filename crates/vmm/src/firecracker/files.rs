//! Names in a machine's directory.

use std::path::{Path, PathBuf};

use crate::hypervisor::{Log, VmId};
use crate::process::Marks;

/// What marks a process of this driver: its standard output is the guest's console.
pub(crate) const MARKS: Marks = Marks { file: "firecracker.pid", output: CONSOLE, named };

const CONSOLE: &str = "firecracker.console.log";

/// Where a monitor writes a snapshot's memory and devices, until they are taken. It has both files open for ever.
pub(super) fn new_memory(dir: &Path) -> PathBuf {
    dir.join("firecracker.memory")
}

pub(super) fn new_state(dir: &Path) -> PathBuf {
    dir.join("firecracker.state")
}

/// What the machine's memory was when its monitor began to count the pages that are written: that of the snapshot from which
/// it came up, or of its last one, or nothing if it was booted. Missing where that is not known. The monitor never sees this
/// name.
pub(super) fn base(dir: &Path) -> PathBuf {
    dir.join("firecracker.base")
}

/// Links to the machine's jail and to its control group, wherever they are. The monitor never sees these names.
pub(super) fn jail(dir: &Path) -> PathBuf {
    dir.join("firecracker.jail")
}

pub(super) fn group(dir: &Path) -> PathBuf {
    dir.join("firecracker.group")
}

/// The pipe for what a monitor counts.
pub(super) fn metrics(dir: &Path) -> PathBuf {
    dir.join("firecracker.metrics")
}

/// A log. None of them lies where the monitor could put something else in its place.
pub(super) fn log(dir: &Path, log: Log) -> PathBuf {
    dir.join(match log {
        Log::Serial => CONSOLE,
        Log::Stdout => "firecracker.log",
        Log::Stderr => "firecracker.stderr.log",
    })
}

/// The VM in the `--id` of a command line.
fn named(command_line: &[u8]) -> Option<VmId> {
    let mut words = command_line.split(|byte| *byte == 0);
    words.find(|word| *word == b"--id")?;
    std::str::from_utf8(words.next()?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_of_vms_are_machines() {
        let id = "6c0b0d0e-4d8c-4e4a-9f0b-0a1b2c3d4e5f";
        let named = |text: String| named(text.replace(' ', "\0").as_bytes()).map(|id| id.to_string());
        assert_eq!(named(format!("/firecracker --id {id} --start-time-us 1")).as_deref(), Some(id));
        assert_eq!(named("/firecracker --id other".into()), None);
        assert_eq!(named("/firecracker --id".into()), None);
    }
}
