//! A small disk for a server, which a test makes full and gives room again.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

/// What `needs` says of a test that mounts one.
pub(crate) const MOUNTS: &str = "mounts";

/// Why there can be none on this machine.
pub(crate) fn missing() -> Option<&'static str> {
    static MAY: LazyLock<bool> = LazyLock::new(|| {
        let mut try_it = Command::new("unshare");
        try_it.args(["--mount", "mount", "-t", "tmpfs", "none", "/mnt"]).stdout(Stdio::null()).stderr(Stdio::null());
        try_it.status().is_ok_and(|status| status.success())
    });
    (!*MAY).then_some("root is needed for a small disk")
}

/// A filesystem in memory. Dropping it takes it away.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Puts one of so many bytes over a directory.
    pub(crate) fn over(dir: &Path, bytes: u64) -> Self {
        mount(&["-t", "tmpfs", "-o", &format!("size={bytes},mode=0755"), "none"], dir);
        Self(dir.to_owned())
    }

    /// Makes it so large that `bytes` are free.
    pub(crate) fn leave(&self, bytes: u64) {
        let facts = rustix::fs::statvfs(&self.0).expect("it is there");
        let used = (facts.f_blocks - facts.f_bfree) * facts.f_frsize;
        mount(&["-o", &format!("remount,size={}", used + bytes)], &self.0);
    }
}

fn mount(arguments: &[&str], dir: &Path) {
    let status = Command::new("mount").args(arguments).arg(dir).status();
    assert!(status.expect("mount is there").success(), "{arguments:?}");
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whatever still has it open keeps it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
