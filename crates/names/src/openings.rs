//! The addresses that one VM was told in answer to its lookups, and until when they are open.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::domains::{Domains, HostName};

/// Most addresses that are open for one VM at a time.
const MAX_OPEN: usize = 1024;

/// Least time that an address stays open: a program that looks a name up connects soon, but not at once.
const LEAST: Duration = Duration::from_secs(60);

/// Longest time, whatever the name's owner says.
const MOST: Duration = Duration::from_secs(3600);

/// Added to what the answer says, so that who trusts the answer to its last second finds the address open.
const GRACE: Duration = Duration::from_secs(30);

/// How long an answer with this time to live opens its addresses.
pub(crate) fn open_for(ttl: u32) -> Duration {
    (Duration::from_secs(ttl.into()) + GRACE).clamp(LEAST, MOST)
}

/// The time to live in seconds that the VM is told: never longer than the address is open.
pub(crate) fn told_ttl(ttl: u32) -> u32 {
    ttl.min((MOST - GRACE).as_secs() as u32)
}

/// Open addresses, each with its end and the name that led there last.
#[derive(Debug, Default)]
pub(crate) struct Openings(HashMap<Ipv4Addr, (Instant, HostName)>);

impl Openings {
    /// Opens `address` for a while from `now`. An opening is never shortened. When there is no room, the one that would
    /// end first makes it.
    pub(crate) fn open(&mut self, address: Ipv4Addr, name: &HostName, ttl: u32, now: Instant) {
        let end = now + open_for(ttl);
        if self.0.len() >= MAX_OPEN && !self.0.contains_key(&address) {
            self.make_room(now);
        }
        let entry = self.0.entry(address).or_insert_with(|| (end, name.clone()));
        *entry = (entry.0.max(end), name.clone());
    }

    fn make_room(&mut self, now: Instant) {
        self.0.retain(|_, (end, _)| *end > now);
        if self.0.len() >= MAX_OPEN {
            let first = self.0.iter().min_by_key(|(_, (end, _))| *end).map(|(address, _)| *address);
            first.map(|address| self.0.remove(&address));
        }
    }

    /// Whether `address` is open.
    pub(crate) fn is_open(&self, address: Ipv4Addr, now: Instant) -> bool {
        self.0.get(&address).is_some_and(|(end, _)| *end > now)
    }

    /// Closes what was opened by names that are not in the list any more.
    pub(crate) fn keep(&mut self, domains: &Domains) {
        self.0.retain(|_, (_, name)| domains.allow(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opening_lasts_as_told_within_bounds() {
        let (mut openings, now) = (Openings::default(), Instant::now());
        let name = HostName::parse(b"a.example").unwrap();
        for (last, ttl, seconds) in [(1, 0, 60), (2, 300, 330), (3, u32::MAX, 3600)] {
            let address = Ipv4Addr::new(192, 0, 2, last);
            openings.open(address, &name, ttl, now);
            assert!(openings.is_open(address, now + Duration::from_secs(seconds - 1)), "{ttl}");
            assert!(!openings.is_open(address, now + Duration::from_secs(seconds)), "{ttl}");
            assert!(u64::from(told_ttl(ttl)) < seconds);
        }
        openings.open(Ipv4Addr::new(192, 0, 2, 2), &name, 0, now);
        assert!(openings.is_open(Ipv4Addr::new(192, 0, 2, 2), now + Duration::from_secs(300)), "not shortened");
        assert!(!openings.is_open(Ipv4Addr::new(192, 0, 2, 9), now));
    }

    #[test]
    fn there_is_room_for_the_newest_only() {
        let (mut openings, now) = (Openings::default(), Instant::now());
        let name = HostName::parse(b"a.example").unwrap();
        for number in 0..5000_u32 {
            openings.open(Ipv4Addr::from(number), &name, number / 10, now);
        }
        assert_eq!(openings.0.len(), MAX_OPEN);
        assert!(openings.is_open(Ipv4Addr::from(4999), now));
    }

    #[test]
    fn what_is_withdrawn_is_closed() {
        let (mut openings, now) = (Openings::default(), Instant::now());
        let (first, second) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        openings.open(first, &HostName::parse(b"a.example").unwrap(), 60, now);
        openings.open(second, &HostName::parse(b"b.example").unwrap(), 60, now);
        openings.keep(&Domains::parse(&["b.example"]).unwrap());
        assert!(!openings.is_open(first, now) && openings.is_open(second, now));
    }
}
