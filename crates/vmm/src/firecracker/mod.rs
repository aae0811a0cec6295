//! The Firecracker driver: every machine's monitor in a jail of its own.
//!
//! It owns the jail and the process in it. Firecracker's jailer gives each process its own user, root directory, mounts,
//! process namespace and control group, and Firecracker confines itself by its seccomp filters; a machine whose monitor
//! runs without them is ended. What comes out of a jail is believed in nothing. This module must not know what a guest
//! does.

mod api;
mod arguments;
mod cgroup;
mod confinement;
mod files;
mod jail;
mod launch;
mod metrics;
mod remains;
mod snapshot;
mod start;
mod version;
mod vsock;

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;

use crate::HypervisorError;
use crate::Version;
use crate::accelerator;
use crate::hypervisor::{
    ByteStream, Counts, Description, DiskLimits, Hypervisor, Log, MachineSpec, MemoryLimit, Port, SnapshotDir, VmId,
};
use crate::privileges::{self, Task};
use crate::process;

use api::{
    Api, ChangedBalloon, ChangedDrive, LimitedDrive, LoadSnapshot, MemoryBackend, NetworkOverride, Serial, VmState,
};
use cgroup::Cgroups;
use jail::{Jail, Root, inside};

pub(crate) use cgroup::obstacle as no_groups;
pub(crate) use files::MARKS;
pub(crate) use remains::remove as remove_remains;
pub use version::{OLDEST, of_both as version_of};

/// Time for Firecracker to open its API; it takes 10 ms.
const API_LIMIT: Duration = Duration::from_secs(20);

/// The order to look at the disk again.
const DISK_CHANGED: ChangedDrive<'_> = ChangedDrive { drive_id: "disk", path_on_host: inside::DISK };

/// Name of the guest's network interface in the API.
const INTERFACE: &str = "eth0";

/// Raised when a snapshot of an older driver must not be used though all else is equal, as when machines get another device.
const GENERATION: u32 = 2;

/// What Firecracker says of a balloon that its guest has no driver for.
const NO_DRIVER: &str = "Device not activated yet";

/// Name of the monitor.
pub const PROGRAM: &str = "firecracker";
/// Name of the jailer.
pub const JAILER: &str = "jailer";

/// The driver.
#[derive(Debug)]
pub struct Firecracker {
    settings: Settings,
    version: Version,
    description: Description,
    cgroups: Option<Cgroups>,
}

/// How to make a [`Firecracker`].
#[derive(Debug, Clone)]
pub struct Settings {
    /// Firecracker's program.
    pub program: PathBuf,
    /// Its jailer, of the same release.
    pub jailer: PathBuf,
    /// Where jails are made; in each machine's directory if absent.
    pub jails: Option<PathBuf>,
    /// Port of the guest's agent for calls into the guest; calls out of it come by the next one.
    pub agent_port: u16,
    /// How much Firecracker tells in its log: `Off`, `Error`, `Warning`, `Info`, `Debug` or `Trace`.
    pub log_level: String,
    /// Why this driver was chosen, for people.
    pub reason: String,
}

impl Firecracker {
    /// A driver. Fails where no machine could ever run: too old a release, not root, no `/dev/kvm`. Changes nothing on the
    /// host.
    pub async fn new(mut settings: Settings) -> Result<Self, HypervisorError> {
        let absolute = |path: &Path| path.canonicalize().map_err(|source| spawn(path, source));
        settings.program = absolute(&settings.program)?;
        settings.jailer = absolute(&settings.jailer)?;
        if let Some(jails) = &mut settings.jails {
            *jails = std::path::absolute(&*jails).map_err(HypervisorError::io("the jails' directory"))?;
        }
        let version = version::of_both(&settings.program, &settings.jailer).await?;
        if let Some(missing) = privileges::missing(Task::Users).or_else(|| privileges::missing(Task::Jails)) {
            let why = format!("the jailer needs root, or {missing}");
            return Err(spawn(&settings.jailer, io::Error::new(ErrorKind::PermissionDenied, why)));
        }
        File::options().read(true).write(true).open("/dev/kvm").map_err(HypervisorError::io("/dev/kvm"))?;
        let cgroups = Cgroups::of_host();
        if let Err(why) = &cgroups {
            tracing::warn!(why, "machines run without control groups");
        }
        let description = Description {
            name: "firecracker",
            version: version.to_string(),
            accelerator: "kvm",
            reason: settings.reason.clone(),
        };
        Ok(Self { settings, version, description, cgroups: cgroups.ok() })
    }

