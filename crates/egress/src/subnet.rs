//! The addresses of guests.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;
use rds_netif::Mac;

/// The network that guests' addresses are from. Its first address is the gateway's, the next is guest 0's; its last is
/// nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet(Ipv4Net);

/// Text that is no network for guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidSubnet;

impl fmt::Display for InvalidSubnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a private IPv4 network such as 172.16.0.0/24, with a prefix length from 16 to 29")
    }
}

impl std::error::Error for InvalidSubnet {}

/// Every end of a link on the host has this hardware address: no two of them share a link.
const GATEWAY_MAC: Mac = Mac([0x02, 0xfc, 0, 0, 0, 1]);

impl Subnet {
    /// What guests go out by.
    pub fn gateway(self) -> Ipv4Addr {
        self.address(1)
    }

    /// The gateway's hardware address.
    pub fn gateway_mac(self) -> Mac {
        GATEWAY_MAC
    }

    /// How many guests it has room for.
    pub fn capacity(self) -> u32 {
        (1 << (32 - self.0.prefix_len())) - 3
    }

    /// The address of the guest with this number; none if there is no room for it.
    pub fn guest(self, number: u32) -> Option<Ipv4Addr> {
        (number < self.capacity()).then(|| self.address(number + 2))
    }

    /// The network.
    pub fn network(self) -> Ipv4Net {
        self.0
    }

    fn address(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0.network().to_bits() + offset)
    }
}

/// The hardware address of the guest with this address.
pub(crate) fn mac(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    Mac([0x02, 0xfc, a, b, c, d])
}

impl FromStr for Subnet {
    type Err = InvalidSubnet;

    fn from_str(text: &str) -> Result<Self, InvalidSubnet> {
        let network: Ipv4Net = text.parse().map_err(|_| InvalidSubnet)?;
        let whole = network.trunc() == network && network.addr().is_private();
        if whole && (16..=29).contains(&network.prefix_len()) { Ok(Self(network)) } else { Err(InvalidSubnet) }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted_from_the_network() {
        let subnet: Subnet = "172.16.0.0/24".parse().unwrap();
        assert_eq!(subnet.gateway().to_string(), "172.16.0.1");
        assert_eq!(subnet.guest(0), Some(Ipv4Addr::new(172, 16, 0, 2)));
        assert_eq!(subnet.guest(252), Some(Ipv4Addr::new(172, 16, 0, 254)));
        assert_eq!(subnet.guest(253), None);
        let large: Subnet = "10.8.0.0/16".parse().unwrap();
        assert_eq!(large.guest(1000), Some(Ipv4Addr::new(10, 8, 3, 234)));
        assert_eq!(mac(Ipv4Addr::new(10, 8, 3, 234)).to_string(), "02:fc:0a:08:03:ea");
    }

    #[test]
    fn what_is_no_network_for_guests_is_refused() {
        for bad in ["", "172.16.0.0", "172.16.0.1/24", "8.8.8.0/24", "10.0.0.0/8", "10.0.0.0/30", "::/64"] {
            assert_eq!(bad.parse::<Subnet>(), Err(InvalidSubnet), "{bad}");
        }
    }
}
