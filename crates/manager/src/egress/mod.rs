//! The network of VMs: whose tap is whose, what is told of them, and what the operator and clients learn of it.
//!
//! The rules and how they are enforced are `rds-egress`'s. Without the rights or programs that it needs, VMs have no
//! network interface.

mod names;
mod policy;
mod watch;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rds_egress::{Counters, Denial, EgressError, Guest, Network, Policy, Settings};
use rds_protocol::guest::Network as GuestNetwork;
use rds_vmm::{Nic, VmId, privileges};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use policy::{NetworkPolicy, PatchNetwork};
pub(crate) use watch::watch;

use crate::activity::Activity;
use crate::config::{NetworkChoice, NetworkConfig};
use crate::error::{Error, Result};
use crate::hypervisor::MonitorUsers;
use crate::metrics;
use names::{NameService, Place};

/// Whom guests ask for names where the operator names nobody.
const RESOLVER: Ipv4Addr = Ipv4Addr::new(1, 1, 1, 1);

/// The service.
#[derive(Debug)]
pub struct Egress {
    /// Or why there is none, for people.
    network: Result<Network, String>,
    names: NameService,
    resolver: Ipv4Addr,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The VMs that have a tap.
    taps: HashMap<VmId, Guest>,
    counters: BTreeMap<u32, Counters>,
    /// What was told of each VM's denials.
    told: HashMap<VmId, HashSet<Ipv4Addr>>,
}

/// A VM whose machine runs, as an earlier server left it.
#[derive(Debug)]
pub(crate) struct Running {
    /// Which one.
    pub vm: VmId,
    /// Its number.
    pub index: u32,
    /// What it may reach.
    pub policy: NetworkPolicy,
    /// How fast, if that is limited.
    pub bytes_per_second: Option<u64>,
}

/// What a VM sent and received since it was started, as last looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkView {
    /// Bytes that passed, both ways.
    pub bytes: u64,
    /// Packets that passed, both ways.
    pub packets: u64,
    /// Packets of the VM's that did not pass.
    pub dropped: u64,
}

impl From<Counters> for NetworkView {
    fn from(Counters { sent, received, dropped }: Counters) -> Self {
        Self {
            bytes: sent.bytes.saturating_add(received.bytes),
            packets: sent.packets.saturating_add(received.packets),
            dropped: dropped.packets,
        }
    }
}

impl Egress {
    /// Takes the host's network, if the operator wants that and the host has it.
    pub async fn start(config: &NetworkConfig, users: MonitorUsers) -> Result<Self> {
        let network = match config.network {
            NetworkChoice::Off => Err("it is switched off (NETWORK=off)".to_owned()),
            NetworkChoice::Auto | NetworkChoice::On => Network::take(&settings(config, users)).await,
        };
        match &network {
            Ok(network) => tracing::info!(subnet = %network.subnet(), "VMs have a network interface"),
            Err(why) if config.network == NetworkChoice::On => {
                return Err(Error::Invalid(format!("NETWORK=on, but VMs can have no network: {why}")));
            }
            Err(why) => tracing::warn!(why, "VMs have no network interface"),
        }
        let resolver = config.dns_server_ip.unwrap_or(RESOLVER);
        let names = NameService::unavailable("the resolver was not started");
        Ok(Self { network, names, resolver, known: Mutex::default() })
    }

    /// The same, with the resolver and the gate for what VMs may reach by name.
    pub fn with_names(self, config: &NetworkConfig, activity: Activity) -> Self {
        let names = match &self.network {
            Ok(network) => NameService::start(&Place::of(network, config), activity),
            Err(why) => NameService::unavailable(why),
        };
        Self { names, ..self }
    }

    /// Whether VMs have a network interface.
    pub fn is_on(&self) -> bool {
        self.network.is_ok()
    }

    /// Why VMs have no network interface; `None` if they have one.
    pub fn missing(&self) -> Option<&str> {
        self.network.as_ref().err().map(String::as_str)
    }

    /// Refuses what cannot be had here.
    pub(crate) fn check(&self, policy: &NetworkPolicy) -> Result<()> {
        match &self.network {
            Err(why) if policy.outbound_internet => {
                Err(Error::Invalid(format!("outboundInternet is not possible on this server: {why}")))
            }
            _ if policy.names_anything() => self.names.check(),
            _ => Ok(()),
        }
    }

    /// The address of the VM with this index; `None` where VMs have no network. An error if there is none left.
    pub(crate) fn address(&self, index: u32) -> Result<Option<Ipv4Addr>> {
        Ok(self.guest(index)?.map(Guest::address))
    }

