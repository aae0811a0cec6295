//! What is known of a VM: the part that never changes, and the part that does.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rds_vmm::VmId;
use rds_vmm::guest::GuestClient;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::idle::{Idle, IdleAction};
use super::request::NewVm;
use super::state::VmState;
use crate::clock;
use crate::egress::{NetworkPolicy, NetworkView};
use crate::error::{Error, Result};
use crate::peers::PeerLink;
use crate::peers::link::Link;
use crate::peers::token::BridgeToken;
use crate::secrets::{Sealer, SecretEnv};
use crate::store::vms::VmRow;

/// State column of a VM that was accepted and has never run. A manager that finds one at its start removes it.
pub(super) const HALF_MADE: &str = "CREATED";

/// State column of a VM whose deletion was accepted. A manager that finds one at its start finishes the deletion.
pub(super) const DELETED: &str = "DELETED";

/// The part of a VM that never changes after its creation.
#[derive(Debug, Clone)]
pub struct VmRecord {
    /// Its identity.
    pub id: VmId,
    /// What was asked for.
    pub spec: NewVm,
    /// The image it runs on.
    pub image_id: String,
    /// The snapshot that its disk is made from; not known any more once it was made.
    pub snapshot: Option<String>,
    /// What it began as.
    pub provision: Provision,
    /// A small number that no other living VM has; names derived from it never collide.
    pub host_index: u32,
    /// Milliseconds since the Unix epoch.
    pub created_at: i64,
}

/// How long each part of a start took, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Timings {
    /// Until it was its turn, and the image was looked up.
    pub queue_ms: f64,
    /// Making the writable disk and the initramfs.
    pub disk_ms: f64,
    /// Making the network interface and its rules.
    pub network_ms: f64,
    /// Starting the virtual machine monitor, if the VM was booted.
    pub boot_ms: f64,
    /// Restoring the machine from a seed, if it was not booted.
    pub restore_ms: f64,
    /// Until the agent's first answer.
    pub agent_ms: f64,
    /// Telling the guest who it is.
    pub configure_ms: f64,
    /// Putting its peers in place.
    pub peers_ms: f64,
    /// All of the start.
    pub total_ms: f64,
}

impl Timings {
    /// The parts by name, without those that there were none of.
    pub(super) fn steps(&self) -> Vec<(&'static str, f64)> {
        let steps = [
            ("queue", self.queue_ms),
            ("disk", self.disk_ms),
            ("network", self.network_ms),
            ("boot", self.boot_ms),
            ("restore", self.restore_ms),
            ("agent", self.agent_ms),
            ("configure", self.configure_ms),
            ("peers", self.peers_ms),
        ];
        steps.into_iter().filter(|(_, ms)| *ms > 0.0).collect()
    }
}

/// How a VM came up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartedFrom {
    /// From its kernel.
    Boot,
    /// From the memory of an idle machine.
    Seed,
    /// From an idle machine that ran already.
    Pool,
    /// From another VM's memory.
    Snapshot,
}

impl StartedFrom {
    /// The word of the wire contract.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Seed => "seed",
            Self::Pool => "pool",
            Self::Snapshot => "snapshot",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Boot, Self::Seed, Self::Pool, Self::Snapshot].into_iter().find(|from| from.as_str() == text)
    }
}

/// What a VM began as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provision {
    /// A machine that nothing had happened in.
    Boot,
    /// A copy of another VM's machine.
    Snapshot,
}

impl Provision {
    /// The word of the wire contract.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Snapshot => "snapshot",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Boot, Self::Snapshot].into_iter().find(|provision| provision.as_str() == text)
    }
}

/// The last start of a VM.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LastStart {
    pub from: StartedFrom,
    pub timings: Timings,
}

impl LastStart {
    /// The start that was written down, if there was one.
    fn from_row(row: &VmRow) -> Option<Self> {
        let from = StartedFrom::parse(row.started_from.as_deref()?)?;
        Some(Self { from, timings: serde_json::from_str(&row.timings).ok()? })
    }
}

/// A VM's secrets, sealed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Sealed {
    /// `None` if it has none.
    pub bytes: Option<Arc<[u8]>>,
    /// Counts their replacements, from 1.
    pub version: u64,
}

impl Sealed {
    /// The secrets in clear, for as long as the caller keeps them.
    pub(crate) fn open(&self, sealer: Option<&Sealer>, vm: VmId) -> Result<SecretEnv> {
        match (&self.bytes, sealer) {
            (None, _) => Ok(SecretEnv::default()),
            (Some(bytes), Some(sealer)) => sealer.open(vm, bytes),
            (Some(_), None) => Err(Error::conflict("The VM has secrets, and the server runs without VM_SECRET_KEY")),
        }
    }

