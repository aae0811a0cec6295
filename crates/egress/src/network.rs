//! The network of all VMs, as it is to be and as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use rds_netif::tap;
use rustix::thread::CapabilitySet;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::spawn_blocking;

use crate::EgressError;
use crate::plan::{Guest, Policy, Set};
use crate::report::{Contents, Counters, Denial};
use crate::ruleset::{self, Carried, TABLE};
use crate::state::{Open, State};
use crate::subnet::Subnet;
use crate::{guard, nft, system};

/// Name of the tap of a machine that is nobody's yet: nothing passes there.
const NOBODYS: &str = "rds-seed";

/// What to run with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Guests' addresses.
    pub subnet: Subnet,
    /// Users of this host that only run monitors: what they send by sockets is dropped. `None` if there are none.
    pub monitors: Option<RangeInclusive<u32>>,
}

/// What was not as it should be, and is again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// For people.
    pub what: String,
}

/// The network. Cheap to share; a change that was begun is completed though its caller goes away.
#[derive(Debug, Clone)]
pub struct Network(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
    nft: PathBuf,
    /// Held while the table is changed or compared.
    state: Mutex<State>,
    /// By tap: held while something is done with it.
    turns: std::sync::Mutex<BTreeMap<String, Arc<Mutex<()>>>>,
    _lock: File,
}

impl Network {
    /// Takes the network of this host, or says what is missing. Changes no rule; [`Self::restore`] must follow.
    pub async fn take(settings: &Settings) -> Result<Self, String> {
        let held = rustix::thread::capabilities(None).map(|sets| sets.effective);
        if !held.is_ok_and(|held| held.contains(CapabilitySet::NET_ADMIN | CapabilitySet::NET_BIND_SERVICE)) {
            return Err("the server is not root, nor has CAP_NET_ADMIN and CAP_NET_BIND_SERVICE".into());
        }
        let nft = nft::find().ok_or("nft is not installed (apt-get install nftables)")?;
        if !std::path::Path::new("/dev/net/tun").exists() {
            return Err("there is no /dev/net/tun (modprobe tun)".into());
        }
        let lock = system::lock().map_err(|error| match error.kind() {
            io::ErrorKind::ResourceBusy => "another server on this host has the network".to_owned(),
            _ => format!("an interface that says whose the network is cannot be made: {error}"),
        })?;
        let subnet = settings.subnet;
        if let Some((network, interface)) = system::overlapping(subnet).map_err(|error| error.to_string())? {
            return Err(format!("VM_SUBNET {subnet} overlaps with {network} on {interface}; name another one"));
        }
        let table = ruleset::replace(settings, &BTreeSet::new(), &Carried::new());
        let tried = nft::check(&nft, &table).await;
        tried.map_err(|error| format!("the kernel does not take the rules: {error}"))?;
        let (settings, turns) = (settings.clone(), std::sync::Mutex::default());
        let inner = Inner { settings, nft, state: Mutex::default(), turns, _lock: lock };
        Ok(Self(Arc::new(inner)))
    }

    /// Guests' addresses.
    pub fn subnet(&self) -> Subnet {
        self.0.settings.subnet
    }

    /// The guest with this number; none if there is no address left for it.
    pub fn guest(&self, number: u32) -> Option<Guest> {
        Guest::new(self.0.settings.subnet, number)
    }

    /// Makes the table what these guests, whose machines run, are to have, in one transaction, and removes every tap
    /// that is neither theirs nor one of `idle`, machines that wait to be somebody's.
    pub async fn restore(&self, guests: Vec<(Guest, Policy)>, idle: Vec<Guest>) -> Result<(), EgressError> {
        self.uncancelled(async move |inner| {
            let mut state = inner.state.lock().await;
            // What cannot be read is not worth keeping: then connections break, and counters begin anew.
            let found = inner.list_table().await.unwrap_or_default();
            state.guests.clear();
            for (guest, policy) in guests {
                let zone = found.zones.get(&guest.tap()).copied().unwrap_or_else(|| state.new_zone());
                state.guests.insert(guest.number(), Open { guest, zone, policy });
            }
            inner.replace(&mut state, &found.counters).await?;
            inner.guard().await;
            system::forward().map_err(EgressError::system("turn forwarding on"))?;
            let running = state.guests.values().map(|open| &open.guest);
            let kept: BTreeSet<String> = running.chain(&idle).map(|guest| guest.tap()).collect();
            for Open { guest, policy, .. } in state.guests.values() {
                if let Err(error) = system::set_forwarding(*guest, policy) {
                    tracing::warn!(tap = guest.tap(), %error, "a running VM has no tap");
                }
            }
            let taps = system::taps().map_err(EgressError::system("list interfaces"))?;
            // A machine that makes a seed may have its own already.
            for tap in taps.iter().filter(|tap| !kept.contains(*tap) && *tap != NOBODYS) {
                tracing::info!(tap, "removing a tap that belongs to no VM");
                let _ = system::disconnect(tap);
                tap::remove(tap).map_err(EgressError::system("remove a tap"))?;
            }
            Ok(())
        })
        .await
    }

