//! What a VM may reach, as clients say it.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use rds_names::Domains;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::error::{Error, Result};

/// What a VM may reach. Every entry was checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Whether anything may leave it.
    pub outbound_internet: bool,
    /// Addresses and networks, as the client wrote them.
    pub allow_ips: Vec<String>,
    /// Names, as the client wrote them.
    pub allow_domains: Vec<String>,
}

/// A change of what a VM may reach. What is absent stays.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PatchNetwork {
    /// Whether anything may leave the VM at all.
    pub outbound_internet: Option<bool>,
    /// What it may reach then: IPv4 addresses or CIDR ranges, at most `MAX_ALLOW_IPS`. A private network needs an entry
    /// of its own.
    pub allow_ips: Option<Vec<String>>,
    /// Names that it may reach besides, such as `api.github.com` or `*.googleapis.com`.
    pub allow_domains: Option<Vec<String>>,
}

impl NetworkPolicy {
    /// Checks every entry; the first fault is the error.
    pub(crate) fn checked(self, max_allow_ips: u32) -> Result<Self> {
        if self.allow_ips.len() > max_allow_ips as usize {
            let message = format!("allowIps has {} entries; at most {max_allow_ips}", self.allow_ips.len());
            return Err(Error::Invalid(message));
        }
        if let Some(bad) = self.allow_ips.iter().find(|entry| network(entry).is_none()) {
            let message = format!("allowIps: {bad:?} is neither an IPv4 address nor an IPv4 CIDR range");
            return Err(Error::Invalid(message));
        }
        let domains = Domains::parse(&self.allow_domains);
        domains.map_err(|error| Error::Invalid(format!("allowDomains: {error}")))?;
        Ok(self)
    }

    /// The policy with a change made to it.
    pub(crate) fn patched(&self, patch: PatchNetwork) -> Self {
        Self {
            outbound_internet: patch.outbound_internet.unwrap_or(self.outbound_internet),
            allow_ips: patch.allow_ips.unwrap_or_else(|| self.allow_ips.clone()),
            allow_domains: patch.allow_domains.unwrap_or_else(|| self.allow_domains.clone()),
        }
    }

    /// The networks among them.
    pub(crate) fn networks(&self) -> Vec<Ipv4Net> {
        self.allow_ips.iter().filter_map(|entry| network(entry)).collect()
    }

    /// Whether there are names that it may reach.
    pub(super) fn names_anything(&self) -> bool {
        self.outbound_internet && !self.allow_domains.is_empty()
    }

    /// For the resolver and the gate.
    pub(super) fn names(&self) -> rds_names::Policy {
        // Every entry was checked; one that was not would allow nothing.
        rds_names::Policy { domains: Domains::parse(&self.allow_domains).unwrap_or_default(), trusted: self.networks() }
    }
}

/// An IPv4 address, or one with a prefix length from 0 to 32 in plain digits.
fn network(text: &str) -> Option<Ipv4Net> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) if length.len() <= 2 && length.bytes().all(|byte| byte.is_ascii_digit()) => {
            (address, length.parse().ok()?)
        }
        Some(_) => return None,
        None => (text, 32),
    };
    Ipv4Net::new(address.parse::<Ipv4Addr>().ok()?, length).ok()
}