    /// Their column.
    pub(super) fn column(&self) -> Option<String> {
        self.bytes.as_ref().map(|bytes| STANDARD.encode(bytes))
    }
}

/// What changes in a VM's life and is written down.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// Its secrets.
    pub sealed: Sealed,
    /// The providers it is linked to.
    pub links: Arc<[Link]>,
    /// What it may reach.
    pub network: NetworkPolicy,
    /// The token of its present start, if it is linked to providers.
    pub bridge: Option<BridgeToken>,
    /// How it came up the last time.
    pub last_start: Option<LastStart>,
}

/// The part of a VM that changes, as its task publishes it.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub state: VmState,
    /// The connection to its agent; `None` while there is none, which for a running VM is a short while.
    pub guest: Option<GuestClient>,
    /// Why it is in state ERROR, or why it is stopped though nobody asked.
    pub error: Option<String>,
    /// Its deletion was accepted: it is not to be found any more.
    pub deleted: bool,
    /// What is written down of it.
    pub settings: Settings,
}

/// A VM as clients see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Vm)]
pub struct VmView {
    /// Lower-case UUID.
    pub id: String,
    /// Where it is in its life.
    pub state: VmState,
    /// Virtual CPUs.
    pub cpu: u8,
    /// Memory in MiB.
    pub mem_mb: u32,
    /// Whether anything may leave it.
    pub outbound_internet: bool,
    /// What it may reach.
    pub allow_ips: Vec<String>,
    /// What it may reach by name.
    pub allow_domains: Vec<String>,
    /// Address of its `eth0`; absent where VMs have no network.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "172.16.0.2")]
    pub guest_ip: Option<Ipv4Addr>,
    /// What it sent and received since it was started, a few seconds ago; absent while it has no network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkView>,
    /// Size of its writable disk in MiB.
    pub disk_size_mb: u64,
    /// RFC 3339, milliseconds, `Z`.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// `boot` for every plain create, however the VM really came up; `snapshot` for a copy of another VM's memory.
    #[schema(example = "boot")]
    pub provision_mode: String,
    /// How it really came up the last time: `boot`, `seed`, `pool`, or `snapshot` for a copy of another VM's memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "boot")]
    pub started_from: Option<String>,
    /// The image it runs on.
    pub image_id: String,
    /// The providers it is linked to.
    pub peer_links: Vec<PeerLink>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When it will be deleted by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    /// Its `ttlSeconds`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// Its `idleTimeoutSeconds`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout_seconds: Option<u64>,
    /// What is done when it is idle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_action: Option<IdleAction>,
    /// How long its last start took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timings: Option<Timings>,
    /// Why it is in state ERROR, or stopped though nobody asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a VM has of the network.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    pub(super) address: Option<Ipv4Addr>,
    pub(super) counted: Option<NetworkView>,
}

impl VmRecord {
    /// The snapshot or draft whose memory it goes on from.
    pub(super) fn copied_from(&self) -> Option<&str> {
        self.snapshot.as_deref().filter(|_| self.provision == Provision::Snapshot)
    }

    /// When the VM is to be deleted by itself, in milliseconds since the Unix epoch.
    pub fn expires_at(&self) -> Option<i64> {
        let ttl = i64::try_from(self.spec.ttl?.as_millis()).unwrap_or(i64::MAX);
        Some(self.created_at.saturating_add(ttl))
    }

    /// The VM for a client.
    pub(super) fn view(&self, live: &Live, place: Place) -> VmView {
        VmView {
            id: self.id.to_string(),
            state: live.state,
            cpu: self.spec.vcpus,
            mem_mb: self.spec.mem_mib,
            outbound_internet: live.settings.network.outbound_internet,
            allow_ips: live.settings.network.allow_ips.clone(),
            allow_domains: live.settings.network.allow_domains.clone(),
            guest_ip: place.address,
            network: place.counted,
            disk_size_mb: self.spec.disk_bytes >> 20,
            created_at: clock::rfc3339(self.created_at),
            provision_mode: self.provision.as_str().into(),
            started_from: live.settings.last_start.map(|start| start.from.as_str().into()),
            image_id: self.image_id.clone(),
            peer_links: live.settings.links.iter().map(Link::view).collect(),
            name: self.spec.name.clone(),
            labels: self.spec.labels.clone(),
            expires_at: self.expires_at().map(clock::rfc3339),
            ttl_seconds: self.spec.ttl.map(|ttl| ttl.as_secs()),
            idle_timeout_seconds: self.spec.idle.map(|idle| idle.after.as_secs()),
            idle_action: self.spec.idle.map(|idle| idle.action),
            timings: live.settings.last_start.map(|start| start.timings),
            error: live.error.clone(),
        }
    }