    /// The command line that every VM's kernel gets.
    pub fn kernel_command_line(&self) -> String {
        arguments::command_line(self.settings.agent_port, false)
    }

    /// The jail of the machine in `dir`.
    fn jail(&self, dir: &Path) -> Jail {
        let base = self.settings.jails.as_deref().unwrap_or(dir);
        Jail::new(base, &self.settings.program, dir.file_name().unwrap_or_default())
    }

    fn port(&self, port: Port) -> u32 {
        u32::from(self.settings.agent_port) + u32::from(port == Port::Out)
    }

    /// The API of a machine that runs.
    async fn api(&self, dir: &Path) -> Result<Api, HypervisorError> {
        let process = process::running(dir, &MARKS)?;
        let root = Root::of(&process).map_err(HypervisorError::io("the jail"))?;
        let stream = timeout(API_LIMIT, root.connect(inside::API, &process)).await;
        let stream =
            stream.map_err(|_| HypervisorError::Timeout("its API"))?.map_err(HypervisorError::io("its API"))?;
        Api::over(stream).await
    }
}

#[async_trait]
impl Hypervisor for Firecracker {
    fn description(&self) -> &Description {
        &self.description
    }

    fn fingerprint(&self) -> String {
        fingerprint(self.version, &self.kernel_command_line(), &accelerator::processor())
    }

    async fn boot(&self, spec: &MachineSpec) -> Result<(), HypervisorError> {
        let work = async {
            let mut api = self.start(spec, None).await?;
            self.configure_and_start(&mut api, spec).await
        };
        self.bring_up(spec, work).await
    }

    async fn restore(&self, spec: &MachineSpec, snapshot: &SnapshotDir) -> Result<(), HypervisorError> {
        let work = async {
            let mut api = self.start(spec, Some(snapshot)).await?;
            api.put("/serial", &Serial::bounded()).await?;
            let mem_backend = MemoryBackend { backend_type: "File", backend_path: inside::MEMORY };
            let tap = spec.nic.as_ref().map(|nic| nic.tap.as_str());
            let network_overrides =
                tap.map(|host_dev_name| NetworkOverride { iface_id: INTERFACE, host_dev_name }).into_iter().collect();
            let (snapshot_path, track_dirty_pages, resume_vm) = (inside::STATE, true, true);
            let load = LoadSnapshot { snapshot_path, mem_backend, network_overrides, track_dirty_pages, resume_vm };
            api.put("/snapshot/load", &load).await?;
            // The guest is told the size that the disk really has.
            api.patch("/drives/disk", &DISK_CHANGED).await
        };
        self.bring_up(spec, work).await
    }

    async fn pause(&self, dir: &Path) -> Result<(), HypervisorError> {
        let mut api = self.api(dir).await?;
        if api.is_paused().await? { Ok(()) } else { api.patch("/vm", &VmState::Paused).await }
    }

    async fn resume(&self, dir: &Path) -> Result<(), HypervisorError> {
        let mut api = self.api(dir).await?;
        if api.is_paused().await? {
            snapshot::have_streams_dropped(&mut api).await?;
            api.patch("/vm", &VmState::Resumed).await?;
        }
        Ok(())
    }

    async fn prepare_snapshot(&self, dir: &Path, to: &SnapshotDir) -> Result<(), HypervisorError> {
        snapshot::prepare(dir, to).await
    }

    async fn snapshot(&self, dir: &Path, to: &SnapshotDir) -> Result<(), HypervisorError> {
        let process = process::running(dir, &MARKS)?;
        snapshot::save(&mut self.api(dir).await?, &process, dir, to).await
    }

    fn forget_saved(&self, dir: &Path) {
        if let Err(error) = snapshot::forget_base(dir) {
            tracing::warn!(%error, dir = %dir.display(), "what was saved of a machine's memory is left until it ends");
        }
    }

