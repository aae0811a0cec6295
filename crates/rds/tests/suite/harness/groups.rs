//! The control groups of VMs' processes, where VMs have some.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What `needs` says of a test that needs them.
pub(crate) const GROUPS: &str = "control groups of VMs";

/// Where the host has its hierarchy.
const MOUNT: &str = "/sys/fs/cgroup";

/// Why VMs have none here.
pub(crate) fn missing() -> Option<&'static str> {
    if super::prerequisites::monitor() != "firecracker" {
        return Some("VMs do not run in Firecracker");
    }
    let there = Path::new(MOUNT).join("cgroup.controllers").exists();
    (!there).then_some("the host has no control groups of version 2")
}

/// That of a process which runs, of version 2.
pub(crate) fn of(pid: u32) -> Option<PathBuf> {
    let found = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    found.lines().find_map(|line| line.strip_prefix("0::/")).map(|path| Path::new(MOUNT).join(path))
}

/// Removes the group of a VM whose process was ended by other means than its server's.
pub(crate) fn remove(group: &Path) {
    for _ in 0..100 {
        // It is empty once the process has ended altogether.
        if fs::remove_dir(group).is_ok() || !group.exists() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Those of VMs that have no process: a VM's is there for as long as its process.
pub(crate) fn deserted() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut above = vec![PathBuf::from(MOUNT)];
    while let Some(dir) = above.pop() {
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path());
        if dir.ends_with("rds-vms") {
            let events = |group: &PathBuf| fs::read_to_string(group.join("cgroup.events")).unwrap_or_default();
            found.extend(below.filter(|group| events(group).contains("populated 0")));
        } else {
            above.extend(below);
        }
    }
    found
}
