//! Where a request comes from, behind proxies too. A header is believed only if a trusted proxy brought it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::extract::{ConnectInfo, Request};
use axum::http::HeaderMap;
use ipnet::IpNet;

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Client {
    /// The caller's address.
    pub(super) address: IpAddr,
    /// Whether he came over TLS.
    pub(super) secure: bool,
}

impl Client {
    pub(super) fn of(request: &Request, trusted: &[IpNet]) -> Self {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        // In-process callers have no address.
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(address)| address.ip().to_canonical());
        Self::from_headers(peer, request.headers(), trusted)
    }

    fn from_headers(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
        if !is_trusted(&peer) {
            return Self { address: peer, secure: false };
        }
        let mut address = peer;
        // The last entry was added by the proxy nearest to us; whatever stands before an untrusted one may be made up.
        for hop in list(headers, "x-forwarded-for").into_iter().rev() {
            let Ok(hop) = hop.parse::<IpAddr>() else { break };
            address = hop.to_canonical();
            if !is_trusted(&address) {
                break;
            }
        }
        let secure = list(headers, "x-forwarded-proto").last().is_some_and(|proto| proto.eq_ignore_ascii_case("https"));
        Self { address, secure }
    }

    /// A name for limits. An IPv6 host has a whole /64 to itself.
    pub(super) fn name(&self) -> String {
        match self.address {
            IpAddr::V4(address) => format!("ip:{address}"),
            IpAddr::V6(address) => format!("ip:{}/64", Ipv6Addr::from(u128::from(address) >> 64 << 64)),
        }
    }
}

fn list<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", forwarded.parse().unwrap());
        headers.insert("x-forwarded-proto", "https".parse().unwrap());
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let client = Client::from_headers(peer.parse().unwrap(), &headers, &trusted);
        format!("{} {}", client.name(), client.secure)
    }

    #[test]
    fn only_a_trusted_proxy_is_believed_and_only_its_own_entry() {
        assert_eq!(client("192.0.2.1", "203.0.113.9"), "ip:192.0.2.1 false");
        assert_eq!(client("10.0.0.1", "203.0.113.9"), "ip:203.0.113.9 true");
        assert_eq!(client("10.0.0.1", "198.51.100.1, 203.0.113.9, 10.0.0.2"), "ip:203.0.113.9 true");
        assert_eq!(client("10.0.0.1", "nonsense"), "ip:10.0.0.1 true");
        assert_eq!(client("10.0.0.1", "2001:db8::1:2:3:4"), "ip:2001:db8::/64 true");
    }
}
