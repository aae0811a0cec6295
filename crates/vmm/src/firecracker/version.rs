//! The versions of Firecracker and its jailer.

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
    /// Patch level.
    pub patch: u32,
}

impl Version {
    /// The oldest version that the driver is made for.
    pub const OLDEST: Self = Self { major: 1, minor: 16, patch: 1 };

    /// Reads the first line of `--version`, which is `name`, ` v` and the version.
    fn parse(text: &str, name: &str) -> Option<Self> {
        let numbers = text.lines().next()?.strip_prefix(name)?.strip_prefix(" v")?;
        let numbers = numbers.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
        let mut numbers = numbers.split('.').map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Self { major: next()?, minor: next()?, patch: next()? })
    }

    /// Asks `program`, which calls itself `name`.
    async fn of(program: &Path, name: &str) -> Result<Self, HypervisorError> {
        let failed = |source| HypervisorError::Spawn { program: program.into(), source };
        let mut command = Command::new(program);
        command.arg("--version").env_clear().stdin(Stdio::null()).kill_on_drop(true);
        let output = timeout(LIMIT, command.output()).await;
        let output = output.map_err(|_| HypervisorError::Timeout("printing its version"))?.map_err(failed)?;
        let text = String::from_utf8_lossy(&output.stdout);
        Self::parse(&text, name)
            .ok_or_else(|| failed(std::io::Error::other(format!("it does not say that it is {name}"))))
    }

    /// The common version of both programs; refuses those that are too old, or of different releases.
    pub(super) async fn of_both(firecracker: &Path, jailer: &Path) -> Result<Self, HypervisorError> {
        let version = Self::of(firecracker, "Firecracker").await?;
        let jailer_version = Self::of(jailer, "Jailer").await?;
        let refused = |message: String| {
            Err(HypervisorError::Spawn { program: firecracker.into(), source: std::io::Error::other(message) })
        };
        match version {
            old if old < Self::OLDEST => refused(format!("its version {old} is older than {}", Self::OLDEST)),
            other if other != jailer_version => {
                refused(format!("its version is {other} and that of its jailer {jailer_version}"))
            }
            version => Ok(version),
        }
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
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn releases_are_read() {
        let parse = |text| Version::parse(text, "Firecracker").map(|version| version.to_string());
        assert_eq!(parse("Firecracker v1.16.1\n\nexiting").as_deref(), Some("1.16.1"));
        assert_eq!(parse("Firecracker v1.17.0-dev\n").as_deref(), Some("1.17.0"));
        assert_eq!(parse("Jailer v1.16.1\n"), None);
        assert_eq!(parse("Firecracker v1.16\n"), None);
        assert!(Version::parse("Firecracker v1.9.12", "Firecracker") < Some(Version::OLDEST));
    }

    #[tokio::test]
    async fn a_wrong_version_is_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let program = |name: &str, says: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        let old = program("old", "Firecracker v1.15.0");
        let new = program("new", "Firecracker v1.16.2");
        let jailer = program("jailer", "Jailer v1.16.1");
        let of = async |firecracker: &Path| Version::of_both(firecracker, &jailer).await.unwrap_err().to_string();
        assert!(of(&old).await.ends_with("its version 1.15.0 is older than 1.16.1"));
        assert!(of(&new).await.ends_with("its version is 1.16.2 and that of its jailer 1.16.1"));
        assert!(of(Path::new("/nonexistent")).await.contains("No such file"));
        assert!(of(&jailer).await.ends_with("it does not say that it is Firecracker"));
    }
}
