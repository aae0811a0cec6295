//! A VM as it is written down.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::idle::{Idle, IdleAction};
use super::last_start::LastStart;
use super::record::{Generations, Provision, Sealed, Settings, VmRecord};
use super::request::NewVm;
use crate::egress::NetworkPolicy;
use crate::error::{Error, Result};
use crate::peers::PeerLink;
use crate::peers::link::Link;
use crate::peers::token::BridgeToken;
use crate::store::vms::VmRow;

/// State column of a VM that was accepted and has never run. A manager that finds one at its start removes it.
pub(super) const HALF_MADE: &str = "CREATED";

/// State column of a VM whose deletion was accepted. A manager that finds one at its start finishes the deletion.
pub(super) const DELETED: &str = "DELETED";

impl VmRecord {
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
            fits: None,
            secrets: settings.secrets.newest.column(),
            secrets_version: i64::try_from(settings.secrets.newest.version).unwrap_or(i64::MAX),
            secrets_due: settings.secrets.due.into(),
            secrets_held: settings.secrets.held.into(),
            peer_links: links_column(&settings.links),
            bridge_hash: None,
            error: None,
            created_at: self.created_at,
            limits: to_json(&self.spec.limits),
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
                limits: serde_json::from_str(&row.limits).map_err(|_| broken("limit"))?,
            },
            image_id: row.image_id.clone(),
            base: None,
            provision: Provision::parse(&row.provision_mode).ok_or_else(|| broken("provision mode"))?,
            host_index: u32::try_from(row.host_index).map_err(|_| broken("host index"))?,
            created_at: row.created_at,
        };
        let sealed = row.secrets.as_ref().map(|text| STANDARD.decode(text)).transpose();
        let bytes = sealed.map_err(|_| broken("secret"))?.map(Arc::from);
        let newest = Sealed { bytes, version: u64::try_from(row.secrets_version).unwrap_or(1) };
        let (due, held) = (row.secrets_due != 0, row.secrets_held != 0);
        let secrets = Generations { newest, replaced: None, due, held };
        let links: Vec<PeerLink> = serde_json::from_str(&row.peer_links).map_err(|_| broken("link"))?;
        let links = Link::parse_all(&links)?.into();
        let bridge = row.bridge_hash.as_deref().and_then(BridgeToken::from_hash);
        let network = NetworkPolicy {
            outbound_internet: row.outbound_internet != 0,
            allow_ips: serde_json::from_str(&row.allow_ips).map_err(|_| broken("allow list"))?,
            allow_domains: serde_json::from_str(&row.allow_domains).map_err(|_| broken("allow list"))?,
        };
        Ok((vm, Settings { secrets, links, network, bridge, last_start: LastStart::from_row(row) }))
    }
}

impl Sealed {
    /// Their column.
    pub(super) fn column(&self) -> Option<String> {
        self.bytes.as_ref().map(|bytes| STANDARD.encode(bytes))
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