    /// Makes a guest's tap; nothing passes there until [`Self::open`]. `owner` may open it besides root.
    pub async fn attach(&self, guest: Guest, owner: Option<u32>) -> Result<(), EgressError> {
        self.make_tap(guest.tap(), owner).await
    }

    /// Makes a tap for a machine that is nobody's yet, where nothing ever passes. Returns its name.
    pub async fn attach_nobody(&self, owner: Option<u32>) -> Result<&'static str, EgressError> {
        self.make_tap(NOBODYS.into(), owner).await.map(|()| NOBODYS)
    }

    async fn make_tap(&self, name: String, owner: Option<u32>) -> Result<(), EgressError> {
        self.in_turn(&name.clone(), async move |inner| {
            let subnet = inner.settings.subnet;
            blocking(move || system::make_tap(&name, subnet, owner), "make a tap").await
        })
        .await
    }

    /// Removes the tap of [`Self::attach_nobody`], if it is there.
    pub async fn detach_nobody(&self) -> Result<(), EgressError> {
        self.in_turn(NOBODYS, async |_| blocking(|| tap::remove(NOBODYS), "remove a tap").await).await
    }

    /// Lets a guest have what its policy allows: first the rules, then its tap comes up.
    pub async fn open(&self, guest: Guest, policy: Policy) -> Result<(), EgressError> {
        self.in_turn(&guest.tap(), async move |inner| {
            let allowed = policy.clone();
            inner.put(guest, |state| Some(Open { guest, zone: state.new_zone(), policy: allowed })).await?;
            let connect = move || {
                system::set_forwarding(guest, &policy)?;
                system::connect(guest)
            };
            blocking(connect, "bring a tap up").await
        })
        .await
    }

    /// Changes what a guest may reach. What is not allowed any more ends with it.
    pub async fn change(&self, guest: Guest, policy: Policy) -> Result<(), EgressError> {
        self.in_turn(&guest.tap(), async move |inner| {
            let allowed = policy.clone();
            inner.put(guest, |state| Some(Open { guest, zone: state.zone_of(guest), policy: allowed })).await?;
            system::set_forwarding(guest, &policy).map_err(EgressError::system("set forwarding"))
        })
        .await
    }

    /// Takes everything from a guest whose machine has ended: its tap goes down first and is gone in the end. Returns what
    /// was counted of it to its end; nothing if it was not open. Can be repeated.
    pub async fn close(&self, guest: Guest) -> Result<Counters, EgressError> {
        self.in_turn(&guest.tap(), async move |inner| {
            let name = guest.tap();
            let down = move || system::disconnect(&name);
            blocking(down, "take a tap down").await?;
            let counted = inner.counters_of(guest).await;
            if let Err(error) = inner.put(guest, |_| None).await {
                // Without its tap they allow nothing; the next comparison finds them.
                tracing::warn!(tap = guest.tap(), %error, "cannot remove the rules of a VM that is gone");
            }
            blocking(move || tap::remove(&guest.tap()), "remove a tap").await?;
            Ok(counted)
        })
        .await
    }

    /// Ends what is there for guests alone, if there is none. To be used no more.
    pub async fn end(&self) -> Result<(), EgressError> {
        let state = self.0.state.lock().await;
        if state.guests.is_empty() { guard::end().map_err(EgressError::system("end the guard")) } else { Ok(()) }
    }

    /// What was counted of each guest, and what was denied in the last ten minutes.
    pub async fn look(&self) -> Result<(BTreeMap<u32, Counters>, BTreeSet<Denial>), EgressError> {
        let counters = self.0.counters().await?;
        let denials = self.0.list(&format!("set {TABLE} denials")).await?.denials;
        Ok((counters, denials))
    }

    /// Compares the table with what it is to be, and makes it that again if it is not.
    pub async fn compare(&self) -> Result<Option<Repaired>, EgressError> {
        self.uncancelled(async |inner| {
            let mut state = inner.state.lock().await;
            inner.guard().await;
            let found = inner.found().await?;
            let wanted = state.elements();
            let missing = wanted.difference(&found.elements).count();
            let added = found.elements.difference(&wanted).count();
            if found.rules == state.rules && missing == 0 && added == 0 {
                return Ok(None);
            }
            inner.replace(&mut state, &found.counters).await?;
            system::forward().map_err(EgressError::system("turn forwarding on"))?;
            let rules = if found.rules == state.rules { "rules as they were" } else { "rules changed" };
            Ok(Some(Repaired { what: format!("{rules}, {missing} elements missing, {added} too many") }))
        })
        .await
    }

    /// Does the work in a task of its own, so that what was begun is completed.
    async fn uncancelled<T, F>(&self, work: impl FnOnce(Arc<Inner>) -> F) -> Result<T, EgressError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, EgressError>> + Send + 'static,
    {
        joined(tokio::spawn(work(Arc::clone(&self.0))).await)
    }

    /// The same for work on one tap, which is done when all is done that was begun with this tap before.
    async fn in_turn<T, F>(&self, tap: &str, work: impl FnOnce(Arc<Inner>) -> F) -> Result<T, EgressError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, EgressError>> + Send + 'static,
    {
        let turn = self.0.turn(tap).await;
        self.uncancelled(|inner| {
            let work = work(inner);
            async move {
                let done = work.await;
                drop(turn);
                done
            }
        })
        .await
    }
}

