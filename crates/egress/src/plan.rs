//! What elements a VM has in the table's sets. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use rds_netif::Mac;

use crate::special::opened;
use crate::subnet::{Subnet, mac};

/// First letters of every tap's name; its guest's number follows.
pub(crate) const PREFIX: &str = "rds";

/// A VM's end of its link, all of which derives from its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guest {
    number: u32,
    address: Ipv4Addr,
}

impl Guest {
    /// The guest with this number; none if the subnet has no room for it.
    pub fn new(subnet: Subnet, number: u32) -> Option<Self> {
        subnet.guest(number).map(|address| Self { number, address })
    }

    /// Its number.
    pub fn number(self) -> u32 {
        self.number
    }

    /// Its one address.
    pub fn address(self) -> Ipv4Addr {
        self.address
    }

    /// Its hardware address.
    pub fn mac(self) -> Mac {
        mac(self.address)
    }

    /// Name of its tap.
    pub fn tap(self) -> String {
        tap(self.number)
    }
}

/// Name of the tap of the guest with this number.
pub(crate) fn tap(number: u32) -> String {
    format!("{PREFIX}{number}")
}

/// The number in a tap's name, if it is one of ours.
pub(crate) fn number(tap: &str) -> Option<u32> {
    let number = tap.strip_prefix(PREFIX)?.parse().ok()?;
    (self::tap(number) == tap).then_some(number)
}

/// Which of the kernel's tables of connections a guest's are in. 0 is the host's own.
pub type Zone = u16;

/// What a VM may reach.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// Whether anything may leave it.
    pub outbound: bool,
    /// What it may reach then. An address of this host takes an entry for it alone; a special network (private ones, this
    /// host's, a cloud's metadata) one that lies in it.
    pub allow: Vec<Ipv4Net>,
    /// Whether it may also reach what the resolver and the gate on the gateway let it.
    pub by_name: bool,
    /// The resolver that it is told of: what has it in an entry reaches it, if only for questions, wherever it is.
    pub resolver: Option<Ipv4Addr>,
    /// Bytes a second that may pass from it, and as many that may pass to it; more is dropped. From 1 to [`MAX_RATE`].
    pub bytes_per_second: Option<u64>,
}

/// The largest rate that the kernel can reckon with, in bytes a second.
pub const MAX_RATE: u64 = 8_000_000_000;

/// Bytes that may pass at once besides those of a second: a packet that is put together of many is not dropped by the slowest
/// rate.
const BURST: u64 = 128 * 1024;

impl Policy {
    /// Whether there is anything that it may reach.
    fn reaches_anything(&self) -> bool {
        self.outbound && (self.by_name || !self.allow.is_empty())
    }

    /// Whether the host is to pass on anything of it at all.
    pub(crate) fn forwards(&self) -> bool {
        self.outbound && !self.allow.is_empty()
    }
}

/// An element of a set of the table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    /// The set.
    pub set: Set,
    /// The element, as `nft` reads it.
    pub text: String,
}

/// A set of the table whose elements are VMs'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Set {
    /// Who may send anything: tap, hardware address, address.
    Guests,
    /// Counts what a tap's guest sent that passed.
    Sent,
    /// Counts what passed to it.
    Received,
    /// Counts what it sent that was dropped.
    Dropped,
    /// Has a tap while it makes no more connections than it may in a while.
    Begun,
    /// Has a tap while it sends no more datagrams to the resolver than it may.
    Asks,
    /// Has a tap whose guest has a rate while it sends more than that.
    SentOver,
    /// The same for what it receives.
    ReceivedOver,
    /// Zone of its connections, for what it sends.
    Zones,
    /// The same, for what it receives.
    Owners,
    /// Guests' addresses that the host's own stands for outside.
    Outbound,
    /// Taps whose guests may use the resolver and the gate.
    ByName,
    /// Single ports of single addresses that a tap's guest may reach.
    Services,
    /// What a tap's guest may reach: networks of this prefix length.
    Allow(u8),
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guests => f.write_str("guests"),
            Self::Sent => f.write_str("sent"),
            Self::Received => f.write_str("received"),
            Self::Dropped => f.write_str("dropped"),
            Self::Begun => f.write_str("begun"),
            Self::Asks => f.write_str("asks"),
            Self::SentOver => f.write_str("sent_over"),
            Self::ReceivedOver => f.write_str("received_over"),
            Self::Zones => f.write_str("zones"),
            Self::Owners => f.write_str("owners"),
            Self::Outbound => f.write_str("outbound"),
            Self::ByName => f.write_str("by_name"),
            Self::Services => f.write_str("services"),
            Self::Allow(length) => write!(f, "allow{length}"),
        }
    }
}