    fn guest(&self, index: u32) -> Result<Option<Guest>> {
        let Ok(network) = &self.network else { return Ok(None) };
        let subnet = network.subnet();
        let spent = || {
            let capacity = subnet.capacity();
            Error::Unavailable(format!("All {capacity} addresses of VM_SUBNET {subnet} are in use"))
        };
        network.guest(index).map(Some).ok_or_else(spent)
    }

    /// Makes a VM's tap, through which nothing passes yet. `owner` may open it besides root.
    pub(crate) async fn attach(&self, vm: VmId, index: u32, owner: Option<u32>) -> Result<Option<Nic>> {
        let (Ok(network), Some(guest)) = (&self.network, self.guest(index)?) else { return Ok(None) };
        self.known().taps.insert(vm, guest);
        network.attach(guest, owner).await.map_err(failed(vm, "make the tap"))?;
        Ok(Some(Nic { tap: guest.tap(), mac: guest.mac() }))
    }

    /// Lets a VM have what its policy allows, so many bytes a second each way.
    pub(crate) async fn open(&self, vm: VmId, policy: &NetworkPolicy, bytes_per_second: Option<u64>) -> Result<()> {
        let (Ok(network), Some(guest)) = (&self.network, self.tap(vm)) else { return Ok(()) };
        self.names.set(vm, guest.address(), policy);
        network.open(guest, self.rules(policy, bytes_per_second)).await.map_err(failed(vm, "open the network"))
    }

    /// Changes what a running VM may reach.
    pub(crate) async fn change(&self, vm: VmId, policy: &NetworkPolicy, bytes_per_second: Option<u64>) -> Result<()> {
        let (Ok(network), Some(guest)) = (&self.network, self.tap(vm)) else { return Ok(()) };
        network.change(guest, self.rules(policy, bytes_per_second)).await.map_err(failed(vm, "change the rules"))?;
        self.names.set(vm, guest.address(), policy);
        Ok(())
    }

    /// Takes everything of a VM's whose machine has ended. Can be repeated.
    pub(crate) async fn close(&self, vm: VmId) -> Result<()> {
        let (Ok(network), Some(guest)) = (&self.network, self.tap(vm)) else { return Ok(()) };
        let last = network.close(guest).await.map_err(failed(vm, "close the network"))?;
        self.names.remove(guest.address());
        self.known().forget(vm, guest, last);
        Ok(())
    }

    /// Gives the VMs whose machines run what they are to have, and takes away what belongs neither to one nor to a machine of
    /// the pool. A server without a network takes it from VMs that have one of an earlier server's: nothing that clients
    /// withdraw from now on would end otherwise.
    pub(crate) async fn restore(&self, running: Vec<Running>, pooled: Vec<(VmId, u32)>) -> Result<()> {
        let network = match &self.network {
            Ok(network) => network,
            Err(why) => {
                let indices = running.iter().map(|running| running.index);
                let shut = rds_egress::shut(indices.chain(pooled.iter().map(|(_, index)| *index)).collect()).await;
                let message =
                    || format!("VMs run with a network, this server has none ({why}) and cannot take it away");
                return shut.map_err(|error| Error::internal(message(), error));
            }
        };
        let mut guests = Vec::new();
        for Running { vm, index, policy, bytes_per_second } in running {
            // One that has no address any more keeps nothing.
            if let Some(guest) = network.guest(index) {
                self.known().taps.insert(vm, guest);
                self.names.set(vm, guest.address(), &policy);
                guests.push((guest, self.rules(&policy, bytes_per_second)));
            }
        }
        let mut idle = Vec::new();
        for (vm, index) in pooled {
            if let Some(guest) = network.guest(index) {
                self.known().taps.insert(vm, guest);
                idle.push(guest);
            }
        }
        let failed = |error| Error::internal("cannot restore the rules of VMs' networks", error);
        network.restore(guests, idle).await.map_err(failed)?;
        // What was counted before this server's time is no news of it.
        self.known().counters = network.look().await.map_err(failed)?.0;
        Ok(())
    }

    /// What the firewall is to do for a VM. Without our resolver and gate nothing is led to them: their ports may be anybody's.
    fn rules(&self, policy: &NetworkPolicy, bytes_per_second: Option<u64>) -> Policy {
        Policy {
            outbound: policy.outbound_internet,
            allow: policy.networks(),
            by_name: self.names.serves(policy),
            resolver: Some(self.resolver),
            bytes_per_second,
        }
    }

    /// What a VM's guest is told.
    pub(crate) fn guest_network(&self, vm: VmId, policy: &NetworkPolicy) -> Option<GuestNetwork> {
        let (network, guest) = (self.network.as_ref().ok()?, self.tap(vm)?);
        let subnet = network.subnet();
        Some(GuestNetwork {
            mac: guest.mac().to_string(),
            address: guest.address(),
            gateway: subnet.gateway(),
            gateway_mac: subnet.gateway_mac().to_string(),
            resolver: if self.names.serves(policy) { subnet.gateway() } else { self.resolver },
        })
    }

