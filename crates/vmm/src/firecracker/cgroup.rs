//! The control groups (version 2) that machines' processes are limited by, where the host has them.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::hypervisor::MachineSpec;

/// Where the host has its hierarchy.
const MOUNT: &str = "/sys/fs/cgroup";

/// Name of the group of all machines, and of that in which a manager keeps itself when its own group is delegated to it.
const MACHINES: &str = "rds-vms";
const MANAGER: &str = "manager";

/// What is limited.
const CONTROLLERS: &str = "+cpu +memory +pids";

/// Bytes that a monitor may take beyond its guest's memory. Firecracker itself needs 5 MiB; the rest is page cache of
/// the disk, which is charged to it.
const OWN_MEMORY: u64 = 128 << 20;

/// Threads that a monitor has beyond one for each virtual CPU, and the jailer.
const OWN_THREADS: u64 = 32;

/// Between two attempts to remove a group whose last process is ending, and how many there are.
const PAUSE: Duration = Duration::from_millis(5);
const ATTEMPTS: u32 = 200;

/// The group of all machines.
#[derive(Debug, Clone)]
pub(super) struct Cgroups {
    /// Relative to the root of the hierarchy, for the jailer.
    parent: PathBuf,
}

impl Cgroups {
    /// Makes the group of all machines; says why if that is impossible.
    pub(super) fn new() -> Result<Self, String> {
        if !Path::new(MOUNT).join("cgroup.controllers").exists() {
            return Err("the host has no control groups of version 2".into());
        }
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let parent = parent(&own);
        let dir = Path::new(MOUNT).join(&parent);
        let made = fs::create_dir_all(&dir).and_then(|()| {
            let above = dir.parent().unwrap_or(Path::new(MOUNT));
            fs::write(above.join("cgroup.subtree_control"), CONTROLLERS)?;
            fs::write(dir.join("cgroup.subtree_control"), CONTROLLERS)?;
            // Guests have secrets in their memory. A kernel that cannot swap has no such file.
            match fs::write(dir.join("memory.swap.max"), "0") {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        });
        made.map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(Self { parent })
    }

    /// The jailer's options for a machine.
    pub(super) fn options(&self, spec: &MachineSpec) -> Vec<String> {
        let mut options = vec!["--cgroup-version".into(), "2".into()];
        options.extend(["--parent-cgroup".into(), self.parent.display().to_string()]);
        for (file, value) in limits(spec) {
            options.extend(["--cgroup".into(), format!("{file}={value}")]);
        }
        options
    }

    /// Ends everything that is in a machine's group and removes it.
    pub(super) async fn remove(&self, id: &Path) -> io::Result<()> {
        let dir = Path::new(MOUNT).join(&self.parent).join(id);
        if !dir.exists() {
            return Ok(());
        }
        fs::write(dir.join("cgroup.kill"), "1")?;
        for _ in 0..ATTEMPTS {
            match fs::remove_dir(&dir) {
                Err(error) if error.kind() == ErrorKind::ResourceBusy => tokio::time::sleep(PAUSE).await,
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => return Ok(()),
            }
        }
        Err(io::Error::new(ErrorKind::ResourceBusy, "a process in the machine's group does not end"))
    }
}

/// The group of all machines for a manager in `own` (the content of `/proc/self/cgroup`).
fn parent(own: &str) -> PathBuf {
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).map(Path::new);
    match own.filter(|path| path.ends_with(MANAGER)).and_then(Path::parent) {
        Some(delegated) => delegated.join(MACHINES),
        None => MACHINES.into(),
    }
}

/// Processes and threads that a machine may have.
pub(super) fn threads(spec: &MachineSpec) -> u64 {
    u64::from(spec.vcpus) + OWN_THREADS
}

/// The limits of a machine's processes, as files of its group.
fn limits(spec: &MachineSpec) -> Vec<(&'static str, String)> {
    let memory = (u64::from(spec.mem_mib) << 20) + OWN_MEMORY;
    // One processor more than the guest has, for its devices.
    let quota = (u64::from(spec.vcpus) + 1) * 100_000;
    vec![
        ("memory.max", memory.to_string()),
        ("pids.max", threads(spec).to_string()),
        ("cpu.max", format!("{quota} 100000")),
        ("cpu.weight", if spec.background { "20" } else { "100" }.into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_below_what_is_delegated() {
        let parent = |own| parent(own).display().to_string();
        assert_eq!(parent("0::/system.slice/rds.service/manager\n"), "system.slice/rds.service/rds-vms");
        assert_eq!(parent("0::/user.slice/session.scope\n"), "rds-vms");
        assert_eq!(parent("4:memory:/x\n0::/\n"), "rds-vms");
        assert_eq!(parent(""), "rds-vms");
    }
}
