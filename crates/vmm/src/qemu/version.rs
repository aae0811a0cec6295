//! The version of a QEMU program.

use std::fmt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::HypervisorError;

/// Time for the program to print its version; it takes 20 ms, or a second from a cold disk.
const LIMIT: Duration = Duration::from_secs(10);

/// A version, ordered as one expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Patch level.
    pub patch: u32,
}

impl Version {
    /// The oldest version that the driver is made for (Debian 12).
    pub const OLDEST: Self = Self { major: 7, minor: 2, patch: 0 };

    /// From this version on a read-only file can back writable private memory (`rom=off`).
    pub(super) const READ_ONLY_TEMPLATES: Self = Self { major: 8, minor: 2, patch: 0 };

    /// Reads the first line of `qemu-system-x86_64 --version`.
    pub fn parse(text: &str) -> Option<Self> {
        let numbers = text.strip_prefix("QEMU emulator version ")?;
        let numbers = numbers.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
        let mut numbers = numbers.split('.').map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Self { major: next()?, minor: next()?, patch: next().unwrap_or(0) })
    }

    /// Asks a program.
    pub async fn of(program: &Path) -> Result<Self, HypervisorError> {
        let spawn = |source| HypervisorError::Spawn { program: program.into(), source };
        let mut command = Command::new(program);
        command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
        let output = timeout(LIMIT, command.output()).await;
        let output = output.map_err(|_| HypervisorError::Timeout("printing its version"))?.map_err(spawn)?;
        let text = String::from_utf8_lossy(&output.stdout);
        Self::parse(&text).ok_or_else(|| spawn(std::io::Error::other("it does not print a QEMU version")))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_versions_are_read() {
        let parse = |text| Version::parse(text).map(|version| version.to_string());
        assert_eq!(parse("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nC").as_deref(), Some("7.2.22"));
        assert_eq!(parse("QEMU emulator version 10.0.2").as_deref(), Some("10.0.2"));
        assert_eq!(parse("QEMU emulator version 9.1").as_deref(), Some("9.1.0"));
        assert_eq!(parse("qemu-img version 7.2.22"), None);
        assert_eq!(parse("QEMU emulator version x"), None);
        assert!(Version::parse("QEMU emulator version 10.0.2") > Some(Version::READ_ONLY_TEMPLATES));
    }
}
