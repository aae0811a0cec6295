//! The guests that have a network. Pure, but for where their zones begin.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::{Element, Guest, Policy, Zone, elements};

/// What the table is to be, and how its rules look.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) guests: BTreeMap<u32, Open>,
    /// The zone that was given last. Each start of a guest gets the next one, and an earlier server's are not known: it
    /// begins anywhere.
    last_zone: Zone,
    /// The table's rules as the kernel listed them after they were made.
    pub(crate) rules: Vec<String>,
}

/// A guest that may have a network now.
#[derive(Debug, Clone)]
pub(crate) struct Open {
    pub(crate) guest: Guest,
    pub(crate) zone: Zone,
    pub(crate) policy: Policy,
}

impl Open {
    pub(crate) fn elements(&self) -> BTreeSet<Element> {
        elements(self.guest, self.zone, &self.policy)
    }
}

impl Default for State {
    fn default() -> Self {
        Self { guests: BTreeMap::new(), last_zone: rand::random(), rules: Vec::new() }
    }
}

impl State {
    pub(crate) fn elements(&self) -> BTreeSet<Element> {
        self.guests.values().flat_map(Open::elements).collect()
    }

    /// A zone that nobody has, and that nobody had for as long as possible. There are more than guests in the largest subnet.
    pub(crate) fn new_zone(&mut self) -> Zone {
        loop {
            self.last_zone = self.last_zone.wrapping_add(1);
            let zone = self.last_zone;
            if zone != 0 && self.guests.values().all(|open| open.zone != zone) {
                return zone;
            }
        }
    }

    pub(crate) fn zone_of(&mut self, guest: Guest) -> Zone {
        self.guests.get(&guest.number()).map(|open| open.zone).unwrap_or_else(|| self.new_zone())
    }
}
