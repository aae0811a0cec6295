//! Which versions of Firecracker the driver is made for.

use std::path::Path;

use crate::{HypervisorError, Version};

/// The oldest one.
pub const OLDEST: Version = Version { major: 1, minor: 16, patch: 1 };

/// The common version of both programs, which it runs; refuses those that are too old, or of different releases.
pub async fn of_both(firecracker: &Path, jailer: &Path) -> Result<Version, HypervisorError> {
    let version = Version::of(firecracker, "Firecracker v").await?;
    let jailer_version = Version::of(jailer, "Jailer v").await?;
    let refused = |message: String| {
        Err(HypervisorError::Spawn { program: firecracker.into(), source: std::io::Error::other(message) })
    };
    match version {
        old if old < OLDEST => refused(format!("its version {old} is older than {}", OLDEST)),
        other if other != jailer_version => {
            refused(format!("its version is {other} and that of its jailer {jailer_version}"))
        }
        version => Ok(version),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

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
        let of = async |firecracker: &Path| of_both(firecracker, &jailer).await.unwrap_err().to_string();
        assert!(of(&old).await.ends_with("its version 1.15.0 is older than 1.16.1"));
        assert!(of(&new).await.ends_with("its version is 1.16.2 and that of its jailer 1.16.1"));
        assert!(of(Path::new("/nonexistent")).await.contains("No such file"));
        assert!(of(&jailer).await.ends_with("it does not print `Firecracker v` and a version"));
    }
}
