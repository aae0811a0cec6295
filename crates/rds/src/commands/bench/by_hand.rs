//! Machines that are started without the server, by the driver and from the files that the server uses.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rds_image::disk;
use rds_manager::hypervisor::{self, MonitorUsers};
use rds_protocol::link::History;
use rds_vmm::hypervisor::SnapshotDir;
use rds_vmm::{GuestClient, Hypervisor, MachineSpec, VmId, privileges};
use rustix::time::{ClockId, clock_gettime};

use super::cold::only_file;
use super::figure::milliseconds;
use super::server::{BenchServer, settings_from_environment};
use crate::error::CliError;

/// Memory of the machines in MiB: the size that an image's seed is made for by itself.
pub(super) const MEM_MIB: u32 = 256;

/// How long a machine may take to answer.
const LIMIT: Duration = Duration::from_secs(60);

/// The host index of the first machine by hand; a server has not so many VMs.
const FIRST_INDEX: u32 = 50_000;

/// Bytes of a machine's disk.
const DISK_BYTES: u64 = 512 << 20;

/// Starts machines. One that nobody ends is ended with the server.
pub(super) struct ByHand<'a> {
    hypervisor: Arc<dyn Hypervisor>,
    server: &'a BenchServer,
    initramfs: PathBuf,
    template: PathBuf,
    users: AtomicU32,
}

/// A machine that runs.
pub(super) struct Machine {
    dir: PathBuf,
    /// Its agent, which has answered.
    pub(super) guest: GuestClient,
    /// Milliseconds from the clone of its disk to that answer.
    pub(super) took: f64,
    /// Milliseconds of processor time that the driver itself used.
    pub(super) driver: f64,
}

fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::Failed(format!("a machine by hand: {error}"))
}

/// The driver that a server with this program's environment uses.
pub(super) async fn driver() -> Result<Arc<dyn Hypervisor>, CliError> {
    hypervisor::choose(&settings_from_environment()?).await.map_err(failed)
}

impl<'a> ByHand<'a> {
    /// With the files of a server that has created a VM.
    pub(super) async fn new(server: &'a BenchServer) -> Result<Self, CliError> {
        let initramfs = only_file(&server.root().join("initramfs"))?;
        let template = disk::template(&server.root().join("templates"), DISK_BYTES).map_err(failed)?;
        let users = MonitorUsers::of(&settings_from_environment()?.hypervisor);
        let users = AtomicU32::new(users.vm(FIRST_INDEX));
        Ok(Self { hypervisor: driver().await?, server, initramfs, template, users })
    }

    /// Boots a machine, or restores it.
    pub(super) async fn start(&self, from: Option<&SnapshotDir>) -> Result<Machine, CliError> {
        let id = VmId::new();
        let dir = self.server.by_hand_dir().join(id.to_string());
        std::fs::create_dir_all(&dir).map_err(CliError::file(&dir))?;
        let spec = MachineSpec {
            id,
            vcpus: 1,
            mem_mib: MEM_MIB,
            kernel: self.server.image().kernel.clone(),
            initramfs: self.initramfs.clone(),
            rootfs: self.server.image().rootfs.clone(),
            disk: dir.join("disk.ext4"),
            disk_bytes: DISK_BYTES,
            dir: dir.clone(),
            user: privileges::has_users().then(|| self.users.fetch_add(1, Ordering::Relaxed)),
            nic: None,
            rehearse: false,
            background: false,
        };
        let begun = Instant::now();
        disk::clone_sparse(&self.template, &spec.disk, disk::CloneMode::Auto).map_err(failed)?;
        let used = processor_time();
        let started = match from {
            Some(snapshot) => {
                self.hypervisor.restore(&spec, snapshot).await.inspect(|()| self.hypervisor.keep(snapshot))
            }
            None => self.hypervisor.boot(&spec).await,
        };
        started.map_err(failed)?;
        let driver = processor_time() - used;
        let guest = GuestClient::connect(&*self.hypervisor, &dir, History::Fresh, LIMIT).await;
        let took = milliseconds(begun);
        Ok(Machine { dir, guest: guest.map_err(failed)?, took, driver })
    }

    /// Ends a machine and removes it.
    pub(super) async fn end(&self, machine: Machine) -> Result<(), CliError> {
        self.hypervisor.kill(&machine.dir).await.map_err(failed)?;
        std::fs::remove_dir_all(&machine.dir).map_err(CliError::file(&machine.dir))
    }
}

/// Milliseconds of processor time that this process has used.
fn processor_time() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0)).as_secs_f64() * 1000.0
}
