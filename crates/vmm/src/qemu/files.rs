//! Names in a machine's directory.

use std::path::{Path, PathBuf};

use crate::hypervisor::{Log, Port};

/// Name of the file that takes the process's standard output. A process is known by it.
pub(super) const STDOUT: &str = "qemu.stdout.log";

/// Number and start time of the process.
pub(super) fn process(dir: &Path) -> PathBuf {
    dir.join("qemu.pid")
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
