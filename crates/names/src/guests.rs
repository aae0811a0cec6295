//! Who may reach what: one entry per VM, found by the address that its packets come from. Whoever runs this pins each
//! address to one VM's link, so nothing that a guest says about itself is looked at.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use ipnet::Ipv4Net;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::budget::Budget;
use crate::domains::{Domains, HostName};
use crate::openings::Openings;
use crate::reach::Closed;
use crate::report::{Notice, Report, Told};

/// Most lookups of one VM that wait for an answer. More are dropped; who asks by UDP asks again.
const MAX_LOOKUPS: usize = 64;

/// Most connections of one VM, to the resolver and through the gate. Each takes two descriptors here.
const MAX_CONNECTIONS: usize = 256;

/// What one VM may reach by name.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// The names.
    pub domains: Domains,
    /// What the VM may reach without a name. A name may lead there even if it is private; the way there is not this
    /// crate's business.
    pub trusted: Vec<Ipv4Net>,
}

/// One VM.
#[derive(Debug)]
pub(crate) struct Guest {
    id: String,
    policy: watch::Sender<Arc<Policy>>,
    ended: CancellationToken,
    openings: Mutex<Openings>,
    told: Mutex<Told>,
    report: Arc<dyn Report>,
    connections: Arc<Semaphore>,
    /// Of all VMs.
    all_connections: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
    pub(crate) budget: Budget,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Guest {
    fn new(id: &str, policy: Policy, report: Arc<dyn Report>, all_connections: Arc<Semaphore>) -> Self {
        Self {
            id: id.to_owned(),
            policy: watch::Sender::new(Arc::new(policy)),
            ended: CancellationToken::new(),
            openings: Mutex::default(),
            told: Mutex::default(),
            report,
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            all_connections,
            lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            budget: Budget::new(),
        }
    }

    pub(crate) fn policy(&self) -> Arc<Policy> {
        self.policy.borrow().clone()
    }

    fn change(&self, policy: Policy) {
        // The policy first: an answer that is being made now looks at it again while it holds the openings.
        let policy = Arc::new(policy);
        self.policy.send_replace(policy.clone());
        lock(&self.openings).keep(&policy.domains);
    }

    /// Opens what `name` led to. `false` if the name was withdrawn meanwhile.
    pub(crate) fn open(&self, name: &HostName, addresses: &[Ipv4Addr], ttl: u32) -> bool {
        let mut openings = lock(&self.openings);
        if self.ended.is_cancelled() || !self.policy().domains.allow(name) {
            return false;
        }
        for address in addresses {
            openings.open(*address, name, ttl, Instant::now());
        }
        true
    }

    /// The names by which `address` is open; none if it is not.
    pub(crate) fn opened_by(&self, address: Ipv4Addr) -> Vec<HostName> {
        lock(&self.openings).opened_by(address, Instant::now())
    }

    /// Returns when none of `names` may be reached any more.
    pub(crate) async fn withdrawn(&self, names: &[HostName]) {
        let mut policy = self.policy.subscribe();
        let allowed = |policy: &Policy| names.iter().any(|name| policy.domains.allow(name));
        while allowed(&policy.borrow_and_update()) {
            tokio::select! {
                () = self.ended.cancelled() => return,
                changed = policy.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Returns when the VM has no entry any more.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Room for one more connection, for as long as the permits are held.
    pub(crate) fn connection(&self) -> Option<[OwnedSemaphorePermit; 2]> {
        let permit = |semaphore: &Arc<Semaphore>| semaphore.clone().try_acquire_owned().ok();
        let permits = permit(&self.connections).and_then(|own| Some([own, permit(&self.all_connections)?]));
        if permits.is_none() {
            self.refused(&Notice::Connections);
        }
        permits
    }

    /// Room for one more lookup.
    pub(crate) fn lookup(&self) -> Option<OwnedSemaphorePermit> {
        let permit = self.lookups.clone().try_acquire_owned().ok();
        if permit.is_none() {
            self.refused(&Notice::Rate);
        }
        permit
    }

    /// Tells of a refusal, unless it was told already.
    pub(crate) fn refused(&self, notice: &Notice) {
        lock(&self.told).tell(notice, || self.report.report(&self.id, notice));
    }
}

/// All VMs that may reach names.
#[derive(Debug)]
pub(crate) struct Guests {
    closed: Closed,
    report: Arc<dyn Report>,
    connections: Arc<Semaphore>,
    by_address: RwLock<HashMap<Ipv4Addr, Arc<Guest>>>,
}

impl Guests {
    /// With room for this many connections of all VMs.
    pub(crate) fn new(closed: Closed, report: Arc<dyn Report>, connections: usize) -> Self {
        let connections = Arc::new(Semaphore::new(connections));
        Self { closed, report, connections, by_address: RwLock::default() }
    }

    pub(crate) fn set(&self, address: Ipv4Addr, id: &str, policy: Policy) {
        let mut guests = self.by_address.write().unwrap_or_else(PoisonError::into_inner);
        match guests.get(&address) {
            Some(guest) if guest.id == id => guest.change(policy),
            _ => {
                let new = Arc::new(Guest::new(id, policy, self.report.clone(), self.connections.clone()));
                if let Some(old) = guests.insert(address, new) {
                    old.ended.cancel();
                }
            }
        }
    }

    pub(crate) fn remove(&self, address: Ipv4Addr) {
        let mut guests = self.by_address.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = guests.remove(&address) {
            old.ended.cancel();
        }
    }

    pub(crate) fn find(&self, address: IpAddr) -> Option<Arc<Guest>> {
        let IpAddr::V4(address) = address else { return None };
        self.by_address.read().unwrap_or_else(PoisonError::into_inner).get(&address).cloned()
    }

    /// Whether no name of a VM with this policy may lead to `address`.
    pub(crate) fn is_closed(&self, address: Ipv4Addr, policy: &Policy) -> bool {
        self.closed.has(address, &policy.trusted)
    }
}