    /// The tap of a machine that makes a seed; `None` where VMs have no network.
    pub(crate) async fn attach_nobody(&self, owner: Option<u32>) -> Result<Option<Nic>> {
        let (Ok(network), Some(guest)) = (&self.network, self.guest(0)?) else { return Ok(None) };
        let tap = network.attach_nobody(owner).await;
        let tap = tap.map_err(|error| Error::internal("cannot make the tap of a seed", error))?;
        // Any address will do: a VM's agent sets the VM's own.
        Ok(Some(Nic { tap: tap.to_owned(), mac: guest.mac() }))
    }

    /// Removes that tap, if it is there.
    pub(crate) async fn detach_nobody(&self) -> Result<()> {
        let Ok(network) = &self.network else { return Ok(()) };
        network.detach_nobody().await.map_err(|error| Error::internal("cannot remove the tap of a seed", error))
    }

    /// Ends what nobody needs when there is neither a server nor a VM.
    pub(crate) async fn end(&self) {
        let Ok(network) = &self.network else { return };
        if let Err(error) = network.end().await {
            tracing::warn!(%error, "cannot end what guards VMs' networks");
        }
    }

    /// What was counted of a VM; `None` if it has no tap.
    pub(crate) fn view(&self, vm: VmId) -> Option<NetworkView> {
        let known = self.known();
        let guest = known.taps.get(&vm)?;
        Some(known.counters.get(&guest.number()).copied().unwrap_or_default().into())
    }

    fn tap(&self, vm: VmId) -> Option<Guest> {
        self.known().taps.get(&vm).copied()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn settings(config: &NetworkConfig, users: MonitorUsers) -> Settings {
    let users = users.all();
    // A server that is one of these users itself must not be cut off.
    let apart = privileges::has_users() && !users.contains(&rustix::process::geteuid().as_raw());
    let monitors = apart.then_some(users);
    Settings { subnet: config.vm_subnet, monitors }
}

fn failed(vm: VmId, what: &'static str) -> impl FnOnce(EgressError) -> Error {
    move |error| Error::internal(format!("cannot {what} of VM {vm}"), error)
}

impl Known {
    /// Keeps what was counted by now, and tells the metrics what is new. It may be from before a VM's end.
    fn count(&mut self, mut now: BTreeMap<u32, Counters>) {
        let taps: HashSet<u32> = self.taps.values().map(|guest| guest.number()).collect();
        now.retain(|number, _| taps.contains(number));
        let then = std::mem::replace(&mut self.counters, now);
        for (number, now) in &self.counters {
            metrics::network(&now.since(then.get(number).unwrap_or(&Counters::default())));
        }
    }

    /// Drops all of a VM, of which `last` was counted to its end.
    fn forget(&mut self, vm: VmId, guest: Guest, last: Counters) {
        self.taps.remove(&vm);
        self.told.remove(&vm);
        metrics::network(&last.since(&self.counters.remove(&guest.number()).unwrap_or_default()));
    }

    /// The VM that a denial is about, if nobody was told of it yet.
    fn news(&mut self, denial: Denial, most: usize) -> Option<VmId> {
        let vm = *self.taps.iter().find(|(_, guest)| guest.number() == denial.guest)?.0;
        let told = self.told.entry(vm).or_default();
        (told.len() < most && told.insert(denial.to)).then_some(vm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_led_to_a_resolver_that_does_not_run() {
        let egress = Egress {
            network: Err("there is none".into()),
            names: NameService::unavailable("port 53 is another program's"),
            resolver: RESOLVER,
            known: Mutex::default(),
        };
        let (allow_ips, allow_domains) = (vec![], vec!["api.example".to_owned()]);
        let rules = egress.rules(&NetworkPolicy { outbound_internet: true, allow_ips, allow_domains }, None);
        assert_eq!(rules, Policy { outbound: true, resolver: Some(RESOLVER), ..Policy::default() });
    }

    #[test]
    fn what_is_counted_of_nobody_is_not_kept() {
        let guest = |number| Guest::new("172.16.0.0/24".parse().unwrap(), number).unwrap();
        let (mut known, vm) = (Known::default(), VmId::new());
        known.taps.insert(vm, guest(1));
        let seen = || BTreeMap::from([1, 2].map(|number| (number, Counters::default())));
        known.count(seen());
        assert_eq!(known.counters.keys().collect::<Vec<_>>(), [&1]);
        known.forget(vm, guest(1), Counters::default());
        known.count(seen());
        assert!(known.counters.is_empty() && known.taps.is_empty());
    }
}
