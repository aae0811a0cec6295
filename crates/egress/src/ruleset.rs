//! Text for `nft`: the table with its rules, and changes to its sets. Pure.
//!
//! Nothing in it comes from a client but addresses that were parsed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use crate::plan::{Element, PREFIX, Set};
use crate::report::Counters;
use crate::special::SPECIAL;
use crate::subnet::Subnet;

/// The one table that is ours.
pub(crate) const TABLE: &str = "inet rds";

/// The bit of a packet's mark by which [`crate::guard`] knows that this table passed it. Nobody routes by it: a packet gets
/// it when it has been routed.
pub(crate) const PASSED: &str = "0x1000";

/// What was counted so far and goes on in a table that replaces another; by tap.
pub(crate) type Carried = std::collections::BTreeMap<String, Counters>;

/// The sets whose elements are VMs'.
pub(crate) fn sets() -> impl Iterator<Item = Set> {
    use Set::{ByName, Dropped, Guests, Outbound, Owners, Received, Sent, Zones};
    [Guests, Sent, Received, Dropped, Zones, Owners, Outbound, ByName].into_iter().chain((1..=32).map(Set::Allow))
}

/// A whole table in place of the one that is there, if one is, in one transaction.
pub(crate) fn replace(subnet: Subnet, gate: u16, elements: &BTreeSet<Element>, carried: &Carried) -> String {
    // An empty table is added for the deletion to find one.
    let mut text = format!("table {TABLE}\ndelete table {TABLE}\n{}", table(subnet, gate));
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
fn table(subnet: Subnet, gate: u16) -> String {
    let (network, gateway) = (subnet.network(), subnet.gateway());
    let special = SPECIAL.map(|network| network.to_string()).join(", ");
    let allow: String =
        (1..=32).map(|length| format!("  set allow{length} {{ type ifname . ipv4_addr; }}\n")).collect();
    let outward = lookups("iifname", "ip daddr", "goto pass_out");
    let inward = lookups("oifname", "ip saddr", "goto pass_in");
    let direct = lookups("iifname", "ip daddr", "accept");
    format!(
        r#"table {TABLE} {{
  set guests {{ type ifname . ether_addr . ipv4_addr; }}
  set sent {{ type ifname; counter; }}
  set received {{ type ifname; counter; }}
  set dropped {{ type ifname; counter; }}
  set by_name {{ type ifname; }}
  set outbound {{ type ipv4_addr; }}
  map zones {{ typeof iifname : ct original zone; }}
  set owners {{ typeof oifname . ct original zone; }}
{allow}  set special {{ type ipv4_addr; flags interval; elements = {{ {special} }}; }}
  set denials {{ type ifname . ipv4_addr; size 8192; flags dynamic,timeout; timeout 10m; }}
  set pace {{ type ifname; size 65535; flags dynamic; }}

  # Before anything is put together from fragments: who sends it, and whether it is something to look at.
  chain entrance {{
    type filter hook prerouting priority -500; policy accept;
    iifname "{PREFIX}*" goto from_guest
    iifname != "lo" ip saddr {network} drop
  }}
  chain from_guest {{
    jump as_itself
    ct original zone set iifname map @zones
  }}
  chain as_itself {{
    meta nfproto != ipv4 goto drop_counted
    iifname . ether saddr . ip saddr != @guests goto drop_counted
    ip hdrlength != 5 goto drop_counted
  }}

  # Both directions of every connection are looked up, so that one ends as soon as it is not allowed any more.
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname "{PREFIX}*" goto outward
    oifname "{PREFIX}*" goto inward
  }}
  chain outward {{
    # The entrance may not have been there when the packet came: chains come and go one after the other.
    jump as_itself
    oifname "{PREFIX}*" goto denied
    # What belongs to no connection would leave with the guest's own address.
    ct state invalid,untracked goto drop_counted
    ct direction reply goto denied
{outward}    goto denied
  }}
  chain inward {{
    # What a guest had open is nothing of the next one's with its address.
    oifname . ct original zone != @owners drop
    ct direction original drop
    ct state related ip protocol icmp goto pass_in
    ct state != established drop
{inward}    drop
  }}

  chain input {{
    type filter hook input priority filter; policy accept;
    iifname "{PREFIX}*" goto to_host
  }}
  chain to_host {{
    jump as_itself
    ct state invalid,untracked goto drop_counted
    iifname @by_name ip daddr {gateway} meta l4proto {{ tcp, udp }} th dport 53 goto pass_out
    iifname @by_name ip daddr {gateway} tcp dport {gate} ct status dnat goto pass_out
    iifname . ip daddr @allow32 goto pass_out
    goto denied
  }}
  chain output {{
    type filter hook output priority filter; policy accept;
    oifname "{PREFIX}*" goto from_host
  }}
  chain from_host {{
    ip protocol icmp icmp type destination-unreachable goto pass_in
    oifname . ct original zone != @owners drop
    ct direction original drop
    ct state != established drop
    oifname @by_name ip saddr {gateway} goto pass_in
    oifname . ip saddr @allow32 goto pass_in
    drop
  }}

  chain pass_out {{
    iifname @sent meta mark set meta mark | {PASSED} accept
    goto drop_counted
  }}
  chain pass_in {{
    oifname @received meta mark set meta mark | {PASSED} accept
    drop
  }}
  chain denied {{
    iifname . ip daddr != @denials update @pace {{ iifname limit rate 10/second burst 20 packets }} add @denials {{ iifname . ip daddr }}
    iifname @dropped reject with icmpx type admin-prohibited
    drop
  }}
  chain drop_counted {{
    iifname @dropped drop
    drop
  }}

  # Names go to the resolver and the gate, unless the address is allowed as it is.
  chain to_names {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname @by_name goto names
  }}
  chain names {{
{direct}    meta l4proto {{ tcp, udp }} th dport 53 dnat ip to {gateway}:53
    ip daddr @special accept
    fib daddr type local accept
    tcp dport {{ 80, 443 }} dnat ip to {gateway}:{gate}
  }}
  chain leave {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname != "{PREFIX}*" ip saddr @outbound masquerade
  }}
}}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Guest, Policy, elements};

    fn subnet() -> Subnet {
        "172.16.0.0/24".parse().unwrap()
    }

    fn of(number: u32, allow: &[&str]) -> BTreeSet<Element> {
        let allow = allow.iter().map(|entry| entry.parse().unwrap()).collect();
        let guest = Guest::new(subnet(), number).unwrap();
        elements(guest, 1, &Policy { outbound: true, allow, by_name: false })
    }

    #[test]
    fn the_table() {
        insta::assert_snapshot!(table(subnet(), 15_080));
    }

    #[test]
    fn a_table_is_replaced_with_what_was_counted() {
        let carried = Carried::from([("rds0".into(), Counters::sample(5))]);
        let text = replace(subnet(), 15_080, &of(0, &["1.1.1.1/32"]), &carried);
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
