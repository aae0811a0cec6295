//! Which addresses a name may lead to. A name is its owner's to point anywhere, so what it leads to is judged, too.

use std::net::{Ipv4Addr, UdpSocket};

use ipnet::Ipv4Net;

/// Ranges where something private may be: a name never leads into them, unless the VM may reach the address by itself.
/// From the IANA registry of special-purpose addresses; those for documentation (192.0.2.0/24 and such) and benchmarks
/// (198.18.0.0/15) are left out, because no network that needs protection is there and tests use them.
const PRIVATE: [Ipv4Net; 10] = [
    net(0, 0, 0, 0, 8),
    net(10, 0, 0, 0, 8),
    net(100, 64, 0, 0, 10), // carriers', and some clouds' metadata servers
    net(127, 0, 0, 0, 8),
    net(169, 254, 0, 0, 16), // link-local: most clouds' metadata servers
    net(172, 16, 0, 0, 12),
    net(192, 0, 0, 0, 24),
    net(192, 168, 0, 0, 16),
    net(224, 0, 0, 0, 4),
    net(240, 0, 0, 0, 4),
];

const fn net(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

/// Whether no name may lead to `address`: it is private, or one of this host's own.
pub(crate) fn is_closed(address: Ipv4Addr, guests: Ipv4Net) -> bool {
    guests.contains(&address) || PRIVATE.iter().any(|range| range.contains(&address)) || is_own(address)
}

/// Whether one of `ranges` means this very `address`: it is inside a private range, or the address alone. What is as wide
/// as `0.0.0.0/0` speaks of the internet.
pub(crate) fn is_named(address: Ipv4Addr, ranges: &[Ipv4Net]) -> bool {
    let means = |range: &Ipv4Net| range.prefix_len() == 32 || PRIVATE.iter().any(|private| private.contains(range));
    ranges.iter().any(|range| range.contains(&address) && means(range))
}

/// Whether a packet to `address` would stay on this host. The kernel answers: it takes an address of the host as the
/// source of what is sent to itself. Nothing is sent. An address without a route is nobody's.
fn is_own(address: Ipv4Addr) -> bool {
    let source = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((address, 9))?;
        socket.local_addr()
    };
    source().is_ok_and(|source| source.ip() == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_means_a_private_address_names_it() {
        let named = |range: &str| is_named(Ipv4Addr::new(10, 1, 2, 3), &[range.parse().unwrap()]);
        assert!(named("10.1.2.3/32") && named("10.0.0.0/8") && named("10.1.0.0/16"));
        assert!(!named("0.0.0.0/0") && !named("8.0.0.0/6") && !named("10.2.0.0/16"));
    }

    #[test]
    fn private_addresses_and_the_hosts_own_are_closed() {
        let guests = net(11, 22, 0, 0, 16);
        for closed in ["127.0.0.1", "10.1.2.3", "169.254.169.254", "172.31.0.1", "192.168.1.1", "11.22.0.9", "0.0.0.0"]
        {
            assert!(is_closed(closed.parse().unwrap(), guests), "{closed}");
        }
        for open in ["1.1.1.1", "203.0.113.7", "172.32.0.1", "11.23.0.1"] {
            assert!(!is_closed(open.parse().unwrap(), guests), "{open}");
        }
    }
}
