//! Names in a machine's directory.

use std::path::{Path, PathBuf};

use super::arguments::NAME_PREFIX;
use crate::hypervisor::{Log, Port, VmId};
use crate::process::Marks;

/// Name of the file that takes the process's standard output. A process is known by it.
const STDOUT: &str = "qemu.stdout.log";

/// What marks a process of this driver.
pub(crate) const MARKS: Marks = Marks { file: "qemu.pid", output: STDOUT, named };

/// The VM in the `-name` of a command line.
fn named(command_line: &[u8]) -> Option<VmId> {
    let mut words = command_line.split(|byte| *byte == 0);
    words.find(|word| *word == b"-name")?;
    std::str::from_utf8(words.next()?).ok()?.strip_prefix(NAME_PREFIX)?.parse().ok()
}

/// The machine's one monitor.
pub(super) fn qmp(dir: &Path) -> PathBuf {
    dir.join("qmp.sock")
}

/// One direction of the guest channel.
pub(super) fn port(dir: &Path, port: Port) -> PathBuf {
    dir.join(match port {
        Port::In => "in.sock",
        Port::Out => "out.sock",
    })
}

/// A log.
pub(super) fn log(dir: &Path, log: Log) -> PathBuf {
    dir.join(match log {
        Log::Serial => "serial.log",
        Log::Stdout => STDOUT,
        Log::Stderr => "qemu.stderr.log",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_machines() {
        let id = "6c0b0d0e-4d8c-4e4a-9f0b-0a1b2c3d4e5f";
        let named = |text: String| named(text.replace(' ', "\0").as_bytes()).map(|id| id.to_string());
        assert_eq!(named(format!("qemu -name rds-{id} -m 1")).as_deref(), Some(id));
        assert_eq!(named(format!("qemu -name other-{id}")), None);
        assert_eq!(named(format!("vi rds-{id}")), None);
        assert_eq!(named("qemu -name".into()), None);
    }
}
