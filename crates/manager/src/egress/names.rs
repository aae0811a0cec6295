//! What VMs may reach by name: each VM's list is handed to the resolver and the gate of [`rds_names`], and what these
//! refuse becomes events.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use ipnet::Ipv4Net;
use rds_egress::{AZURE_HOST, GATE_PORT, Network, SPECIAL};
use rds_names::{Config, Names, Notice, Report, upstream_servers};
use rds_vmm::VmId;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::NetworkPolicy;
use crate::activity::Activity;
use crate::config::NetworkConfig;
use crate::error::{Error, Result};

/// The resolver's port: guests know no other.
const RESOLVER_PORT: u16 = 53;

/// Events that wait to be written down. What comes when so many do is told when it comes again.
const BACKLOG: usize = 256;

/// The service. Without it, or where it cannot run, no VM reaches anything by name.
#[derive(Debug)]
pub(super) struct NameService(std::result::Result<Names, String>);

/// Where the service runs, and whom it asks.
#[derive(Debug, Clone)]
pub(super) struct Place {
    gateway: Ipv4Addr,
    guests: Ipv4Net,
    /// Those of this host if absent.
    upstream: Option<Ipv4Addr>,
}

impl Place {
    pub(super) fn of(network: &Network, config: &NetworkConfig) -> Self {
        let subnet = network.subnet();
        Self { gateway: subnet.gateway(), guests: subnet.network(), upstream: config.dns_server_ip }
    }
}

impl NameService {
    /// Starts to serve at `place`. Where that is not possible, [`Self::check`] tells why.
    pub(super) fn start(place: &Place, activity: Activity) -> Self {
        Self(serve(place, activity).inspect_err(|why| tracing::warn!(why, "VMs cannot reach anything by name")))
    }

    /// A service that refuses, and says why.
    pub(super) fn unavailable(why: &str) -> Self {
        Self(Err(why.to_owned()))
    }

    /// Whether a VM with this policy is served.
    pub(super) fn serves(&self, policy: &NetworkPolicy) -> bool {
        self.0.is_ok() && policy.names_anything()
    }

    /// Says no where nothing can be reached by name.
    pub(super) fn check(&self) -> Result<()> {
        let refusal = |why: &String| Error::Invalid(format!("allowDomains is not possible on this server: {why}"));
        self.0.as_ref().map(|_| ()).map_err(refusal)
    }

    /// What a VM may reach from now on.
    pub(super) fn set(&self, vm: VmId, address: Ipv4Addr, policy: &NetworkPolicy) {
        let Ok(names) = &self.0 else { return };
        if policy.names_anything() {
            names.set(address, &vm.to_string(), policy.names());
        } else {
            names.remove(address);
        }
    }

    /// Ends all that the VM at this address has open. Can be repeated.
    pub(super) fn remove(&self, address: Ipv4Addr) {
        if let Ok(names) = &self.0 {
            names.remove(address);
        }
    }
}

fn serve(place: &Place, activity: Activity) -> std::result::Result<Names, String> {
    let upstream = match place.upstream {
        Some(address) => vec![SocketAddr::new(address.into(), RESOLVER_PORT)],
        None => upstream_servers(Path::new("/etc/resolv.conf")).map_err(|error| error.to_string())?,
    };
    let config = Config {
        gateway: place.gateway,
        range: place.guests,
        private: SPECIAL.into_iter().chain([AZURE_HOST.into()]).collect(),
        resolver_port: RESOLVER_PORT,
        gate_port: GATE_PORT,
        upstream,
    };
    Names::start(&config, Arc::new(Events::start(activity))).map_err(|error| error.to_string())
}

/// Writes down what was refused, one after the other, aside of what serves VMs.
#[derive(Debug)]
struct Events(mpsc::Sender<(String, Notice)>);

impl Events {
    fn start(activity: Activity) -> Self {
        let (sender, mut receiver) = mpsc::channel::<(String, Notice)>(BACKLOG);
        tokio::spawn(async move {
            while let Some((vm, notice)) = receiver.recv().await {
                activity.record("vm.egress_denied", &vm, notice.to_string(), Some(meta(&notice))).await;
            }
        });
        Self(sender)
    }
}

impl Report for Events {
    fn report(&self, guest: &str, notice: &Notice) -> bool {
        let taken = self.0.try_send((guest.to_owned(), notice.clone())).is_ok();
        if !taken {
            tracing::debug!(vm = guest, %notice, "an event is put off: there are too many");
        }
        taken
    }
}

/// What programs read of a refusal.
fn meta(notice: &Notice) -> Value {
    match notice {
        Notice::Name(name) => json!({"reason": "name", "name": name.as_str()}),
        Notice::Rebinding { name, address } => {
            json!({"reason": "rebinding", "name": name.as_str(), "destination": address})
        }
        Notice::Rate => json!({"reason": "lookup_rate"}),
        Notice::Tunnel => json!({"reason": "tunnel"}),
        Notice::Connections => json!({"reason": "connections"}),
        Notice::Connection { to, .. } => json!({"reason": "connection", "destination": to.ip(), "port": to.port()}),
    }
}
