//! Where a webhook may lead: which URLs, and which addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use hyper::Uri;
use ipnet::IpNet;
use rds_egress::is_special;
use url::{Host, Url};

use crate::error::{Error, Result};

const MAX_URL: usize = 2048;

/// Which addresses may be connected to. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Reach(Arc<[IpNet]>);

impl Reach {
    /// The Internet, and these networks.
    pub(super) fn new(networks: &[IpNet]) -> Self {
        Self(networks.into())
    }

    /// Whether this address may be connected to.
    pub(super) fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        !is_special(address) || self.0.iter().any(|network| network.contains(&address))
    }

    /// Reads a URL. A name's addresses show when it is connected to; an address that is written out must be allowed now.
    pub(super) fn parse(&self, text: &str) -> Result<Target> {
        let target = Target::parse(text).ok_or_else(|| Error::invalid(BAD_URL))?;
        let written = match target.url.host() {
            Some(Host::Ipv4(address)) => vec![IpAddr::V4(address)],
            Some(Host::Ipv6(address)) => vec![IpAddr::V6(address)],
            Some(Host::Domain(name)) if is_localhost(name) => {
                vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
            }
            _ => return Ok(target),
        };
        if written.into_iter().any(|address| self.allows(address)) {
            return Ok(target);
        }
        Err(Error::invalid(
            "url leads to an address that is no part of the Internet; WEBHOOK_ALLOW_NETWORKS can allow it",
        ))
    }
}

const BAD_URL: &str = "url must be an http or https URL of at most 2048 characters, without a user and a password";

/// RFC 6761: such names are this host's own, whatever a resolver says.
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || name.ends_with(".localhost")
}

/// A URL that something can be sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    url: Url,
}

impl Target {
    /// Reads one that was kept: whether its addresses are allowed, shows when they are connected to.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let short = text.len() <= MAX_URL && !text.contains(|c: char| c.is_control() || c.is_whitespace());
        let url = Url::parse(text).ok().filter(|_| short)?;
        let plain = matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none();
        let port = url.port_or_known_default().is_some_and(|port| port != 0);
        let target = (plain && port && url.host().is_some()).then_some(Self { url })?;
        target.path().parse::<Uri>().is_ok().then_some(target)
    }

    /// Whether TLS is spoken.
    pub(super) fn is_tls(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// What is resolved, or is an address already.
    pub(super) fn host(&self) -> Host<&str> {
        self.url.host().expect("it was looked at")
    }

    pub(super) fn port(&self) -> u16 {
        self.url.port_or_known_default().expect("it was looked at")
    }

    /// The header `host`.
    pub(super) fn authority(&self) -> String {
        let host = self.host();
        self.url.port().map_or_else(|| host.to_string(), |port| format!("{host}:{port}"))
    }

    /// What is asked for there.
    pub(super) fn path(&self) -> String {
        self.url.query().map_or_else(|| self.url.path().to_owned(), |query| format!("{}?{query}", self.url.path()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(networks: &[&str]) -> Reach {
        Reach::new(&networks.iter().map(|network| network.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn urls_that_make_no_sense_are_refused() {
        for bad in [
            "",
            "example.com",
            "/x",
            "ftp://example.com",
            "file:///etc/passwd",
            "http://",
            "https://user@example.com",
            "https://:pass@example.com",
            "http://example.com:0",
            "http://exa mple.com",
            "http://example.com/\r\nx: y",
            " http://example.com",
            "http://example.com:99999",
            "unix:/run/x",
            "http://[::1",
            "http://a..b%00c/",
        ] {
            assert!(matches!(reach(&[]).parse(bad), Err(Error::Invalid(_))), "{bad:?}");
        }
        assert!(reach(&[]).parse(&format!("http://example.com/{}", "x".repeat(MAX_URL))).is_err());
        let target = reach(&[]).parse("HTTPS://Example.com:8443/a%20b?c=d#e").unwrap();
        assert_eq!((target.authority().as_str(), target.path().as_str()), ("example.com:8443", "/a%20b?c=d"));
        assert!(target.is_tls() && target.port() == 8443);
        assert_eq!(Target::parse("http://[2606:4700::1111]").unwrap().authority(), "[2606:4700::1111]");
    }

    #[test]
    fn addresses_that_are_no_part_of_the_internet_are_refused_in_every_spelling() {
        for bad in [
            "http://127.0.0.1",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://0/",
            "http://[::1]/",
            "http://[::ffff:10.0.0.1]/",
            "http://169.254.169.254/latest",
            "http://localhost:3000",
            "http://a.LOCALHOST./",
            "http://192.168.1.1",
            "http://[fd00::1]",
            "http://\u{ff11}27.0.0.1/",
        ] {
            assert!(matches!(reach(&[]).parse(bad), Err(Error::Invalid(why)) if why.contains("ALLOW")), "{bad}");
        }
    }

    #[test]
    fn what_is_allowed_is_no_more_than_that() {
        let reach = reach(&["127.0.0.0/8", "10.1.0.0/16"]);
        for good in
            ["http://127.0.0.1:9", "http://localhost", "http://10.1.2.3", "http://[::ffff:10.1.2.3]", "http://1.1.1.1"]
        {
            assert!(reach.parse(good).is_ok(), "{good}");
        }
        assert!(reach.parse("http://10.2.0.1").is_err() && reach.parse("http://[::1]").is_err());
    }
}
