//! Text for `nft`: the table with its rules, which are in `table.nft`, and changes to its sets. Pure.
//!
//! Nothing in it comes from a client but addresses that were parsed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use crate::plan::{Element, Guest, MAX_RATE, PREFIX, Set, Zone};
use crate::report::Counters;
use crate::special::{AZURE_HOST, SPECIAL};
use crate::{GATE_PORT, Settings};

/// The rules. What stands in angle brackets is filled in.
const RULES: &str = include_str!("table.nft");

/// The one table that is ours.
pub(crate) const TABLE: &str = "inet rds";

/// The bit of a packet's mark by which [`crate::guard`] knows that this table passed it. Nobody routes by it: a packet gets
/// it when it has been routed.
pub(crate) const PASSED: &str = "0x1000";

/// Connections that a guest may have in the host's table at a time, and make at once; closed ones no longer count, but stay
/// there for a moment.
const MAX_FLOWS: u32 = 2_000;

/// What was counted so far and goes on in a table that replaces another; by tap.
pub(crate) type Carried = std::collections::BTreeMap<String, Counters>;

/// The sets whose elements are VMs'.
pub(crate) fn sets() -> impl Iterator<Item = Set> {
    use Set::{Asks, Begun, ByName, Dropped, Guests, Outbound, Owners, Received, Sent, Services, Zones};
    use Set::{ReceivedOver, SentOver};
    let all = [Guests, Sent, Received, Dropped, Begun, Asks, Zones, Owners, Outbound, ByName, Services];
    let all = all.into_iter().chain([SentOver, ReceivedOver]);
    all.chain((1..=32).map(Set::Allow))
}

/// A whole table in place of the one that is there, if one is, in one transaction.
pub(crate) fn replace(settings: &Settings, elements: &BTreeSet<Element>, carried: &Carried) -> String {
    // An empty table is added for the deletion to find one.
    let mut text = format!("table {TABLE}\ndelete table {TABLE}\n{}", table(settings));
    add(&mut text, elements.iter(), carried);
    text
}

/// The changes that lead from some elements to others, in one transaction; empty if there are none.
pub(crate) fn change(before: &BTreeSet<Element>, after: &BTreeSet<Element>) -> String {
    let mut text = String::new();
    for element in before.difference(after) {
        // Somebody else may have removed it; what is to be gone is added for the deletion to find it.
        let Element { set, text: element } = element;
        let _ =
            writeln!(text, "add element {TABLE} {set} {{ {element} }}\ndelete element {TABLE} {set} {{ {element} }}");
    }
    add(&mut text, after.difference(before), &Carried::new());
    text
}

/// Forgets what was denied: what is still tried is noted again.
pub(crate) fn forget_denials() -> String {
    format!("flush set {TABLE} denials\nflush set {TABLE} pace\n")
}

/// Forgets the count of connections of a guest that is gone. There may be none.
pub(crate) fn forget_flows(guest: Guest, zone: Zone) -> String {
    let element = format!("\"{}\" . {zone}", guest.tap());
    format!(
        "add element {TABLE} flows {{ {element} ct count {MAX_FLOWS} }}\ndelete element {TABLE} flows {{ {element} }}\n"
    )
}

fn add<'a>(text: &mut String, elements: impl Iterator<Item = &'a Element>, carried: &Carried) {
    let mut current = None;
    for Element { set, text: element } in elements {
        if current.replace(set) != Some(set) {
            if text.ends_with(", ") {
                text.truncate(text.len() - 2);
                text.push_str(" }\n");
            }
            let _ = write!(text, "add element {TABLE} {set} {{ ");
        }
        let count = carried.get(element.trim_matches('"')).and_then(|counters| counters.of(*set));
        let _ = match count {
            Some(count) => write!(text, "{element} counter packets {} bytes {}, ", count.packets, count.bytes),
            None => write!(text, "{element}, "),
        };
    }
    if text.ends_with(", ") {
        text.truncate(text.len() - 2);
        text.push_str(" }\n");
    }
}

