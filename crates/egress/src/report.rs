//! What `nft` tells about the table: what was counted, what was denied, what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::Deserialize;
use serde_json::Value;

use crate::plan::{Element, Set, Zone, number, over};
use crate::ruleset::{Carried, sets};

/// Packets and their bytes, without the link's own headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What was counted of one guest since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// What it sent that passed.
    pub sent: Count,
    /// What passed to it.
    pub received: Count,
    /// What it sent that did not pass.
    pub dropped: Count,
}

impl Count {
    /// What came since then; all of it, if it was begun anew.
    fn since(self, then: Self) -> Self {
        let more = self.packets.checked_sub(then.packets).zip(self.bytes.checked_sub(then.bytes));
        more.map_or(self, |(packets, bytes)| Self { packets, bytes })
    }
}

impl Counters {
    /// What came since then.
    pub fn since(&self, then: &Self) -> Self {
        Self {
            sent: self.sent.since(then.sent),
            received: self.received.since(then.received),
            dropped: self.dropped.since(then.dropped),
        }
    }

    pub(crate) fn of(&self, set: Set) -> Option<Count> {
        match set {
            Set::Sent => Some(self.sent),
            Set::Received => Some(self.received),
            Set::Dropped => Some(self.dropped),
            _ => None,
        }
    }

    /// Takes over what one set counted.
    pub(crate) fn take(&mut self, set: Set, from: Self) {
        if let (Some(to), Some(count)) = (self.of_mut(set), from.of(set)) {
            *to = count;
        }
    }

    fn of_mut(&mut self, set: Set) -> Option<&mut Count> {
        match set {
            Set::Sent => Some(&mut self.sent),
            Set::Received => Some(&mut self.received),
            Set::Dropped => Some(&mut self.dropped),
            _ => None,
        }
    }

    #[cfg(test)]
    pub(crate) fn sample(packets: u64) -> Self {
        let count = Count { packets, bytes: packets * 100 };
        Self { sent: count, received: count, dropped: count }
    }
}

/// A guest was kept from something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Denial {
    /// Number of the guest.
    pub guest: u32,
    /// Where it wanted to.
    pub to: Ipv4Addr,
}

/// What is in the table.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// The chains and their rules, without what the kernel numbers.
    pub(crate) rules: Vec<String>,
    /// What VMs have in it.
    pub(crate) elements: BTreeSet<Element>,
    /// What it counted, by tap.
    pub(crate) counters: Carried,
    /// Zones of connections, by tap.
    pub(crate) zones: BTreeMap<String, Zone>,
    /// What it denied in the last minutes.
    pub(crate) denials: BTreeSet<Denial>,
}

/// Reads what `nft -j` listed.
pub(crate) fn read(json: &str) -> Result<Contents, serde_json::Error> {
    let mut contents = Contents::default();
    let names: BTreeMap<String, Set> = sets().map(|set| (set.to_string(), set)).collect();
    let mut document: Value = serde_json::from_str(json)?;
    for object in document["nftables"].as_array_mut().into_iter().flatten() {
        contents.take(object, &names);
    }
    Ok(contents)
}

impl Contents {
    fn take(&mut self, object: &mut Value, names: &BTreeMap<String, Set>) {
        for kind in ["chain", "rule"] {
            if let Some(part) = object.get_mut(kind).and_then(Value::as_object_mut) {
                part.remove("handle");
                self.rules.push(Value::Object(std::mem::take(part)).to_string());
            }
        }
        let Some(set) = object.get("set").or_else(|| object.get("map")) else { return };
        let name = set["name"].as_str().unwrap_or_default();
        for element in set["elem"].as_array().into_iter().flatten() {
            if name == "denials" {
                self.denials.extend(denial(element));
            } else if let Some(&set) = names.get(name) {
                self.take_element(set, element);
            }
        }
    }

    fn take_element(&mut self, set: Set, element: &Value) {
        let (value, more) = unwrapped(element);
        let words = words(value);
        if let (Some(tap), Some(count)) = (words.first(), Count::deserialize(&more["counter"]).ok())
            && let Some(place) = self.counters.entry(tap.clone()).or_default().of_mut(set)
        {
            *place = count;
        }
        if let (Set::Zones, [tap, zone]) = (set, words.as_slice()) {
            self.zones.extend(zone.parse().ok().map(|zone| (tap.clone(), zone)));
        }
        self.elements.insert(Element { set, text: text(set, &words, more) });
    }
}

