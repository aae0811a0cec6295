//! What is worth telling people: each thing once for a guest, and not without end.

use std::collections::HashSet;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::domains::HostName;

/// Most things that are told of one guest. A guest that makes up names has no way to fill a log with them.
const MAX_NOTICES: usize = 100;

/// Something that was refused to a guest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Notice {
    /// It asked for a name that is not in its list.
    Name(HostName),
    /// An allowed name led to an address that no name may open.
    Rebinding {
        /// The name that was looked up.
        name: HostName,
        /// Where it led.
        address: Ipv4Addr,
    },
    /// It asks more often than it may.
    Rate,
    /// It asks for names below a wildcard that are so long, or so many, that they carry data.
    Tunnel,
    /// It holds as many connections as it may.
    Connections,
    /// A connection was reset.
    Connection {
        /// Where it was to go.
        to: SocketAddrV4,
        /// Why it did not.
        why: Refusal,
    },
}

/// Why a connection was reset.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No lookup of this guest led to the address, or none that still counts.
    NotLookedUp,
    /// Neither TLS nor HTTP/1 as the port promises, or no whole head within the limits of size and time.
    NotUnderstood,
    /// The head names no host.
    NoName,
    /// The true name is hidden (Encrypted Client Hello).
    Hidden,
    /// It names a host that is not in the list, or another one than before on the same connection.
    Name(HostName),
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "lookup of {name} refused: it is not in allowDomains"),
            Self::Rebinding { name, address } => {
                write!(f, "lookup of {name} refused: it leads to {address}, which no name may open")
            }
            Self::Rate => f.write_str("lookups refused: too many"),
            Self::Tunnel => f.write_str("lookups below a wildcard refused: they look like data"),
            Self::Connections => f.write_str("connections refused: too many at a time"),
            Self::Connection { to, why } => write!(f, "connection to {to} reset: {why}"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLookedUp => f.write_str("no lookup of an allowed name led there"),
            Self::NotUnderstood => f.write_str("it is neither TLS nor HTTP as the port promises"),
            Self::NoName => f.write_str("it names no host"),
            Self::Hidden => f.write_str("it hides the host's name"),
            Self::Name(name) => write!(f, "{name} is not a name it may use"),
        }
    }
}

/// Who is told. Called from tasks that serve guests: it must return at once.
pub trait Report: fmt::Debug + Send + Sync + 'static {
    /// `guest` is the id that its policy was set under. Whether the notice was taken: one that was not is told when the same
    /// happens again.
    fn report(&self, guest: &str, notice: &Notice) -> bool;
}

/// What was told of one guest.
#[derive(Debug, Default)]
pub(crate) struct Told(HashSet<Key>);

/// Once per destination, whatever the reason: a guest chooses names freely.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Key {
    To(SocketAddrV4),
    Other(Notice),
}

impl Told {
    /// Has this told, if it has not been yet and may be.
    pub(crate) fn tell(&mut self, notice: &Notice, tell: impl FnOnce() -> bool) {
        let key = match notice {
            Notice::Connection { to, .. } => Key::To(*to),
            other => Key::Other(other.clone()),
        };
        if self.0.len() < MAX_NOTICES && !self.0.contains(&key) && tell() {
            self.0.insert(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Told {
        fn is_news(&mut self, notice: &Notice) -> bool {
            let mut told = false;
            self.tell(notice, || {
                told = true;
                true
            });
            told
        }
    }

    #[test]
    fn what_was_not_taken_is_told_again() {
        let mut told = Told::default();
        told.tell(&Notice::Rate, || false);
        assert!(told.is_news(&Notice::Rate) && !told.is_news(&Notice::Rate));
    }

    #[test]
    fn a_destination_is_told_once_and_the_log_cannot_be_filled() {
        let mut told = Told::default();
        let to = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 443);
        assert!(told.is_news(&Notice::Connection { to, why: Refusal::NoName }));
        assert!(!told.is_news(&Notice::Connection { to, why: Refusal::Hidden }));
        assert!(told.is_news(&Notice::Rate) && !told.is_news(&Notice::Rate));
        let names = (0..1000).filter_map(|number| HostName::parse(format!("a{number}.example").as_bytes()));
        assert_eq!(names.filter(|name| told.is_news(&Notice::Name(name.clone()))).count(), MAX_NOTICES - 2);
    }
}
