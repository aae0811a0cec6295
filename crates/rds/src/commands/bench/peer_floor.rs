//! The least that a call between two VMs can cost: its bytes to a consumer's agent and back, and to a provider's agent
//! and back. No worker, no manager, no process in the guest.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rds_image::disk;
use rds_manager::hypervisor;
use rds_protocol::guest::Configure;
use rds_protocol::link::History;
use rds_protocol::peer::Call;
use rds_vmm::guest::{GuestClient, GuestError};
use rds_vmm::qemu::Qemu;
use rds_vmm::{Hypervisor, MachineSpec, VmId};
use serde_json::json;
use tempfile::TempDir;

use super::cold::only_file;
use super::server::{BenchServer, settings_from_environment};
use crate::error::CliError;

const LIMIT: Duration = Duration::from_secs(60);

/// Round trips at a time.
const ROUND_TRIPS: usize = 200;

/// Two machines whose agents are VMs that nobody knows.
pub(super) struct ByHand {
    qemu: Arc<Qemu>,
    dirs: Vec<PathBuf>,
    guests: Vec<GuestClient>,
    _scratch: TempDir,
}

impl ByHand {
    /// Boots both.
    pub(super) async fn boot(server: &BenchServer) -> Result<Self, CliError> {
        let failed = |error: &dyn std::fmt::Display| CliError::Failed(format!("machines by hand: {error}"));
        let qemu = Qemu::new(hypervisor::settings(&settings_from_environment()?)).await;
        let qemu = Arc::new(qemu.map_err(|error| failed(&error))?);
        let scratch = tempfile::tempdir().map_err(CliError::file("temporary directory"))?;
        let mut by_hand = Self { qemu, dirs: Vec::new(), guests: Vec::new(), _scratch: scratch };
        for name in ["consumer", "provider"] {
            let dir = by_hand._scratch.path().join(name);
            std::fs::create_dir(&dir).map_err(CliError::file(&dir))?;
            let template = only_file(&server.root().join("templates"))?;
            let writable = dir.join("disk.ext4");
            disk::clone_sparse(&template, &writable, disk::CloneMode::Auto).map_err(|error| failed(&error))?;
            let spec = MachineSpec {
                id: VmId::new(),
                vcpus: 1,
                mem_mib: 256,
                kernel: server.image().kernel.clone(),
                initramfs: only_file(&server.root().join("initramfs"))?,
                rootfs: server.image().rootfs.clone(),
                disk: writable,
                dir: dir.clone(),
                user: None,
                nic: None,
                rehearse: false,
                background: false,
            };
            by_hand.dirs.push(dir.clone());
            by_hand.qemu.boot(&spec).await.map_err(|error| failed(&error))?;
            let guest = GuestClient::connect(&*by_hand.qemu, &dir, History::Fresh, LIMIT).await;
            let guest = guest.map_err(|error| failed(&error))?;
            guest.configure(&identity(name), LIMIT).await.map_err(|error| failed(&error))?;
            by_hand.guests.push(guest);
        }
        Ok(by_hand)
    }

    /// Milliseconds of each round trip: consumer's agent and back, then provider's agent and back.
    pub(super) async fn round_trips(&self) -> Result<Vec<f64>, CliError> {
        let call = Call {
            module: "/workspace/sdk.ts".into(),
            export: "add".into(),
            args: vec![json!(1), json!(2)],
            timeout_ms: 30_000,
        };
        let mut times = Vec::new();
        for _ in 0..ROUND_TRIPS {
            let begun = Instant::now();
            for guest in &self.guests {
                // Nothing was offered, so the agent answers by itself.
                match guest.call(&call, LIMIT).await {
                    Err(GuestError::Status { status: 409, .. }) => {}
                    other => return Err(CliError::Failed(format!("an agent by hand answered {other:?}"))),
                }
            }
            times.push(begun.elapsed().as_secs_f64() * 1000.0);
        }
        Ok(times)
    }

    /// Ends both.
    pub(super) async fn end(self) {
        for dir in &self.dirs {
            let _ = self.qemu.kill(dir).await;
        }
    }
}

fn identity(name: &str) -> Configure {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Configure {
        hostname: name.into(),
        machine_id: "0".repeat(32),
        clock_us: u64::try_from(now.as_micros()).unwrap_or(0),
        // The benchmark has no secrets; these guests need no good random numbers.
        entropy: "A".repeat(88),
        secret_env: std::collections::BTreeMap::new(),
        grow_disk_to: None,
        network: None,
    }
}