/// An element's value, and what else there is to it.
fn unwrapped(element: &Value) -> (&Value, &Value) {
    match element.get("elem") {
        Some(more) => (&more["val"], more),
        None => (element, &Value::Null),
    }
}

fn denial(element: &Value) -> Option<Denial> {
    let words = words(unwrapped(element).0);
    let [tap, to] = words.as_slice() else { return None };
    Some(Denial { guest: number(tap)?, to: to.parse().ok()? })
}

/// The parts of a value: of one that is put together, or of a map's entry.
fn words(value: &Value) -> Vec<String> {
    match value {
        Value::Array(parts) => parts.iter().flat_map(words).collect(),
        Value::Object(_) => words(&value["concat"]),
        Value::String(text) => vec![text.clone()],
        other => vec![other.to_string()],
    }
}

/// Bytes a second of a limit.
fn rate(limit: &Value) -> Option<u64> {
    let unit = match limit["rate_unit"].as_str()? {
        "bytes" => 1,
        "kbytes" => 1 << 10,
        "mbytes" => 1 << 20,
        _ => return None,
    };
    limit["rate"].as_u64()?.checked_mul(unit)
}

/// An element as [`crate::plan`] writes it.
fn text(set: Set, words: &[String], more: &Value) -> String {
    let between = if set == Set::Zones { " : " } else { " . " };
    match words.split_first() {
        Some((first, [])) if set == Set::Outbound => first.clone(),
        Some((tap, [])) if matches!(set, Set::SentOver | Set::ReceivedOver) => {
            // One with another burst was not written by us, but does no harm.
            over(tap, rate(&more["limit"]).unwrap_or_default())
        }
        Some((tap, [])) => format!("\"{tap}\""),
        Some((tap, rest)) => format!("\"{tap}\"{between}{}", rest.join(" . ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_since_then_is_told() {
        assert_eq!(Counters::sample(9).since(&Counters::sample(4)), Counters::sample(5));
        // Another guest has the number now.
        assert_eq!(Counters::sample(3).since(&Counters::sample(4)), Counters::sample(3));
    }

    #[test]
    fn a_listing_is_read() {
        let json = r#"{"nftables": [{"metainfo": {}}, {"set": {"name": "guests", "elem": [{"concat": ["rds3", "02:fc:ac:10:00:05", "172.16.0.5"]}]}},
            {"set": {"name": "sent", "elem": [{"elem": {"val": "rds3", "counter": {"packets": 4, "bytes": 77}}}]}},
            {"set": {"name": "sent_over", "elem": [{"elem": {"val": "rds3", "limit": {"rate": 3, "rate_unit": "mbytes", "per": "second", "burst": 64, "burst_unit": "kbytes", "inv": true}}}]}},
            {"map": {"name": "zones", "elem": [["rds3", 4]]}}, {"set": {"name": "owners", "elem": [{"concat": ["rds3", 4]}]}}, {"set": {"name": "outbound", "elem": ["172.16.0.5"]}},
            {"set": {"name": "denials", "elem": [{"elem": {"val": {"concat": ["rds3", "8.8.8.8"]}, "expires": 5}}, {"concat": ["rds-seed", "8.8.8.8"]}]}},
            {"rule": {"chain": "x", "handle": 9}}]}"#;
        let contents = read(json).unwrap();
        let elements: Vec<String> = contents.elements.iter().map(|e| format!("{} {}", e.set, e.text)).collect();
        insta::assert_snapshot!(elements.join("\n"), @r#"
        guests "rds3" . 02:fc:ac:10:00:05 . 172.16.0.5
        sent "rds3"
        sent_over "rds3" limit rate over 3145728 bytes/second burst 131072 bytes
        zones "rds3" : 4
        owners "rds3" . 4
        outbound 172.16.0.5
        "#);
        assert_eq!(contents.counters["rds3"].sent, Count { packets: 4, bytes: 77 });
        assert_eq!(contents.zones["rds3"], 4);
        assert_eq!(contents.denials.into_iter().collect::<Vec<_>>(), [Denial { guest: 3, to: [8, 8, 8, 8].into() }]);
        assert_eq!(contents.rules, [r#"{"chain":"x"}"#]);
    }
}
