//! The control groups (version 2) that machines' processes are limited by, where the host has them.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::fs::{Access, access};

use crate::hypervisor::{MachineSpec, VmId};

/// Where the host has its hierarchy.
const MOUNT: &str = "/sys/fs/cgroup";

/// Name of the group of all machines, and of that in which a manager keeps itself when its own group is delegated to it.
const MACHINES: &str = "rds-vms";
const MANAGER: &str = "manager";

/// What is limited, and what is divided besides where the host's kernel can.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
const DISKS: &str = "io";

/// Bytes that a monitor may take beyond its guest's memory. Firecracker itself needs 5 MiB; the rest is page cache of
/// the disk, which is charged to it.
const OWN_MEMORY: u64 = 128 << 20;

/// Threads that a monitor has beyond one for each virtual CPU, and the jailer.
const OWN_THREADS: u64 = 32;

/// Between two attempts to remove a group whose last process is ending, and how many there are.
const PAUSE: Duration = Duration::from_millis(5);
const ATTEMPTS: u32 = 200;

/// The group of all machines.
#[derive(Debug)]
pub(super) struct Cgroups {
    /// The root of the hierarchy.
    mount: PathBuf,
    /// Relative to that, for the jailer.
    parent: PathBuf,
    made: OnceLock<Option<Made>>,
}

/// A group of all machines that is there.
#[derive(Debug)]
struct Made {
    /// Whether the kernel divides the disks' time by weight.
    weighs_disks: bool,
}

impl Cgroups {
    /// Those of this host. Says why machines will have none, as far as that can be told without making any.
    pub(super) fn of_host() -> Result<Self, String> {
        Self::below(Path::new(MOUNT), &fs::read_to_string("/proc/self/cgroup").unwrap_or_default())
    }

    /// Those of a manager in `own` (the content of `/proc/self/cgroup`).
    fn below(mount: &Path, own: &str) -> Result<Self, String> {
        if !mount.join("cgroup.controllers").exists() {
            return Err("the host has no control groups of version 2".into());
        }
        let parent = parent(own);
        let dir = mount.join(&parent);
        let above = dir.ancestors().skip(1).find(|dir| dir.is_dir()).unwrap_or(mount);
        let there = controllers(above).map_err(|error| format!("{}: {error}", above.display()))?;
        let lacking: Vec<_> = CONTROLLERS.into_iter().filter(|name| !there.iter().any(|there| there == name)).collect();
        if !lacking.is_empty() {
            return Err(format!("{} has no {}", above.display(), lacking.join(", ")));
        }
        access(above, Access::WRITE_OK).map_err(|error| format!("{}: {error}", above.display()))?;
        Ok(Self { mount: mount.to_owned(), parent, made: OnceLock::new() })
    }

    /// The group of a machine, if it gets one.
    pub(super) fn group(&self, id: VmId) -> PathBuf {
        self.mount.join(&self.parent).join(id.to_string())
    }

    /// The jailer's options for a machine. The group of all is made with the first; there are none if that fails.
    pub(super) fn options(&self, spec: &MachineSpec) -> Vec<String> {
        let made = self.made.get_or_init(|| {
            let made = self.make();
            made.inspect_err(|error| tracing::warn!(%error, "machines run without control groups")).ok()
        });
        let Some(made) = made else { return Vec::new() };
        let mut options = vec!["--cgroup-version".into(), "2".into()];
        options.extend(["--parent-cgroup".into(), self.parent.display().to_string()]);
        for (file, value) in limits(spec, made.weighs_disks) {
            options.extend(["--cgroup".into(), format!("{file}={value}")]);
        }
        options
    }

