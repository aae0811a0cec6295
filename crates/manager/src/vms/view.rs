//! A VM as clients see it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::idle::IdleAction;
use super::last_start::Timings;
use super::limits::Limits;
use super::record::{Live, VmRecord};
use super::state::VmState;
use crate::clock;
use crate::egress::NetworkView;
use crate::peers::PeerLink;
use crate::peers::link::Link;

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
    /// How fast it may use its disk and its network, and how much of its memory it is to keep to; absent without limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
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
            started_from: live.settings.last_start.as_ref().map(|start| start.from.as_str().into()),
            image_id: self.image_id.clone(),
            peer_links: live.settings.links.iter().map(Link::view).collect(),
            name: self.spec.name.clone(),
            labels: self.spec.labels.clone(),
            expires_at: self.expires_at().map(clock::rfc3339),
            ttl_seconds: self.spec.ttl.map(|ttl| ttl.as_secs()),
            idle_timeout_seconds: self.spec.idle.map(|idle| idle.after.as_secs()),
            idle_action: self.spec.idle.map(|idle| idle.action),
            limits: self.spec.limits.view(),
            timings: live.settings.last_start.as_ref().map(|start| start.timings),
            error: live.error.clone(),
        }
    }
}