    async fn disk_changed(&self, dir: &Path, _bytes: u64) -> Result<(), HypervisorError> {
        // Firecracker looks at the file itself.
        self.api(dir).await?.patch("/drives/disk", &DISK_CHANGED).await
    }

    async fn limit_disk(&self, dir: &Path, limits: DiskLimits) -> Result<(), HypervisorError> {
        let limited = LimitedDrive { drive_id: DISK_CHANGED.drive_id, rate_limiter: limits.into() };
        self.api(dir).await?.patch("/drives/disk", &limited).await
    }

    async fn limit_memory(&self, dir: &Path, limit: MemoryLimit) -> Result<(), HypervisorError> {
        let changed = self.api(dir).await?.patch("/balloon", &ChangedBalloon { amount_mib: limit.balloon_mib() }).await;
        changed.map_err(|error| match error {
            HypervisorError::Refused { message, .. } if message.contains(NO_DRIVER) => HypervisorError::NoBalloon,
            other => other,
        })
    }

    async fn is_listening(&self, dir: &Path) -> Result<bool, HypervisorError> {
        let process = process::running(dir, &MARKS)?;
        let ports = [Port::In, Port::Out].map(|port| self.port(port));
        vsock::greet_for_good(process, ports).await.map_err(HypervisorError::io("the guest channel"))
    }

    async fn connect(&self, dir: &Path, port: Port) -> Result<Box<dyn ByteStream>, HypervisorError> {
        let process = process::running(dir, &MARKS)?;
        let stream = vsock::open(&process, self.port(port)).await.map_err(HypervisorError::unconnected)?;
        Ok(Box::new(stream))
    }

    async fn is_running(&self, dir: &Path) -> bool {
        process::is_running(dir, &MARKS)
    }

    async fn wait(&self, dir: &Path) {
        process::wait(dir, &MARKS).await;
    }

    async fn kill(&self, dir: &Path) -> Result<(), HypervisorError> {
        let ended = process::kill(dir).await;
        // Of a machine that an older server started nothing tells where it is.
        let removed = jail::remove(self.jail(dir).home()).map_err(HypervisorError::io("the jail"));
        ended.and(removed)
    }

    async fn find(&self, parent: &Path) -> Vec<VmId> {
        process::find(parent)
    }

    fn tidy(&self, dir: &Path) {
        if let Err(error) = snapshot::tidy(dir) {
            tracing::warn!(%error, dir = %dir.display(), "cannot empty a machine's files for a snapshot");
        }
    }

    fn take_counts(&self, dir: &Path) -> Counts {
        metrics::take(&files::metrics(dir)).unwrap_or_else(|error| {
            tracing::warn!(%error, dir = %dir.display(), "cannot read what a monitor has counted");
            Counts::default()
        })
    }

    fn log_file(&self, dir: &Path, log: Log) -> PathBuf {
        files::log(dir, log)
    }
}

/// What a snapshot depends on: the monitor that wrote it, the kernel's command line, and the processor under KVM.
fn fingerprint(version: Version, line: &str, processor: &str) -> String {
    format!("firecracker {version} {GENERATION}\n{line}\n{processor}")
}

fn spawn(program: &Path, source: io::Error) -> HypervisorError {
    HypervisorError::Spawn { program: program.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_snapshot_depends_on_the_release_the_command_line_and_the_processor() {
        let release = |patch| Version { major: 1, minor: 16, patch };
        let (line, processor) = (arguments::command_line(8080, false), "vendor_id\t: A\nflags\t\t: fpu");
        let one = fingerprint(release(1), &line, processor);
        assert_eq!(one, fingerprint(release(1), &line, processor));
        let others = [
            fingerprint(release(2), &line, processor),
            fingerprint(release(1), &arguments::command_line(8081, false), processor),
            fingerprint(release(1), &line, "vendor_id\t: B\nflags\t\t: fpu"),
            fingerprint(release(1), &line, "vendor_id\t: A\nflags\t\t: fpu avx"),
        ];
        assert_eq!(others.iter().chain([&one]).collect::<HashSet<_>>().len(), 5);
    }
}
