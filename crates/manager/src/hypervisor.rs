//! Which virtual machine monitor runs the VMs of this server.

use std::path::PathBuf;
use std::sync::Arc;

use rds_vmm::Hypervisor;
use rds_vmm::accelerator::Accelerator;
use rds_vmm::qemu::Qemu;

use crate::config::{AcceleratorChoice, HypervisorChoice, HypervisorConfig};
use crate::error::{Error, Result};

/// The monitor's program; looked up in `PATH`.
pub const QEMU: &str = "qemu-system-x86_64";

/// Starts the driver that the operator chose.
pub async fn choose(config: &HypervisorConfig) -> Result<Arc<dyn Hypervisor>> {
    let (HypervisorChoice::Auto | HypervisorChoice::Qemu) = config.hypervisor;
    let (accelerator, reason) = match config.accelerator {
        AcceleratorChoice::Kvm => (Accelerator::Kvm, "RDS_ACCELERATOR=kvm".to_owned()),
        AcceleratorChoice::Tcg | AcceleratorChoice::Auto => (Accelerator::Tcg, "RDS_ACCELERATOR=tcg".to_owned()),
    };
    let qemu = Qemu::new(PathBuf::from(QEMU), accelerator, reason).await;
    let qemu = qemu.map_err(|error| Error::internal("cannot use QEMU; `rds doctor` says what is missing", error))?;
    Ok(Arc::new(qemu))
}