/// Everything that a guest, whose connections are tracked in `zone`, has in the table.
pub fn elements(guest: Guest, zone: Zone, policy: &Policy) -> BTreeSet<Element> {
    let (tap, address) = (guest.tap(), guest.address);
    let element = |set, text: String| Element { set, text };
    let mut elements: BTreeSet<Element> = [
        element(Set::Guests, format!("\"{tap}\" . {} . {address}", guest.mac())),
        element(Set::Zones, format!("\"{tap}\" : {zone}")),
        element(Set::Owners, format!("\"{tap}\" . {zone}")),
    ]
    .into();
    let always = [Set::Sent, Set::Received, Set::Dropped, Set::Begun];
    elements.extend(always.map(|set| element(set, format!("\"{tap}\""))));
    if !policy.reaches_anything() {
        return elements;
    }
    elements.insert(element(Set::Outbound, address.to_string()));
    if let Some(rate) = policy.bytes_per_second {
        elements.extend([Set::SentOver, Set::ReceivedOver].map(|set| element(set, over(&tap, rate))));
    }
    if policy.by_name {
        elements.extend([Set::ByName, Set::Asks].map(|set| element(set, format!("\"{tap}\""))));
    }
    if let Some(resolver) = policy.resolver.filter(|resolver| policy.allow.iter().any(|entry| entry.contains(resolver)))
    {
        let question = |protocol| element(Set::Services, format!("\"{tap}\" . {resolver} . {protocol} . 53"));
        elements.extend(["tcp", "udp"].map(question));
    }
    for part in policy.allow.iter().flat_map(|entry| opened(*entry)) {
        elements.insert(element(Set::Allow(part.prefix_len()), format!("\"{tap}\" . {}", part.network())));
    }
    elements
}

/// A tap in a set that has it while more than this rate passes.
pub(crate) fn over(tap: &str, rate: u64) -> String {
    format!("\"{tap}\" limit rate over {rate} bytes/second burst {BURST} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest() -> Guest {
        Guest::new("172.16.0.0/24".parse().unwrap(), 3).unwrap()
    }

    fn show(policy: &Policy) -> String {
        let lines = elements(guest(), 4, policy);
        lines.iter().map(|element| format!("{} {}\n", element.set, element.text)).collect()
    }

    #[test]
    fn a_guest_that_may_not_go_out_is_known_and_allowed_nothing() {
        let allow = vec!["1.1.1.1/32".parse().unwrap()];
        let policy = Policy { allow, by_name: true, bytes_per_second: Some(1), ..Policy::default() };
        insta::assert_snapshot!(show(&policy), @r#"
        guests "rds3" . 02:fc:ac:10:00:05 . 172.16.0.5
        sent "rds3"
        received "rds3"
        dropped "rds3"
        begun "rds3"
        zones "rds3" : 4
        owners "rds3" . 4
        "#);
    }

    #[test]
    fn a_guest_is_allowed_what_its_policy_names() {
        let allow = ["1.1.1.1/32", "10.0.0.0/7", "10.9.0.0/16"].map(|entry| entry.parse().unwrap());
        let resolver = Some(Ipv4Addr::new(10, 0, 0, 53));
        let bytes_per_second = Some(2_000_000);
        let policy = Policy { outbound: true, allow: allow.into(), by_name: true, resolver, bytes_per_second };
        insta::assert_snapshot!(show(&policy), @r#"
        guests "rds3" . 02:fc:ac:10:00:05 . 172.16.0.5
        sent "rds3"
        received "rds3"
        dropped "rds3"
        begun "rds3"
        asks "rds3"
        sent_over "rds3" limit rate over 2000000 bytes/second burst 131072 bytes
        received_over "rds3" limit rate over 2000000 bytes/second burst 131072 bytes
        zones "rds3" : 4
        owners "rds3" . 4
        outbound 172.16.0.5
        by_name "rds3"
        services "rds3" . 10.0.0.53 . tcp . 53
        services "rds3" . 10.0.0.53 . udp . 53
        allow8 "rds3" . 11.0.0.0
        allow16 "rds3" . 10.9.0.0
        allow32 "rds3" . 1.1.1.1
        "#);
    }

    #[test]
    fn a_taps_name_says_whose_it_is() {
        assert_eq!(number(&guest().tap()), Some(3));
        for other in ["rds", "rds03", "rds+3", "rds-seed", "eth0", "rds4294967296"] {
            assert_eq!(number(other), None, "{other}");
        }
    }
}