    fn make(&self) -> io::Result<Made> {
        let dir = self.mount.join(&self.parent);
        fs::create_dir_all(&dir)?;
        let above = dir.parent().unwrap_or(&self.mount);
        let enable = |names: &str| {
            fs::write(above.join("cgroup.subtree_control"), names)?;
            fs::write(dir.join("cgroup.subtree_control"), names)
        };
        enable(&CONTROLLERS.map(|name| format!("+{name}")).join(" "))?;
        let divides_disks = controllers(above)?.iter().any(|name| name == DISKS);
        let divides_disks = divides_disks && enable(&format!("+{DISKS}")).is_ok();
        // Guests have secrets in their memory. A kernel that cannot swap has no such file.
        match fs::write(dir.join("memory.swap.max"), "0") {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            // Whether there are weights is up to how the kernel was built.
            _ => Ok(Made { weighs_disks: divides_disks && dir.join("io.weight").exists() }),
        }
    }
}

/// Why machines on this host will have no limits of memory and threads, as far as that can be told.
pub(crate) fn obstacle() -> Option<String> {
    Cgroups::of_host().err()
}

/// What a group can limit.
fn controllers(group: &Path) -> io::Result<Vec<String>> {
    let names = fs::read_to_string(group.join("cgroup.controllers"))?;
    Ok(names.split_ascii_whitespace().map(str::to_owned).collect())
}

/// The group that `found` (the content of `/proc/PID/cgroup`) tells, if it is that of the machine in `dir`.
pub(super) fn of_machine(found: &str, dir: &Path) -> Option<PathBuf> {
    let path = path(found)?;
    // One outside of this process's namespace is told by way of its parents.
    let within = path.components().all(|component| matches!(component, Component::Normal(_)));
    (within && path.file_name() == dir.file_name()).then(|| Path::new(MOUNT).join(path))
}

/// Ends everything that is in a machine's group and removes it.
pub(super) async fn remove(group: &Path) -> io::Result<()> {
    if !group.exists() {
        return Ok(());
    }
    fs::write(group.join("cgroup.kill"), "1")?;
    for _ in 0..ATTEMPTS {
        match fs::remove_dir(group) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy => tokio::time::sleep(PAUSE).await,
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => return Ok(()),
        }
    }
    Err(io::Error::new(ErrorKind::ResourceBusy, "a process in the machine's group does not end"))
}

/// The group of a process by its `/proc/PID/cgroup`, relative to the root of the hierarchy.
fn path(found: &str) -> Option<&Path> {
    found.lines().find_map(|line| line.strip_prefix("0::/")).map(Path::new)
}

/// The group of all machines for a manager in `own` (the content of `/proc/self/cgroup`).
fn parent(own: &str) -> PathBuf {
    match path(own).filter(|path| path.ends_with(MANAGER)).and_then(Path::parent) {
        Some(delegated) => delegated.join(MACHINES),
        None => MACHINES.into(),
    }
}

/// Processes and threads that a machine may have.
pub(super) fn threads(spec: &MachineSpec) -> u64 {
    u64::from(spec.vcpus) + OWN_THREADS
}