impl Inner {
    async fn turn(&self, tap: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(turns.entry(tap.to_owned()).or_default())
        };
        turn.lock_owned().await
    }

    /// Sets or removes what a guest has, in one transaction.
    async fn put(&self, guest: Guest, to: impl FnOnce(&mut State) -> Option<Open> + Send) -> Result<(), EgressError> {
        let mut state = self.state.lock().await;
        let open = to(&mut state);
        let elements = |open: Option<&Open>| open.map(Open::elements).unwrap_or_default();
        let mut script = ruleset::change(&elements(state.guests.get(&guest.number())), &elements(open.as_ref()));
        if open.is_none()
            && let Some(gone) = state.guests.remove(&guest.number())
        {
            // What this guest was denied is nothing of the next one's with its number.
            script.push_str(&ruleset::forget_denials());
            script.push_str(&ruleset::forget_flows(guest, gone.zone));
        }
        if !script.is_empty() {
            nft::change(&self.nft, &script).await?;
        }
        if let Some(open) = open {
            state.guests.insert(guest.number(), open);
        }
        Ok(())
    }

    async fn replace(&self, state: &mut State, carried: &Carried) -> Result<(), EgressError> {
        let script = ruleset::replace(&self.settings, &state.elements(), carried);
        nft::change(&self.nft, &script).await?;
        state.rules = self.list_table().await?.rules;
        Ok(())
    }

    /// Without it the rules hold as well, but not when somebody takes them away.
    async fn guard(&self) {
        if let Err(error) = guard::ensure(&self.nft).await {
            tracing::warn!(%error, "nothing drops VMs' packets while somebody else takes all rules away");
        }
    }

    /// What is in the table; nothing if there is none.
    async fn found(&self) -> Result<Contents, EgressError> {
        let listed = self.list_table().await;
        if listed.is_err()
            && !nft::show(&self.nft, "tables").await?.lines().any(|line| line == format!("table {TABLE}"))
        {
            return Ok(Contents::default());
        }
        listed
    }

    /// What was counted of each guest.
    async fn counters(&self) -> Result<BTreeMap<u32, Counters>, EgressError> {
        let mut counters: BTreeMap<u32, Counters> = BTreeMap::new();
        for set in [Set::Sent, Set::Received, Set::Dropped] {
            for (tap, counted) in self.list(&format!("set {TABLE} {set}")).await?.counters {
                if let Some(number) = crate::plan::number(&tap) {
                    counters.entry(number).or_default().take(set, counted);
                }
            }
        }
        Ok(counters)
    }

    /// What was counted of one guest; nothing if it is not open, or if nobody can tell: that is no reason to keep it.
    async fn counters_of(&self, guest: Guest) -> Counters {
        if !self.state.lock().await.guests.contains_key(&guest.number()) {
            return Counters::default();
        }
        let counters = self.counters().await.inspect_err(|error| {
            tracing::warn!(tap = guest.tap(), %error, "cannot see what was counted of a VM at its end");
        });
        counters.unwrap_or_default().remove(&guest.number()).unwrap_or_default()
    }

    async fn list_table(&self) -> Result<Contents, EgressError> {
        self.list(&format!("table {TABLE}")).await
    }

    async fn list(&self, what: &str) -> Result<Contents, EgressError> {
        nft::list(&self.nft, what).await
    }
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
    what: &'static str,
) -> Result<T, EgressError> {
    joined(spawn_blocking(move || work().map_err(EgressError::system(what))).await)
}

fn joined<T>(ended: Result<Result<T, EgressError>, tokio::task::JoinError>) -> Result<T, EgressError> {
    ended.map_err(io::Error::other).map_err(EgressError::system("complete a change"))?
}
