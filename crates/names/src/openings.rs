//! The addresses that one VM was told in answer to its lookups, and until when they are open.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::domains::{Domains, HostName};

/// Most openings of one VM at a time.
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

/// Open addresses and the names that led there, each with its end: what one name opened is open though another one is
/// withdrawn.
#[derive(Debug, Default)]
pub(crate) struct Openings(BTreeMap<(Ipv4Addr, HostName), Instant>);

impl Openings {
    /// Opens `address` by `name` for a while from `now`. An opening is never shortened. When there is no room, the one that would
    /// end first makes it.
    pub(crate) fn open(&mut self, address: Ipv4Addr, name: &HostName, ttl: u32, now: Instant) {
        let (key, end) = ((address, name.clone()), now + open_for(ttl));
        if self.0.len() >= MAX_OPEN && !self.0.contains_key(&key) {
            self.make_room(now);
        }
        let entry = self.0.entry(key).or_insert(end);
        *entry = end.max(*entry);
    }

    fn make_room(&mut self, now: Instant) {
        self.0.retain(|_, end| *end > now);
        if self.0.len() >= MAX_OPEN {
            let first = self.0.iter().min_by_key(|(_, end)| **end).map(|(key, _)| key.clone());
            first.map(|key| self.0.remove(&key));
        }
    }

    /// The names by which `address` is open; none if it is not.
    pub(crate) fn opened_by(&self, address: Ipv4Addr, now: Instant) -> Vec<HostName> {
        let open = self.0.iter().filter(|((opened, _), end)| *opened == address && **end > now);
        open.map(|((_, name), _)| name.clone()).collect()
    }

    /// Closes what was opened by names that are not in the list any more.
    pub(crate) fn keep(&mut self, domains: &Domains) {
        self.0.retain(|(_, name), _| domains.allow(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Openings {
        fn is_open(&self, address: Ipv4Addr, now: Instant) -> bool {
            !self.opened_by(address, now).is_empty()
        }
    }

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

    #[test]
    fn what_two_names_opened_is_open_while_one_is_allowed() {
        let (mut openings, now) = (Openings::default(), Instant::now());
        let (address, [a, b]) = (
            Ipv4Addr::new(192, 0, 2, 1),
            ["a.example", "b.example"].map(|name| HostName::parse(name.as_bytes()).unwrap()),
        );
        openings.open(address, &a, 60, now);
        openings.open(address, &b, 60, now);
        assert_eq!(openings.opened_by(address, now), [a.clone(), b]);
        openings.keep(&Domains::parse(&["a.example"]).unwrap());
        assert_eq!(openings.opened_by(address, now), [a]);
        openings.keep(&Domains::parse(&["b.example"]).unwrap());
        assert!(!openings.is_open(address, now));
    }
}