/// A rule for each length that a network may have, the most usual first. `key` is the tap's side, `address` the other's.
fn lookups(key: &str, address: &str, verdict: &str) -> String {
    let usual = [32, 24, 16, 8];
    let lengths = usual.into_iter().chain((1..32).rev().filter(|length| !usual.contains(length)));
    let mut text = String::new();
    for length in lengths {
        let mask = match length {
            32 => String::new(),
            length => format!(" & {}", Ipv4Addr::from_bits(u32::MAX << (32 - length))),
        };
        let _ = writeln!(text, "    {key} . {address}{mask} @allow{length} {verdict}");
    }
    text
}

/// The table without elements.
fn table(settings: &Settings) -> String {
    let monitors = settings.monitors.as_ref().map(|users| {
        let (first, last) = (users.start(), users.end());
        format!("    # A monitor has its taps and no other way out.\n    meta skuid {first}-{last} drop\n")
    });
    let values = [
        ("<table>", TABLE.to_owned()),
        ("<prefix>", PREFIX.to_owned()),
        ("<passed>", PASSED.to_owned()),
        ("<network>", settings.subnet.network().to_string()),
        ("<gateway>", settings.subnet.gateway().to_string()),
        ("<gate_port>", GATE_PORT.to_string()),
        ("<azure_host>", AZURE_HOST.to_string()),
        ("<special>", SPECIAL.map(|network| network.to_string()).join(", ")),
        ("<max_flows>", MAX_FLOWS.to_string()),
        ("<max_rate>", MAX_RATE.to_string()),
        // Whole lines.
        (
            "  <allow_sets>\n",
            (1..=32).map(|length| format!("  set allow{length} {{ type ifname . ipv4_addr; }}\n")).collect(),
        ),
        ("    <outward>\n", lookups("iifname", "ip daddr", "goto pass_out")),
        ("    <inward>\n", lookups("oifname", "ip saddr", "goto pass_in")),
        ("    <direct>\n", lookups("iifname", "ip daddr", "accept")),
        ("    <monitors>\n", monitors.unwrap_or_default()),
    ];
    values.iter().fold(RULES.to_owned(), |text, (name, value)| text.replace(name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Policy, elements};

    fn settings() -> Settings {
        Settings { subnet: "172.16.0.0/24".parse().unwrap(), monitors: Some(199_999..=265_535) }
    }

    fn of(number: u32, allow: &[&str]) -> BTreeSet<Element> {
        let allow = allow.iter().map(|entry| entry.parse().unwrap()).collect();
        let guest = Guest::new(settings().subnet, number).unwrap();
        elements(guest, 1, &Policy { outbound: true, allow, ..Policy::default() })
    }

    #[test]
    fn the_table() {
        let table = table(&settings());
        assert!(!table.contains(['<', '>']), "something is not filled in");
        insta::assert_snapshot!(table);
    }

    #[test]
    fn a_table_is_replaced_with_what_was_counted() {
        let carried = Carried::from([("rds0".into(), Counters::sample(5))]);
        let text = replace(&settings(), &of(0, &["1.1.1.1/32"]), &carried);
        let (head, elements) = text.split_once("table inet rds {").unwrap();
        insta::assert_snapshot!(format!("{head}…{}", elements.rsplit_once("}\n}\n").unwrap().1));
    }

    #[test]
    fn a_change_is_what_differs() {
        insta::assert_snapshot!(change(&BTreeSet::new(), &of(0, &["1.1.1.1/32", "9.9.9.9/32"])));
        insta::assert_snapshot!(change(&of(0, &["1.1.1.1/32", "2.0.0.0/24"]), &of(0, &["1.1.1.1/32", "9.9.9.9/32"])));
        assert_eq!(change(&of(0, &[]), &of(0, &[])), "");
    }
}
