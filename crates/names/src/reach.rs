//! Which addresses a name may lead to. A name is its owner's to point anywhere, so what it leads to is judged, too.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, sendto, socket};

// linux/netlink.h, linux/rtnetlink.h.
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTN_UNSPEC: u8 = 0;
const RTN_LOCAL: u8 = 2;
const RTN_BROADCAST: u8 = 3;
const AF_INET: u8 = 2;

/// Where no name leads by itself.
#[derive(Debug)]
pub(crate) struct Closed(Vec<Ipv4Net>);

impl Closed {
    pub(crate) fn new(private: &[Ipv4Net], guests: Ipv4Net) -> Self {
        Self(private.iter().copied().chain([guests]).collect())
    }

    /// Whether no name may lead to `address` for who may reach `trusted` without a name: it is private, or one of this
    /// host's own, and not meant by an entry.
    pub(crate) fn has(&self, address: Ipv4Addr, trusted: &[Ipv4Net]) -> bool {
        let closed = self.0.iter().any(|range| range.contains(&address)) || is_own(address);
        closed && !self.is_meant(address, trusted)
    }

    /// Whether one of `entries` means this very address: it is inside a private range, or the address alone. What is as
    /// wide as `0.0.0.0/0` speaks of the internet.
    fn is_meant(&self, address: Ipv4Addr, entries: &[Ipv4Net]) -> bool {
        let means = |entry: &Ipv4Net| entry.prefix_len() == 32 || self.0.iter().any(|range| range.contains(entry));
        entries.iter().any(|entry| entry.contains(&address) && means(entry))
    }
}

/// Whether a packet to `address` would stay on this host. The kernel answers, as for any packet; one that it cannot ask
/// might. Nothing is sent.
fn is_own(address: Ipv4Addr) -> bool {
    route_type(address).is_none_or(|kind| [RTN_LOCAL, RTN_BROADCAST].contains(&kind))
}

/// The kind of route that leads there: `rtm_type` of rtnetlink(7), [`RTN_UNSPEC`] if there is none. `None` if the kernel does
/// not say.
fn route_type(address: Ipv4Addr) -> Option<u8> {
    // Protocol 0 is that of routes.
    let socket = socket(AddressFamily::NETLINK, SocketType::RAW, None).ok()?;
    let mut question = [0; 36];
    // A message: its length, kind and flags; the addresses' family and length in bits; one attribute.
    question[..4].copy_from_slice(&36_u32.to_ne_bytes());
    question[4..6].copy_from_slice(&RTM_GETROUTE.to_ne_bytes());
    question[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    question[16..18].copy_from_slice(&[AF_INET, 32]);
    question[28..30].copy_from_slice(&8_u16.to_ne_bytes());
    question[30..32].copy_from_slice(&RTA_DST.to_ne_bytes());
    question[32..].copy_from_slice(&address.octets());
    sendto(&socket, &question, SendFlags::empty(), &SocketAddrNetlink::new(0, 0)).ok()?;
    let mut answer = [0; 1024];
    // It has answered when it has taken the question.
    let (length, _) = recv(&socket, &mut answer, RecvFlags::DONTWAIT).ok()?;
    let answer = answer.get(..length)?;
    match u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?) {
        RTM_NEWROUTE => answer.get(23).copied(),
        NLMSG_ERROR => Some(RTN_UNSPEC),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed() -> Closed {
        let private: Vec<Ipv4Net> = ["10.0.0.0/8", "169.254.0.0/16"].map(|range| range.parse().unwrap()).into();
        Closed::new(&private, "11.22.0.0/16".parse().unwrap())
    }

    #[test]
    fn private_addresses_and_the_hosts_own_are_closed() {
        for address in ["127.0.0.1", "127.9.9.9", "10.1.2.3", "169.254.169.254", "11.22.0.9"] {
            assert!(closed().has(address.parse().unwrap(), &[]), "{address}");
        }
        for address in ["1.1.1.1", "203.0.113.7", "172.32.0.1", "11.23.0.1"] {
            assert!(!closed().has(address.parse().unwrap(), &[]), "{address}");
        }
    }

    #[test]
    fn only_what_means_a_private_address_names_it() {
        let open = |range: &str| !closed().has(Ipv4Addr::new(10, 1, 2, 3), &[range.parse().unwrap()]);
        assert!(open("10.1.2.3/32") && open("10.0.0.0/8") && open("10.1.0.0/16"));
        assert!(!open("0.0.0.0/0") && !open("8.0.0.0/6") && !open("10.2.0.0/16"));
    }
}
