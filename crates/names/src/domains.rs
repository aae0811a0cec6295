//! Names of hosts, and the list of those that a VM may reach. Pure: no I/O.

use std::fmt;

use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};

/// Most entries in one list. Matching is a walk over the list, and this many take some microseconds.
pub const MAX_DOMAINS: usize = 64;

/// Longest name in its text form without the final dot (RFC 1035, section 2.3.4: 255 octets on the wire).
const MAX_NAME: usize = 253;

/// Longest label (RFC 1035, section 2.3.4).
const MAX_LABEL: usize = 63;

/// The name of a host: lower case ASCII labels of letters, digits, `-` and `_`, without a final dot; never an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(String);

impl HostName {
    /// Reads a name that a guest, a server or a client wrote. One final dot is taken off; upper case becomes lower.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = text.strip_suffix(b".").unwrap_or(text);
        if text.len() > MAX_NAME || !text.split(|byte| *byte == b'.').all(is_label) {
            return None;
        }
        let name = String::from_utf8(text.to_ascii_lowercase()).ok()?;
        // What ends in a number is read as an IPv4 address by some programs, in one of its many spellings.
        let last = name.rsplit('.').next()?;
        let number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x");
        (!number).then_some(Self(name))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_label(label: &[u8]) -> bool {
    (1..=MAX_LABEL).contains(&label.len())
        && label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Why an entry is not taken. The text is for the person who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// More than [`MAX_DOMAINS`] entries.
    #[error("{0} entries; at most {MAX_DOMAINS}")]
    TooMany(usize),
    /// Not the name of a host.
    #[error("{0:?} is not a domain name such as \"api.example.com\" or \"*.example.com\"")]
    NotAName(String),
    /// An address, which is what `allowIps` is for.
    #[error("{0:?} is an address; name it in allowIps")]
    Address(String),
    /// A wildcard elsewhere than in the place of the first labels.
    #[error("{0:?}: a wildcard is the whole first label and nothing else, as in \"*.example.com\"")]
    Wildcard(String),
    /// A wildcard over a whole top-level domain, or over everything.
    #[error("{0:?} is too wide: at least two labels must follow the wildcard")]
    TooWide(String),
}

/// One entry of a list: a name, or a wildcard for all names below one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    name: HostName,
    wildcard: bool,
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, DomainError> {
        let (wildcard, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if rest.contains('*') {
            return Err(DomainError::Wildcard(text.to_owned()));
        }
        if rest.parse::<std::net::IpAddr>().is_ok() || rest.parse::<ipnet::IpNet>().is_ok() {
            return Err(DomainError::Address(text.to_owned()));
        }
        let not_a_name = || DomainError::NotAName(text.to_owned());
        // Ports, schemes and paths are what people add by habit: all have characters that are refused here.
        let ascii = Uts46::new()
            .to_ascii(rest.as_bytes(), AsciiDenyList::URL, Hyphens::Allow, DnsLength::VerifyAllowRootDot)
            .map_err(|_| not_a_name())?;
        let name = HostName::parse(ascii.as_bytes()).ok_or_else(not_a_name)?;
        if wildcard && !name.as_str().contains('.') {
            return Err(DomainError::TooWide(text.to_owned()));
        }
        Ok(Self { name, wildcard })
    }

    /// What of `name` the wildcard stands for: `""` for an exact name, `None` if it does not match.
    fn free_part<'n>(&self, name: &'n HostName) -> Option<&'n str> {
        if !self.wildcard {
            return (self.name == *name).then_some("");
        }
        name.as_str().strip_suffix(self.name.as_str())?.strip_suffix('.').filter(|free| !free.is_empty())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.wildcard { "*." } else { "" }, self.name)
    }
}

/// The names that a VM may reach. `*.example.com` stands for every name below `example.com`, however deep, and not for
/// `example.com` itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Domains(Vec<Pattern>);

