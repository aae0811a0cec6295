//! Versions of virtual machine monitors, as their programs print them.

use std::fmt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::HypervisorError;

/// Time for a program to print its version; it takes some milliseconds, or a second from a cold disk.
const LIMIT: Duration = Duration::from_secs(10);

/// A version, ordered as one expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Patch level; 0 where none is printed.
    pub patch: u32,
}

impl Version {
    /// The version at the beginning of a text, if two or three numbers are.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let numbers = text.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
        let mut numbers = numbers.split('.').map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Self { major: next()?, minor: next()?, patch: next().unwrap_or(0) })
    }

    /// Asks a program: the version that follows `prefix` in what it prints for `--version`.
    pub(crate) async fn of(program: &Path, prefix: &str) -> Result<Self, HypervisorError> {
        let failed = |source| HypervisorError::Spawn { program: program.into(), source };
        let mut command = Command::new(program);
        // Nothing else of this program's environment is a monitor's to see.
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
        let output = timeout(LIMIT, command.output()).await;
        let output = output.map_err(|_| HypervisorError::Timeout("printing its version"))?.map_err(failed)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.strip_prefix(prefix).and_then(Self::read);
        version.ok_or_else(|| failed(std::io::Error::other(format!("it does not print `{prefix}` and a version"))))
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
    fn versions_are_read() {
        let read = |text| Version::read(text).map(|version| version.to_string());
        assert_eq!(read("7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nC").as_deref(), Some("7.2.22"));
        assert_eq!(read("9.1").as_deref(), Some("9.1.0"));
        assert_eq!(read("1.17.0-dev\n\nexiting").as_deref(), Some("1.17.0"));
        assert_eq!(read("x"), None);
        assert_eq!(read("7"), None);
        assert!(Version::read("10.0.2") > Version::read("9.12.3"));
    }
}
