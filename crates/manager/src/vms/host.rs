//! What all VMs share: the doors to the outside, and the names and the end of what a VM has there.
//!
//! Everything a VM has on the host lies in one directory named after its id, so [`Host::teardown`] needs to remember
//! nothing: it undoes a start that failed or was abandoned after any step.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rds_vmm::guest::GuestClient;
use rds_vmm::hypervisor::Log;
use rds_vmm::{Hypervisor, VmId};

use super::fault::{Faults, Step};
use super::record::Sealed;
use super::turns::Turns;
use crate::activity::Activity;
use crate::config::StorageConfig;
use crate::egress::Egress;
use crate::error::{Error, Result};
use crate::hypervisor::MonitorUsers;
use crate::images::Images;
use crate::metrics;
use crate::peers::Peers;
use crate::secrets::{Sealer, SecretEnv};
use crate::seeds::Seeds;
use crate::snapshots::Snapshots;
use crate::store::Store;

/// With less free, a machine's write may fail between two looks at the disk.
const CROWDED_BYTES: u64 = 1 << 30;

/// How long an agent may take to replace secrets.
const SECRETS_LIMIT: Duration = Duration::from_secs(30);

/// What all VMs share: the doors to the outside.
#[derive(Debug)]
pub(super) struct Host {
    pub hypervisor: Arc<dyn Hypervisor>,
    pub storage: StorageConfig,
    pub store: Store,
    pub images: Arc<Images>,
    pub activity: Activity,
    pub faults: Faults,
    /// Seals VMs' secrets; `None` without `VM_SECRET_KEY`.
    pub sealer: Option<Arc<Sealer>>,
    /// What VMs start from without being booted.
    pub seeds: Arc<Seeds>,
    /// What users keep of VMs.
    pub snapshots: Snapshots,
    /// Whom VMs' monitors run as; `None` for the manager's own user.
    pub users: Option<MonitorUsers>,
    pub peers: Peers,
    /// How many VMs are brought up at once.
    pub turns: Turns,
    /// What VMs may reach.
    pub egress: Arc<Egress>,
    /// Entries that a VM's `allowIps` may have.
    pub max_allow_ips: u32,
}

impl Host {
    pub(super) fn dir(&self, id: VmId) -> PathBuf {
        self.storage.vms_dir().join(id.to_string())
    }

    pub(super) fn disk(&self, id: VmId) -> PathBuf {
        self.dir(id).join("disk.ext4")
    }

    /// Keeps within bounds what a machine's monitor writes, and counts what its monitor has counted. To be called every few seconds.
    pub(super) fn look_after(&self, id: VmId) {
        let dir = self.dir(id);
        self.hypervisor.trim_logs(&dir);
        self.hypervisor.tidy(&dir);
        metrics::monitor(&self.hypervisor.take_counts(&dir));
    }

    /// Whether the VM has its writable disk.
    pub(super) fn has_disk(&self, id: VmId) -> bool {
        self.disk(id).exists()
    }

    /// Seals secrets for a VM; `version` counts their replacements.
    pub(super) fn seal(&self, vm: VmId, secrets: &SecretEnv, version: u64) -> Result<Sealed> {
        let bytes = match &self.sealer {
            _ if secrets.is_empty() => None,
            Some(sealer) => Some(sealer.seal(vm, secrets)?.into()),
            None => return Err(Error::invalid("secretEnv needs VM_SECRET_KEY to be set on the server")),
        };
        Ok(Sealed { bytes, version })
    }

    /// Gives a running VM's agent the VM's secrets. Doing it again does no harm but to its warm workers, which are replaced.
    pub(super) async fn give_secrets(&self, vm: VmId, sealed: &Sealed, guest: &GuestClient) -> Result<()> {
        self.faults.at(Step::Secrets)?;
        let secrets = sealed.open(self.sealer.as_deref(), vm)?;
        Ok(guest.set_secrets(&secrets.variables(), SECRETS_LIMIT).await?)
    }

    /// An error of a guest that did not come up, with the end of its console for the log.
    pub(super) fn failed_guest(&self, id: VmId, why: &dyn std::fmt::Display) -> Error {
        let console = self.hypervisor.log_file(&self.dir(id), Log::Serial);
        let end = super::logs::tail(&console, 20).map(|tail| tail.lines.join("\n")).unwrap_or_default();
        // One line of the log, whatever the guest writes.
        Error::internal(format!("VM {id} did not come up; its console ended with {end:?}"), why.to_string())
    }

    /// Whether the disk that VMs write to is so full that one may have met its end.
    pub(super) fn is_crowded(&self) -> bool {
        rustix::fs::statvfs(&self.storage.storage_root)
            .is_ok_and(|facts| facts.f_bavail.saturating_mul(facts.f_frsize) < CROWDED_BYTES)
    }

    /// Ends the VM's machine at once, and takes its network away; the disk stays.
    pub(super) async fn end_machine(&self, id: VmId) -> Result<()> {
        self.kill_machine(id).await?;
        self.egress.close(id).await
    }

    pub(super) async fn kill_machine(&self, id: VmId) -> Result<()> {
        let ended = self.hypervisor.kill(&self.dir(id)).await;
        ended.map_err(|error| Error::internal(format!("cannot end the machine of VM {id}"), error))
    }

    /// Removes everything that the VM has on the host. Can be repeated.
    pub(super) async fn teardown(&self, id: VmId) -> Result<()> {
        self.end_machine(id).await?;
        let dir = self.dir(id);
        match tokio::fs::remove_dir_all(&dir).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::internal(format!("cannot remove {}", dir.display()), error))
            }
            _ => Ok(()),
        }
    }
}
