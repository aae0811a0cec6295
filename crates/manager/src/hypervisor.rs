//! Which virtual machine monitor runs the VMs of this server.

use std::sync::Arc;

use rds_vmm::Hypervisor;
use rds_vmm::accelerator::{Accelerator, Wish};
use rds_vmm::qemu::{Qemu, Settings};

use crate::config::{AcceleratorChoice, Config, HypervisorChoice};
use crate::error::{Error, Result};

/// uid and gid of the first VM's monitor where the manager is root. High enough to belong to nobody; the VMs' host
/// indices count on from it.
pub const FIRST_UID: u32 = 200_000;

/// uid and gid of the monitor that makes seeds. At most one runs at a time.
pub const SEED_UID: u32 = FIRST_UID - 1;

/// What the driver needs to know, for this configuration.
pub fn settings(config: &Config) -> Settings {
    let accelerator = match config.hypervisor.accelerator {
        AcceleratorChoice::Auto => Wish::Auto,
        AcceleratorChoice::Kvm => Wish::Exactly(Accelerator::Kvm),
        AcceleratorChoice::Tcg => Wish::Exactly(Accelerator::Tcg),
    };
    Settings {
        program: None,
        accelerator,
        probe_cache: Some(config.storage.storage_root.join("kvm-probe")),
        user: rustix::process::geteuid().is_root().then_some(FIRST_UID),
    }
}

/// Starts the driver that the operator chose.
pub async fn choose(config: &Config) -> Result<Arc<dyn Hypervisor>> {
    let (HypervisorChoice::Auto | HypervisorChoice::Qemu) = config.hypervisor.hypervisor;
    let qemu = Qemu::new(settings(config)).await;
    let qemu = qemu.map_err(|error| Error::internal("cannot use QEMU; `rds doctor` says what is missing", error))?;
    Ok(Arc::new(qemu))
}
