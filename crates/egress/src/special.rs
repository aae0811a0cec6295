//! Addresses that are no part of the Internet, and what an entry of an allow list is worth with respect to them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

const fn network(a: u8, b: u8, c: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), length)
}

/// Networks that nobody reaches by naming a larger one: this host and others near it, the metadata services of clouds,
/// multicast (RFC 6890). None of them lies in another.
pub const SPECIAL: [Ipv4Net; 11] = [
    network(0, 0, 0, 8),
    network(10, 0, 0, 8),
    network(100, 64, 0, 10),
    network(127, 0, 0, 8),
    network(169, 254, 0, 16),
    network(172, 16, 0, 12),
    network(192, 0, 0, 24),
    network(192, 168, 0, 16),
    network(198, 18, 0, 15),
    network(224, 0, 0, 4),
    network(240, 0, 0, 4),
];

/// What Azure's hosts are for their machines, credentials included. It lies among addresses of the Internet; it is reached by
/// an entry for it alone, as this host is.
pub const AZURE_HOST: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

const fn network6(a: u16, b: u16, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), length)
}

/// The addresses of IPv6 that are given out, and what in them is none of a host of the Internet: protocols' own, with Teredo
/// and others that lead elsewhere, and documentation.
const GIVEN_OUT: Ipv6Net = network6(0x2000, 0, 3);
const SPECIAL6: [Ipv6Net; 3] = [network6(0x2001, 0, 23), network6(0x2001, 0xdb8, 32), network6(0x3fff, 0, 20)];

/// Networks of IPv6 whose addresses stand for one of IPv4: the prefix, and which byte that begins at.
const STANDING_FOR_4: [(Ipv6Net, usize); 2] = [(network6(0x64, 0xff9b, 96), 12), (network6(0x2002, 0, 16), 2)];

/// Whether an address is no part of the Internet: this host, others near it, the metadata services of clouds, multicast, and
/// every address of IPv6 that leads to one of these or is not given out.
pub fn is_special(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address == AZURE_HOST || SPECIAL.iter().any(|special| special.contains(&address)),
        IpAddr::V6(address) => {
            let within = STANDING_FOR_4.iter().find(|(network, _)| network.contains(&address));
            let inner = within.and_then(|(_, from)| address.octets().get(*from..from + 4)?.try_into().ok());
            match inner {
                Some::<[u8; 4]>(inner) => is_special(IpAddr::from(inner)),
                None => !GIVEN_OUT.contains(&address) || SPECIAL6.iter().any(|special| special.contains(&address)),
            }
        }
    }
}

/// What an entry opens: itself if it lies in a special network, and otherwise what it has outside of all of them.
pub(crate) fn opened(entry: Ipv4Net) -> Vec<Ipv4Net> {
    let entry = entry.trunc();
    if SPECIAL.iter().any(|special| special.contains(&entry)) {
        return vec![entry];
    }
    let mut left = vec![entry];
    for special in SPECIAL.iter().filter(|special| entry.contains(*special)) {
        left = left.into_iter().flat_map(|part| without(part, *special)).collect();
    }
    left
}

/// A network without one that may lie in it: halves, each of which has none of it or is halved again.
fn without(network: Ipv4Net, hole: Ipv4Net) -> Vec<Ipv4Net> {
    if !network.contains(&hole) {
        return vec![network];
    }
    let (mut parts, mut rest) = (Vec::new(), network);
    while rest != hole {
        let Ok(mut halves) = rest.subnets(rest.prefix_len() + 1) else { break };
        let (Some(first), Some(second)) = (halves.next(), halves.next()) else { break };
        let (with, other) = if first.contains(&hole) { (first, second) } else { (second, first) };
        parts.push(other);
        rest = with;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn all_is_all_of_the_internet() {
        let parts = opened(net("0.0.0.0/0"));
        assert!(parts.len() < 80, "{}", parts.len());
        // An address of this host needs an entry of its own length.
        assert!(parts.iter().all(|part| part.prefix_len() < 32 && part.prefix_len() > 0));
        let reaches = |address: [u8; 4]| parts.iter().any(|part| part.contains(&Ipv4Addr::from(address)));
        assert!(reaches([8, 8, 8, 8]) && reaches([172, 32, 0, 1]) && reaches([198, 51, 100, 7]));
        assert!(reaches([198, 17, 0, 1]) && !reaches([198, 18, 0, 1]) && !reaches([198, 19, 0, 1]));
        assert!(!reaches([10, 1, 2, 3]) && !reaches([169, 254, 169, 254]) && !reaches([172, 16, 0, 1]));
    }

    #[test]
    fn what_is_named_is_opened() {
        assert_eq!(opened(net("10.0.0.0/8")), [net("10.0.0.0/8")]);
        assert_eq!(opened(net("169.254.169.254/32")), [net("169.254.169.254/32")]);
        assert_eq!(opened(net("1.2.3.4/24")), [net("1.2.3.0/24")]);
        assert_eq!(opened(net("10.0.0.0/7")), [net("11.0.0.0/8")]);
    }

    #[test]
    fn what_is_no_part_of_the_internet_is_known_in_every_form() {
        for special in [
            "127.0.0.1",
            "10.1.2.3",
            "169.254.169.254",
            "168.63.129.16",
            "255.255.255.255",
            "0.0.0.0",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "5f00::1",
            "4000::1",
        ] {
            assert!(is_special(special.parse().unwrap()), "{special}");
        }
        for usual in
            ["1.1.1.1", "172.32.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1", "2002:101:101::"]
        {
            assert!(!is_special(usual.parse().unwrap()), "{usual}");
        }
    }

    proptest! {
        #[test]
        fn an_entry_opens_what_it_covers_outside_of_special_networks(bits: u32, length in 0..=32u8, probe: u32) {
            let entry = Ipv4Net::new(Ipv4Addr::from_bits(bits), length).unwrap().trunc();
            let probe = Ipv4Addr::from_bits(probe);
            let parts = opened(entry);
            let special = SPECIAL.iter().find(|special| special.contains(&probe));
            let wanted = entry.contains(&probe) && special.is_none_or(|special| special.contains(&entry));
            prop_assert_eq!(parts.iter().filter(|part| part.contains(&probe)).count(), usize::from(wanted));
        }
    }
}
