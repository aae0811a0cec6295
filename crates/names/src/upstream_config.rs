//! Which resolvers this host asks, unless it is told.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

const PORT: u16 = 53;

/// Most servers that are asked (as many as the C library reads).
const MAX_SERVERS: usize = 3;

/// Why there is no resolver to ask.
#[derive(Debug, thiserror::Error)]
#[error("{path} names no resolver; set DNS_SERVER_IP")]
pub struct UpstreamError {
    path: String,
}

/// The resolvers of a `resolv.conf`, at most three.
///
/// # Errors
/// There is no such file, or it names none.
pub fn upstream_servers(resolv_conf: &Path) -> Result<Vec<SocketAddr>, UpstreamError> {
    let text = std::fs::read_to_string(resolv_conf).unwrap_or_default();
    let servers = parse(&text);
    if servers.is_empty() { Err(UpstreamError { path: resolv_conf.display().to_string() }) } else { Ok(servers) }
}

fn parse(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address: IpAddr =
            words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?.parse().ok()?;
        Some(SocketAddr::new(address, PORT))
    };
    text.lines().filter_map(server).take(MAX_SERVERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_and_nothing_else() {
        let text =
            "# nameserver 9.9.9.9\nsearch a.example\nnameserver 192.0.2.1\nnameserver\t::1 # local\nnameserver x\n";
        assert_eq!(parse(text), ["192.0.2.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
        assert!(upstream_servers(Path::new("/nowhere")).is_err());
    }
}
