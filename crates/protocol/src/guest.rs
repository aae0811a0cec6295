//! Telling a guest who it is, and asking how it is.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// What an agent answers to a health check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// [`crate::GENERATION`] of the agent.
    pub generation: u32,
    /// Whether [`Configure`] was carried out.
    pub configured: bool,
    /// Milliseconds since the guest's kernel started.
    pub uptime_ms: u64,
    /// Resident memory of the agent in bytes.
    pub resident_bytes: u64,
}

/// Everything that makes an anonymous, booted guest into one VM.
///
/// It is sent once, after a cold boot and after a restore from a seed alike, so both ways end in the same code. A copy of
/// a running VM gets one too, by a route of its own.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Configure {
    /// Host name of the guest.
    pub hostname: String,
    /// Contents of `/etc/machine-id`: 32 lower-case hex digits, new for every start.
    pub machine_id: String,
    /// Wall clock in microseconds since the Unix epoch, read as late as possible.
    pub clock_us: u64,
    /// At least 32 bytes for the kernel's entropy pool, in base64.
    pub entropy: String,
    /// Environment of the VM's secrets. Kept in the agent's memory and given to programs it runs.
    pub secret_env: BTreeMap<String, String>,
    /// Bytes that the writable disk has and its filesystem is to fill; absent if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grow_disk_to: Option<u64>,
    /// What its network interface gets; absent if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
}

/// What a guest's `eth0` gets before it is brought up. The way out is one point-to-point link: there is nobody else on it,
/// and neither end asks for the other's hardware address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// Its hardware address, such as `02:fc:ac:10:00:05`.
    pub mac: String,
    /// Its one address.
    pub address: Ipv4Addr,
    /// Where everything goes.
    pub gateway: Ipv4Addr,
    /// The gateway's hardware address.
    pub gateway_mac: String,
    /// Whom the guest asks for names.
    pub resolver: Ipv4Addr,
}

impl std::fmt::Debug for Configure {
    /// Names the secrets, never their values.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Configure")
            .field("hostname", &self.hostname)
            .field("secret_env", &self.secret_env.keys())
            .finish_non_exhaustive()
    }
}

/// By how much the wall clock is to be put forward, or back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdjustClock {
    /// Microseconds.
    pub by_us: i64,
}

/// The guest's wall clock. The manager's clock when it reads this, less this, is how long the answer took and how far the
/// clocks are apart together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Clock {
    /// Microseconds since the Unix epoch.
    pub clock_us: u64,
}

/// The disk was as it was at one moment, from a freeze to this answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Thawed {
    /// How long nothing could be written, in microseconds.
    pub frozen_us: u64,
}

/// Body of every reply of the agent with a status of 400 or more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentError {
    /// What went wrong, for a person.
    pub message: String,
}
