//! Which virtual machine monitor runs the VMs of this server.

use std::collections::HashSet;
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use rds_vmm::accelerator::{Accelerator, AcceleratorWish};
use rds_vmm::choice::{Candidates, MonitorWish};
use rds_vmm::firecracker;
use rds_vmm::programs;
use rds_vmm::qemu::Settings;
use rds_vmm::{Hypervisor, VmId};

use crate::config::{AcceleratorChoice, Config, HypervisorChoice, HypervisorConfig};
use crate::error::{Error, Result};

/// Whom monitors run as where the manager has the right to start programs as others: uids, and gids of the same numbers,
/// which are nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MonitorUsers {
    first: u32,
}

impl MonitorUsers {
    /// Those of this configuration.
    pub fn of(config: &HypervisorConfig) -> Self {
        Self { first: config.vm_first_uid }
    }

    /// The user of the VM with this host index.
    pub fn vm(self, host_index: u32) -> u32 {
        self.first + host_index
    }

    /// The user of the monitor that makes seeds. At most one runs at a time.
    pub fn seed(self) -> u32 {
        self.first - 1
    }

    /// All of them: a subnet has no more addresses.
    pub fn all(self) -> RangeInclusive<u32> {
        self.seed()..=self.vm(u32::from(u16::MAX))
    }
}

/// What the QEMU driver needs to know, for this configuration.
pub fn settings(config: &Config) -> Settings {
    let accelerator = match config.hypervisor.accelerator {
        AcceleratorChoice::Auto => AcceleratorWish::Auto,
        AcceleratorChoice::Kvm => AcceleratorWish::Exactly(Accelerator::Kvm),
        AcceleratorChoice::Tcg => AcceleratorWish::Exactly(Accelerator::Tcg),
    };
    Settings {
        program: None,
        accelerator,
        probe_cache: Some(config.storage.storage_root.join("kvm-probe")),
        rate_cache: Some(config.storage.storage_root.join("tsc-rate")),
        user: rds_vmm::privileges::has_users().then(|| MonitorUsers::of(&config.hypervisor).vm(0)),
    }
}

/// How the drivers would be made, for this configuration.
pub fn candidates(config: &Config) -> Candidates {
    let wish = match config.hypervisor.hypervisor {
        HypervisorChoice::Auto => MonitorWish::Auto,
        HypervisorChoice::Firecracker => MonitorWish::Firecracker,
        HypervisorChoice::Qemu => MonitorWish::Qemu,
    };
    Candidates { wish, qemu: settings(config), firecracker: firecracker_settings(config, wish) }
}

fn firecracker_settings(config: &Config, wish: MonitorWish) -> Result<firecracker::Settings, String> {
    let config = &config.hypervisor;
    let reason = if wish == MonitorWish::Auto { "Firecracker and KVM are there" } else { "it was asked for" };
    Ok(firecracker::Settings {
        program: programs::find(config.firecracker_bin.as_deref(), firecracker::PROGRAM)?,
        jailer: programs::find(config.jailer_bin.as_deref(), firecracker::JAILER)?,
        jails: config.jailer_chroot_base_dir.clone(),
        agent_port: config.agent_vsock_port,
        log_level: config.firecracker_log_level.clone(),
        reason: reason.into(),
    })
}

/// The machines in directories under `parent`: those with a process, and those with a directory. The process of one of these
/// may hide from a search; the directory tells who it is.
pub(crate) async fn machines_under(hypervisor: &dyn Hypervisor, parent: &Path) -> io::Result<HashSet<VmId>> {
    let mut machines: HashSet<VmId> = hypervisor.find(parent).await.into_iter().collect();
    let mut entries = match tokio::fs::read_dir(parent).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(machines),
        entries => entries?,
    };
    while let Some(entry) = entries.next_entry().await? {
        // A name that is no VM id was put there by somebody else.
        machines.extend(entry.file_name().to_str().and_then(|name| name.parse::<VmId>().ok()));
    }
    Ok(machines)
}

/// Starts the driver that the operator chose.
pub async fn choose(config: &Config) -> Result<Arc<dyn Hypervisor>> {
    let choice = candidates(config).choose().await;
    if let Some(why) = &choice.not_firecracker {
        tracing::info!(why, "VMs do not run in Firecracker");
    }
    if let Some(why) = &choice.not_proved {
        tracing::warn!(why, "that KVM runs guests is not proved");
    }
    let failed =
        |error| Error::internal("cannot use a virtual machine monitor; `rds doctor` says what is missing", error);
    choice.hypervisor.map_err(failed)
}
