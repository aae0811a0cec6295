//! Text for `nft`: the table with its rules, and changes to its sets. Pure.
//!
//! Nothing in it comes from a client but addresses that were parsed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use crate::plan::{Element, Guest, MAX_RATE, PREFIX, Set, Zone};
use crate::report::Counters;
use crate::special::{AZURE_HOST, SPECIAL};
use crate::{GATE_PORT, Settings};

/// The one table that is ours.
pub(crate) const TABLE: &str = "inet rds";

/// The bit of a packet's mark by which [`crate::guard`] knows that this table passed it. Nobody routes by it: a packet gets
/// it when it has been routed.
pub(crate) const PASSED: &str = "0x1000";

/// Connections that a guest may have in the host's table at a time, and make at once; closed ones no longer count, but stay
/// there for a moment.
const MAX_FLOWS: u32 = 2_000;

/// Connections that a guest may make a second.
const NEW_FLOWS: u32 = 100;

/// Datagrams that a guest may send to the resolver a second, and at once. All guests' wait in one queue there, which has
/// room for more than the one guest's.
const ASKS: (u32, u32) = (100, 200);

/// How long a silent TCP connection of a guest's is remembered, in seconds. Five days are usual, also for those of a guest
/// that is gone.
const SILENT: u32 = 1_200;

/// How long a closed one is, in seconds.
const CLOSED: u32 = 30;

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
    let (network, gateway) = (settings.subnet.network(), settings.subnet.gateway());
    let (ask_rate, ask_burst) = ASKS;
    let monitors = settings.monitors.as_ref().map(|users| {
        format!(
            "    # A monitor has its taps and no other way out.\n    meta skuid {}-{} drop\n",
            users.start(),
            users.end()
        )
    });
    let monitors = monitors.unwrap_or_default();
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
  set begun {{ type ifname; limit rate {NEW_FLOWS}/second burst {MAX_FLOWS} packets; }}
  set asks {{ type ifname; limit rate {ask_rate}/second burst {ask_burst} packets; }}
  set sent_over {{ type ifname; limit rate over {MAX_RATE} bytes/second; }}
  set received_over {{ type ifname; limit rate over {MAX_RATE} bytes/second; }}
  set by_name {{ type ifname; }}
  set services {{ type ifname . ipv4_addr . inet_proto . inet_service; }}
  set outbound {{ type ipv4_addr; }}
  map zones {{ typeof iifname : ct original zone; }}
  set owners {{ typeof oifname . ct original zone; }}
{allow}  set special {{ type ipv4_addr; flags interval; elements = {{ {special}, {AZURE_HOST} }}; }}
  set denials {{ type ifname . ipv4_addr; size 65536; flags dynamic,timeout; timeout 10m; }}
  set pace {{ type ifname; size 65535; flags dynamic; }}
  set flows {{ typeof iifname . ct original zone; size 65535; flags dynamic; }}

  ct timeout impatient {{ protocol tcp; l3proto ip; policy = {{ established : {SILENT}, time_wait : {CLOSED} }}; }}

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
    # They would wait for the rest of them in memory that is everybody's.
    ip frag-off & 0x3fff != 0 ip saddr != @outbound goto drop_counted
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
    ip daddr {AZURE_HOST} goto exactly_out
{outward}    goto exactly_out
  }}
  # What no network opens that only has it in it.
  chain exactly_out {{
    iifname . ip daddr @allow32 goto pass_out
    iifname . ip daddr . meta l4proto . th dport @services goto pass_out
    goto denied
  }}
  chain inward {{
    # What a guest had open is nothing of the next one's with its address.
    oifname . ct original zone != @owners drop
    ct direction original drop
    ct state related ip protocol icmp goto pass_in
    ct state != established drop
    ip saddr {AZURE_HOST} goto exactly_in
{inward}    goto exactly_in
  }}
  chain exactly_in {{
    oifname . ip saddr @allow32 goto pass_in
    oifname . ip saddr . meta l4proto . th sport @services goto pass_in
    drop
  }}

  chain input {{
    type filter hook input priority filter; policy accept;
    iifname "{PREFIX}*" goto to_host
  }}
  chain to_host {{
    jump as_itself
    ct state invalid,untracked goto drop_counted
    iifname @by_name ip daddr {gateway} udp dport 53 goto ask
    iifname @by_name ip daddr {gateway} tcp dport 53 goto pass_out
    iifname @by_name ip daddr {gateway} tcp dport {GATE_PORT} ct status dnat goto pass_out
    goto exactly_out
  }}
  chain ask {{
    iifname @asks goto pass_out
    goto drop_counted
  }}
  chain output {{
    type filter hook output priority filter; policy accept;
{monitors}    oifname "{PREFIX}*" goto from_host
  }}
  chain from_host {{
    ip protocol icmp icmp type destination-unreachable goto pass_in
    oifname . ct original zone != @owners drop
    ct direction original drop
    ct state != established drop
    oifname @by_name ip saddr {gateway} goto pass_in
    goto exactly_in
  }}

  chain pass_out {{
    iifname @sent_over goto drop_counted
    ct status ! confirmed jump begin
    iifname @sent meta mark set meta mark | {PASSED} accept
    goto drop_counted
  }}
  # The first packet of a connection: there is one table of them for the whole host.
  chain begin {{
    meta l4proto tcp ct timeout set "impatient"
    # An element is there while it has connections: the kernel takes empty ones away.
    iifname @begun add @flows {{ iifname . ct original zone ct count {MAX_FLOWS} }} return
    goto drop_counted
  }}
  chain pass_in {{
    oifname @received_over drop
    oifname @received meta mark set meta mark | {PASSED} accept
    drop
  }}
  chain denied {{
    iifname . ip daddr != @denials update @pace {{ iifname limit rate 6/minute burst 20 packets }} add @denials {{ iifname . ip daddr }}
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
    tcp dport {{ 80, 443 }} dnat ip to {gateway}:{GATE_PORT}
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
        insta::assert_snapshot!(table(&settings()));
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
