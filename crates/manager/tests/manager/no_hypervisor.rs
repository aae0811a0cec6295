//! A machine that has no virtual machine monitor. What needs one is tested with real VMs elsewhere.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rds_vmm::VmId;
use rds_vmm::hypervisor::{
    ByteStream, Description, DiskLimits, Hypervisor, HypervisorError, Log, MachineSpec, MemoryLimit, Port, SnapshotDir,
};

#[derive(Debug)]
pub(crate) struct NoHypervisor(Description);

impl NoHypervisor {
    pub(crate) fn new() -> Self {
        let reason = "this test starts no VM".to_owned();
        Self(Description { name: "none", version: "0".into(), accelerator: "none", reason })
    }
}

#[async_trait]
impl Hypervisor for NoHypervisor {
    fn description(&self) -> &Description {
        &self.0
    }

    async fn boot(&self, _: &MachineSpec) -> Result<(), HypervisorError> {
        Err(HypervisorError::NotRunning)
    }

    fn fingerprint(&self) -> String {
        String::new()
    }

    async fn is_listening(&self, _: &Path) -> Result<bool, HypervisorError> {
        Err(HypervisorError::NotRunning)
    }

    async fn restore(&self, _: &MachineSpec, _: &SnapshotDir) -> Result<(), HypervisorError> {
        Err(HypervisorError::NotRunning)
    }

    async fn disk_changed(&self, _: &Path, _: u64) -> Result<(), HypervisorError> {
        Err(HypervisorError::NotRunning)
    }

    async fn limit_disk(&self, _: &Path, _: DiskLimits) -> Result<(), HypervisorError> {
        Err(HypervisorError::NotRunning)
    }

    async fn limit_memory(&self, _: &Path, _: MemoryLimit) -> Result<(), HypervisorError> {
        Err(HypervisorError::NotRunning)
    }

    async fn pause(&self, _: &Path) -> Result<(), HypervisorError> {
        Err(HypervisorError::NotRunning)
    }

    async fn resume(&self, _: &Path) -> Result<(), HypervisorError> {
        Err(HypervisorError::NotRunning)
    }

    async fn snapshot(&self, _: &Path, _: &SnapshotDir) -> Result<(), HypervisorError> {
        Err(HypervisorError::NotRunning)
    }

    async fn connect(&self, _: &Path, _: Port) -> Result<Box<dyn ByteStream>, HypervisorError> {
        Err(HypervisorError::NotRunning)
    }

    async fn is_running(&self, _: &Path) -> bool {
        false
    }

    async fn wait(&self, _: &Path) {}

    async fn kill(&self, _: &Path) -> Result<(), HypervisorError> {
        Ok(())
    }

    async fn find(&self, _: &Path) -> Vec<VmId> {
        Vec::new()
    }

    fn trim_logs(&self, _: &Path) {}

    fn log_file(&self, dir: &Path, _: Log) -> PathBuf {
        dir.join("log")
    }
}