    /// The VM as it is first written down.
    pub(super) fn to_row(&self, settings: &Settings, address: Option<Ipv4Addr>) -> VmRow {
        VmRow {
            id: self.id.to_string(),
            state: HALF_MADE.into(),
            cpu: self.spec.vcpus.into(),
            mem_mb: self.spec.mem_mib.into(),
            disk_bytes: i64::try_from(self.spec.disk_bytes).unwrap_or(i64::MAX),
            image_id: self.image_id.clone(),
            host_index: self.host_index.into(),
            guest_ip: address.map(|address| address.to_string()).unwrap_or_default(),
            outbound_internet: settings.network.outbound_internet.into(),
            allow_ips: to_json(&settings.network.allow_ips),
            allow_domains: to_json(&settings.network.allow_domains),
            name: self.spec.name.clone(),
            labels: to_json(&self.spec.labels),
            ttl_seconds: self.spec.ttl.map(|ttl| i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX)),
            idle_timeout_seconds: self.spec.idle.map(|idle| i64::try_from(idle.after.as_secs()).unwrap_or(i64::MAX)),
            idle_action: self.spec.idle.map_or_else(IdleAction::default, |idle| idle.action).as_str().into(),
            provision_mode: self.provision.as_str().into(),
            started_from: None,
            timings: "{}".into(),
            secrets: settings.sealed.column(),
            secrets_version: i64::try_from(settings.sealed.version).unwrap_or(i64::MAX),
            peer_links: links_column(&settings.links),
            bridge_hash: None,
            error: None,
            created_at: self.created_at,
        }
    }

    /// The VM that was written down.
    pub(super) fn from_row(row: &VmRow) -> Result<(Self, Settings)> {
        let broken =
            |what: &str| Error::internal(format!("VM {} is written down with a bad {what}", row.id), "bad row");
        let vm = Self {
            id: row.id.parse().map_err(|_| broken("id"))?,
            spec: NewVm {
                vcpus: u8::try_from(row.cpu).map_err(|_| broken("cpu"))?,
                mem_mib: u32::try_from(row.mem_mb).map_err(|_| broken("memory size"))?,
                disk_bytes: u64::try_from(row.disk_bytes).map_err(|_| broken("disk size"))?,
                image_id: Some(row.image_id.clone()),
                name: row.name.clone(),
                labels: serde_json::from_str(&row.labels).map_err(|_| broken("label"))?,
                ttl: seconds(row.ttl_seconds),
                idle: match seconds(row.idle_timeout_seconds) {
                    None => None,
                    Some(after) => Some(Idle {
                        after,
                        action: IdleAction::parse(&row.idle_action).ok_or_else(|| broken("idle action"))?,
                    }),
                },
            },
            image_id: row.image_id.clone(),
            snapshot: None,
            provision: Provision::parse(&row.provision_mode).ok_or_else(|| broken("provision mode"))?,
            host_index: u32::try_from(row.host_index).map_err(|_| broken("host index"))?,
            created_at: row.created_at,
        };
        let sealed = row.secrets.as_ref().map(|text| STANDARD.decode(text)).transpose();
        let bytes = sealed.map_err(|_| broken("secret"))?.map(Arc::from);
        let sealed = Sealed { bytes, version: u64::try_from(row.secrets_version).unwrap_or(1) };
        let links: Vec<PeerLink> = serde_json::from_str(&row.peer_links).map_err(|_| broken("link"))?;
        let links = Link::parse_all(&links)?.into();
        let bridge = row.bridge_hash.as_deref().and_then(BridgeToken::from_hash);
        let network = NetworkPolicy {
            outbound_internet: row.outbound_internet != 0,
            allow_ips: serde_json::from_str(&row.allow_ips).map_err(|_| broken("allow list"))?,
            allow_domains: serde_json::from_str(&row.allow_domains).map_err(|_| broken("allow list"))?,
        };
        Ok((vm, Settings { sealed, links, network, bridge, last_start: LastStart::from_row(row) }))
    }
}

/// A time in a column.
fn seconds(column: Option<i64>) -> Option<Duration> {
    column.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs)
}

/// The column of a VM's links.
pub(super) fn links_column(links: &[Link]) -> String {
    to_json(&links.iter().map(Link::view).collect::<Vec<_>>())
}

/// Text for a JSON column.
pub(super) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("maps with string keys and plain values always have a JSON form")
}