/// The limits of a machine's processes, as files of its group.
fn limits(spec: &MachineSpec, weighs_disks: bool) -> Vec<(&'static str, String)> {
    let memory = (u64::from(spec.mem_mib) << 20) + OWN_MEMORY;
    // One processor more than the guest has, for its devices.
    let quota = (u64::from(spec.vcpus) + 1) * 100_000;
    let weight = if spec.background { "20" } else { "100" };
    let mut limits = vec![
        ("memory.max", memory.to_string()),
        ("pids.max", threads(spec).to_string()),
        ("cpu.max", format!("{quota} 100000")),
        ("cpu.weight", weight.into()),
    ];
    limits.extend(weighs_disks.then(|| ("io.weight", weight.into())));
    limits
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

    fn spec() -> MachineSpec {
        MachineSpec {
            id: "6c0b0d0e-4d8c-4e4a-9f0b-0a1b2c3d4e5f".parse().unwrap(),
            vcpus: 2,
            mem_mib: 256,
            kernel: PathBuf::new(),
            initramfs: PathBuf::new(),
            rootfs: PathBuf::new(),
            disk: PathBuf::new(),
            disk_bytes: 1 << 20,
            dir: PathBuf::new(),
            user: None,
            nic: None,
            rehearse: false,
            background: false,
        }
    }

    /// A hierarchy of no kernel's, with these controllers.
    fn hierarchy(controllers: &str) -> tempfile::TempDir {
        let mount = tempfile::tempdir().unwrap();
        fs::write(mount.path().join("cgroup.controllers"), controllers).unwrap();
        mount
    }

    #[test]
    fn a_machine_gets_its_limits_when_the_first_one_starts() {
        let mount = hierarchy("cpuset cpu io memory hugetlb pids\n");
        let cgroups = Cgroups::below(mount.path(), "0::/\n").unwrap();
        let machines = mount.path().join("rds-vms");
        assert!(!machines.exists(), "to look changes nothing");
        let options = cgroups.options(&spec()).join(" ").replace(" --cgroup ", "\n--cgroup ");
        insta::assert_snapshot!(options, @r"
        --cgroup-version 2 --parent-cgroup rds-vms
        --cgroup memory.max=402653184
        --cgroup pids.max=34
        --cgroup cpu.max=300000 100000
        --cgroup cpu.weight=100
        ");
        assert_eq!(fs::read(machines.join("memory.swap.max")).unwrap(), b"0");
        for dir in [mount.path(), &machines] {
            // The last words that were written; the kernel takes them as changes.
            assert_eq!(fs::read(dir.join("cgroup.subtree_control")).unwrap(), b"+io");
        }
        assert_eq!(cgroups.group(spec().id), machines.join("6c0b0d0e-4d8c-4e4a-9f0b-0a1b2c3d4e5f"));
    }

    #[test]
    fn disks_are_divided_where_the_kernel_weighs() {
        let mount = hierarchy("cpu io memory pids\n");
        fs::create_dir(mount.path().join("rds-vms")).unwrap();
        fs::write(mount.path().join("rds-vms/io.weight"), "default 100\n").unwrap();
        let cgroups = Cgroups::below(mount.path(), "0::/\n").unwrap();
        assert!(cgroups.options(&spec()).contains(&"io.weight=100".to_owned()));
        let polite = MachineSpec { background: true, ..spec() };
        assert!(cgroups.options(&polite).contains(&"io.weight=20".to_owned()));

        let without = hierarchy("cpu memory pids\n");
        let cgroups = Cgroups::below(without.path(), "0::/\n").unwrap();
        assert_eq!(cgroups.options(&spec()).len(), 12);
        let enabled = fs::read(without.path().join("cgroup.subtree_control")).unwrap();
        assert_eq!(enabled, b"+cpu +memory +pids");
    }

    #[test]
    fn why_there_are_no_limits_is_said() {
        let nothing = tempfile::tempdir().unwrap();
        let obstacle = |mount: &Path, own| Cgroups::below(mount, own).unwrap_err();
        assert!(obstacle(nothing.path(), "0::/\n").contains("no control groups of version 2"));
        assert!(obstacle(hierarchy("cpu\n").path(), "0::/\n").ends_with("has no memory, pids"));
        let delegated = hierarchy("cpu memory pids\n");
        let service = delegated.path().join("rds.service");
        fs::create_dir(&service).unwrap();
        fs::write(service.join("cgroup.controllers"), "cpu pids\n").unwrap();
        assert!(obstacle(delegated.path(), "0::/rds.service/manager\n").ends_with("rds.service has no memory"));
    }

    #[test]
    fn only_a_machines_own_group_is_its_group() {
        let dir = Path::new("/var/vms/6c0b0d0e-4d8c-4e4a-9f0b-0a1b2c3d4e5f");
        let found = "4:memory:/x\n0::/old/rds-vms/6c0b0d0e-4d8c-4e4a-9f0b-0a1b2c3d4e5f\n";
        let group = of_machine(found, dir).unwrap();
        assert_eq!(group, Path::new("/sys/fs/cgroup/old/rds-vms/6c0b0d0e-4d8c-4e4a-9f0b-0a1b2c3d4e5f"));
        let outside = found.replace("/old", "/../old");
        for other in ["0::/system.slice/rds.service\n", "0::/\n", "", &outside] {
            assert_eq!(of_machine(other, dir), None, "{other}");
        }
    }
}
