//! A resolver that tells each VM of its own names only, and opens what it tells before it tells it.

mod message;
mod upstream;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::domains::HostName;
use crate::guests::{Guest, Guests};
use crate::report::Notice;
use message::{Found, Question, Read, Verdict};
pub(crate) use upstream::Upstream;

/// Longest question. A name has at most 255 bytes; the rest is room for options.
const MAX_QUESTION: usize = 1024;

/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(10);

/// Most bytes of a reply over TCP.
const MAX_TCP: usize = u16::MAX as usize;

/// The resolver.
#[derive(Debug)]
pub(crate) struct Resolver {
    pub(crate) guests: Arc<Guests>,
    pub(crate) upstream: Upstream,
}

impl Resolver {
    /// Serves UDP for ever.
    pub(crate) async fn serve_udp(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let mut buffer = [0; MAX_QUESTION + 1];
        loop {
            let (length, from) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    // Errors of earlier replies (a guest that is gone) come back here.
                    tracing::debug!(%error, "the resolver cannot receive");
                    continue;
                }
            };
            let Some(guest) = self.guests.find(from.ip()) else { continue };
            let Some(question) = buffer.get(..length).filter(|bytes| bytes.len() <= MAX_QUESTION) else { continue };
            let Some(permit) = guest.lookup() else { continue };
            let (resolver, socket, question) = (self.clone(), socket.clone(), question.to_vec());
            tokio::spawn(async move {
                if let Some(reply) = resolver.answer(&guest, &question, Question::max_udp).await {
                    // A reply that does not arrive is asked for again.
                    drop(socket.send_to(&reply, from).await);
                }
                drop(permit);
            });
        }
    }

    /// Serves TCP for ever.
    pub(crate) async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Some((stream, from)) = crate::accept(&listener).await else { continue };
            let Some(guest) = self.guests.find(from.ip()) else { continue };
            let Some(permit) = guest.connection() else { continue };
            let resolver = self.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = guest.ended() => {}
                    ended = resolver.converse(&guest, stream) => {
                        tracing::trace!(?ended, "a connection to the resolver ended");
                    }
                }
                drop(permit);
            });
        }
    }

    async fn converse(&self, guest: &Guest, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let length = usize::from(timeout(SILENCE, stream.read_u16()).await??);
            if length > MAX_QUESTION {
                return Err(io::Error::other("the question is too long"));
            }
            let mut question = vec![0; length];
            timeout(SILENCE, stream.read_exact(&mut question)).await??;
            let Some(permit) = guest.lookup() else { return Ok(()) };
            let Some(reply) = self.answer(guest, &question, |_| MAX_TCP).await else { return Ok(()) };
            drop(permit);
            let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
            timeout(SILENCE, stream.write_all(&[&length.to_be_bytes(), reply.as_slice()].concat())).await??;
        }
    }

    /// The reply to a guest's bytes, if they deserve one. Bytes of any kind count as a question.
    async fn answer(&self, guest: &Guest, bytes: &[u8], max: impl Fn(&Question) -> usize) -> Option<Vec<u8>> {
        let within = guest.budget.lookup();
        if !within {
            guest.refused(&Notice::Rate);
        }
        let question = match Question::read(bytes) {
            Read::Question(question) => question,
            Read::Reply(reply) => return within.then_some(reply),
            Read::Nothing => return None,
        };
        let verdict = if within { self.judge(guest, &question).await } else { Verdict::Prohibited };
        question.reply(&verdict, max(&question))
    }

    async fn judge(&self, guest: &Guest, question: &Question) -> Verdict {
        // What cannot be a host's name (a reverse lookup, a service's name) is in no list.
        let Some(host) = question.host() else { return Verdict::Blocked };
        let Some(free) = guest.policy().domains.free_part(&host) else {
            guest.refused(&Notice::Name(host));
            return Verdict::Blocked;
        };
        if !question.wants_addresses() {
            return Verdict::Empty;
        }
        if !guest.budget.pass(&host, free) {
            guest.refused(&Notice::Tunnel);
            return Verdict::Prohibited;
        }
        match self.upstream.resolve(question.name()).await {
            Verdict::Found(found) => self.open(guest, host, found),
            other => other,
        }
    }

    /// Opens what was found, so that the guest can connect as soon as it is told.
    fn open(&self, guest: &Guest, host: HostName, found: Found) -> Verdict {
        let policy = guest.policy();
        let closed = found.addresses.iter().find(|address| self.guests.is_closed(**address, &policy));
        if let Some(address) = closed {
            guest.refused(&Notice::Rebinding { name: host, address: *address });
            return Verdict::Blocked;
        }
        if guest.open(&host, &found.addresses, found.ttl) { Verdict::Found(found) } else { Verdict::Blocked }
    }
}

/// The address that a reply is sent from must be the one that was asked: the socket is bound to it.
pub(crate) fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    UdpSocket::from_std(crate::socket(address, socket2::Type::DGRAM)?.into())
}