impl Domains {
    /// Reads a list. Names may be in any script and case; they are kept in ASCII (punycode), lower case.
    ///
    /// # Errors
    /// The first entry that is not taken, and why.
    pub fn parse<T: AsRef<str>>(entries: &[T]) -> Result<Self, DomainError> {
        if entries.len() > MAX_DOMAINS {
            return Err(DomainError::TooMany(entries.len()));
        }
        entries.iter().map(|entry| Pattern::parse(entry.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// Whether nothing is allowed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `name` is in the list.
    #[must_use]
    pub fn allow(&self, name: &HostName) -> bool {
        self.free_part(name).is_some()
    }

    /// How many characters of `name` its asker was free to choose: none where it is in the list as it is, else what the
    /// narrowest wildcard leaves open. `None` if it is not in the list.
    #[must_use]
    pub fn free_part(&self, name: &HostName) -> Option<usize> {
        self.0.iter().filter_map(|pattern| pattern.free_part(name)).map(str::len).min()
    }
}

impl fmt::Display for Domains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, pattern) in self.0.iter().enumerate() {
            write!(f, "{}{pattern}", if index == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> HostName {
        HostName::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn names_and_wildcards_match_what_they_say() {
        let domains = Domains::parse(&["api.GitHub.com", "*.googleapis.com", "münchen.example."]).unwrap();
        for allowed in [
            "api.github.com",
            "API.github.COM.",
            "storage.googleapis.com",
            "a.b.googleapis.com",
            "xn--mnchen-3ya.example",
        ] {
            assert!(domains.allow(&name(allowed)), "{allowed}");
        }
        for refused in
            ["github.com", "x.api.github.com", "googleapis.com", "evilgoogleapis.com", "googleapis.com.evil.org"]
        {
            assert!(!domains.allow(&name(refused)), "{refused}");
        }
        assert_eq!(domains.to_string(), "api.github.com *.googleapis.com xn--mnchen-3ya.example");
    }

    #[test]
    fn what_is_no_name_is_refused_with_a_reason() {
        for (entry, word) in [
            ("", "not a domain name"),
            ("a..b", "not a domain name"),
            ("https://example.com", "not a domain name"),
            ("example.com:443", "not a domain name"),
            ("example.com/x", "not a domain name"),
            (" example.com", "not a domain name"),
            ("exa mple.com", "not a domain name"),
            ("1.2.3", "not a domain name"),
            ("0x7f000001", "not a domain name"),
            ("1.2.3.4", "allowIps"),
            ("10.0.0.0/8", "allowIps"),
            ("::1", "allowIps"),
            ("*", "wildcard"),
            ("a.*.com", "wildcard"),
            ("*.*.com", "wildcard"),
            ("*a.example.com", "wildcard"),
            ("*.com", "too wide"),
            ("*.", "not a domain name"),
        ] {
            let error = Domains::parse(&[entry]).unwrap_err().to_string();
            assert!(error.contains(word), "{entry:?}: {error}");
        }
        let long = format!("{}.com", "a".repeat(64));
        assert!(Domains::parse(&[long]).is_err());
        assert_eq!(Domains::parse(&vec!["a.example"; 65]), Err(DomainError::TooMany(65)));
    }

    #[test]
    fn the_free_part_is_what_the_narrowest_wildcard_leaves() {
        let domains = Domains::parse(&["*.example.com", "*.a.example.com", "b.example.com"]).unwrap();
        assert_eq!(domains.free_part(&name("x.a.example.com")), Some(1));
        assert_eq!(domains.free_part(&name("xy.example.com")), Some(2));
        assert_eq!(domains.free_part(&name("b.example.com")), Some(0));
        assert_eq!(domains.free_part(&name("example.com")), None);
    }

    proptest! {
        #[test]
        fn nothing_panics_and_names_stay_names(text in ".{0,80}", bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Domains::parse(&[text]);
            if let Some(name) = HostName::parse(&bytes) {
                prop_assert_eq!(HostName::parse(name.as_str().as_bytes()), Some(name));
            }
        }

        #[test]
        fn a_wildcard_never_matches_outside_its_domain(text in "[a-z.-]{1,20}") {
            let domains = Domains::parse(&["*.example.com"]).unwrap();
            if let Some(name) = HostName::parse(text.as_bytes()) {
                prop_assert_eq!(domains.allow(&name), name.as_str().ends_with(".example.com"));
            }
        }
    }
}
