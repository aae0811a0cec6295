//! The first message of a TLS connection, and the one thing in it that matters here: the name of the server.

use tls_parser::{
    SNIType, TlsExtension, TlsExtensionType, TlsMessage, TlsMessageHandshake, TlsRecordType,
    parse_tls_client_hello_extensions, parse_tls_message_handshake, parse_tls_raw_record,
};

use crate::domains::HostName;
use crate::report::Refusal;

/// Longest first message with its record headers. Those of browsers have 600 to 2,000 bytes.
pub(crate) const MAX_HELLO: usize = 16 * 1024;

/// The extension of Encrypted Client Hello (RFC 9849) and the one that came before it.
const ENCRYPTED_HELLO: [u16; 2] = [0xfe0d, 0xffce];

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Hello {
    /// The beginning of a first message.
    Incomplete,
    /// A whole one, to this server.
    To(HostName),
    /// Nothing that may go on.
    Refused(Refusal),
}

/// A first message that is being read. Each of its records is looked at once, in whatever pieces it comes.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// The handshake message, put together from the records that it comes in.
    message: Vec<u8>,
    /// Bytes of the connection that these records took.
    taken: usize,
}

impl Reader {
    /// Reads the first bytes of a connection: those of the call before, and more.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Hello {
        match self.is_whole(bytes) {
            Ok(true) => server_name(&self.message).map_or_else(Hello::Refused, Hello::To),
            Ok(false) if bytes.len() < MAX_HELLO => Hello::Incomplete,
            _ => Hello::Refused(Refusal::NotUnderstood),
        }
    }

    /// Takes the records that are there by now. Whether the message is.
    fn is_whole(&mut self, bytes: &[u8]) -> Result<bool, ()> {
        loop {
            let rest = bytes.get(self.taken..).unwrap_or_default();
            // Told at the first byte, not when a whole record is there: other protocols would wait for ever.
            if rest.first().is_some_and(|kind| *kind != TlsRecordType::Handshake.0) {
                return Err(());
            }
            let (after, record) = match parse_tls_raw_record(rest) {
                Ok(parsed) => parsed,
                Err(error) => return if error.is_incomplete() { Ok(false) } else { Err(()) },
            };
            if record.data.is_empty() || record.hdr.version.0 >> 8 != 3 {
                return Err(());
            }
            self.message.extend_from_slice(record.data);
            self.taken += rest.len() - after.len();
            if let [kind, high, middle, low, ..] = self.message.as_slice() {
                let length = 4 + (usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low));
                if *kind != 1 || length > MAX_HELLO {
                    return Err(());
                }
                if self.message.len() >= length {
                    // Other records may follow (early data), another message in the same one may not.
                    return if self.message.len() == length { Ok(true) } else { Err(()) };
                }
            }
        }
    }
}

fn server_name(message: &[u8]) -> Result<HostName, Refusal> {
    let Ok((rest, TlsMessage::Handshake(TlsMessageHandshake::ClientHello(hello)))) =
        parse_tls_message_handshake(message)
    else {
        return Err(Refusal::NotUnderstood);
    };
    let Ok((unread, extensions)) = parse_tls_client_hello_extensions(hello.ext.ok_or(Refusal::NoName)?) else {
        return Err(Refusal::NotUnderstood);
    };
    if !rest.is_empty() || !unread.is_empty() {
        return Err(Refusal::NotUnderstood);
    }
    if extensions.iter().any(|extension| ENCRYPTED_HELLO.contains(&TlsExtensionType::from(extension).0)) {
        return Err(Refusal::Hidden);
    }
    let mut names = extensions.iter().filter_map(|extension| match extension {
        TlsExtension::SNI(names) => Some(names.as_slice()),
        _ => None,
    });
    // Two lists, or two names in one: who reads them might take either.
    match (names.next(), names.next()) {
        (Some([(SNIType::HostName, name)]), None) => HostName::parse(name).ok_or(Refusal::NoName),
        (None, None) => Err(Refusal::NoName),
        _ => Err(Refusal::NotUnderstood),
    }
}

#[cfg(test)]
#[path = "hello_sample.rs"]
mod sample;

#[cfg(test)]
#[path = "hello_tests.rs"]
mod tests;
