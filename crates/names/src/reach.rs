//! Which addresses a name may lead to. A name is its owner's to point anywhere, so what it leads to is judged, too.

use std::net::{Ipv4Addr, UdpSocket};

use ipnet::Ipv4Net;

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

/// Whether a packet to `address` would stay on this host. The kernel answers: it takes an address of the host (or that of
/// the loopback) as the source of what is sent to itself. Nothing is sent. An address without a route is nobody's.
fn is_own(address: Ipv4Addr) -> bool {
    let source = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((address, 9))?;
        socket.local_addr()
    };
    source().is_ok_and(|source| source.ip() == address || source.ip().is_loopback())
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
