//! The least that a call between two VMs can cost: its bytes to a consumer's agent and back, and to a provider's agent
//! and back. No worker, no manager, no process in the guest.

use std::future::ready;
use std::time::{Duration, Instant};

use rds_protocol::guest::Configure;
use rds_protocol::peer::Call;
use rds_vmm::guest::GuestError;
use serde_json::value::RawValue;

use super::by_hand::{ByHand, Machine};
use super::figure::milliseconds;
use super::server::BenchServer;
use crate::error::CliError;

const LIMIT: Duration = Duration::from_secs(60);

/// Round trips at a time.
const ROUND_TRIPS: usize = 200;

/// Two machines whose agents are VMs that nobody knows.
pub(super) struct Pair<'a> {
    by_hand: ByHand<'a>,
    machines: Vec<Machine>,
}

impl<'a> Pair<'a> {
    /// Boots both.
    pub(super) async fn boot(server: &'a BenchServer) -> Result<Self, CliError> {
        let mut pair = Self { by_hand: ByHand::new(server).await?, machines: Vec::new() };
        for name in ["consumer", "provider"] {
            let machine = pair.by_hand.start(None).await?;
            let configured = machine.guest.configure(&identity(name), LIMIT).await;
            pair.machines.push(machine);
            configured.map_err(|error| CliError::Failed(format!("a machine by hand: {error}")))?;
        }
        Ok(pair)
    }

    /// Milliseconds of each round trip: consumer's agent and back, then provider's agent and back.
    pub(super) async fn round_trips(&self) -> Result<Vec<f64>, CliError> {
        let call = Call {
            module: "/workspace/sdk.ts".into(),
            export: "add".into(),
            args: RawValue::from_string("[1,2]".into()).map_err(|error| CliError::Failed(error.to_string()))?,
            timeout_ms: 30_000,
        };
        let mut times = Vec::new();
        for _ in 0..ROUND_TRIPS {
            let begun = Instant::now();
            for machine in &self.machines {
                // Nothing was offered, so the agent answers by itself.
                match machine.guest.call(&call, |_| ready(()), LIMIT).await {
                    Err(GuestError::Status { status: 409, .. }) => {}
                    other => return Err(CliError::Failed(format!("an agent by hand answered {other:?}"))),
                }
            }
            times.push(milliseconds(begun));
        }
        Ok(times)
    }

    /// Ends both.
    pub(super) async fn end(self) -> Result<(), CliError> {
        for machine in self.machines {
            self.by_hand.end(machine).await?;
        }
        Ok(())
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
