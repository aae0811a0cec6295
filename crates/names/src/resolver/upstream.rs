//! The resolver that knows the answers: asked by UDP from a fresh port each time, by TCP when an answer is too long.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::Name;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::{Step, Verdict, follow, upstream_query, upstream_reply};

/// How long one server may take for one question. A guest's own resolver asks again after 5 s.
const PATIENCE: Duration = Duration::from_millis(2000);

/// How often each server is asked.
const TRIES: usize = 2;

/// Most questions for one lookup, where aliases lead on and on.
const MAX_STEPS: usize = 4;

/// Longest message that is read over UDP.
const MAX_UDP: usize = 4096;

/// The upstream resolvers, in the order in which they are asked.
#[derive(Debug, Clone)]
pub(crate) struct Upstream(pub(crate) Vec<SocketAddr>);

impl Upstream {
    /// Where `name` leads. Never an error: what goes wrong is the guest's to know as [`Verdict::Failed`].
    pub(crate) async fn resolve(&self, name: &Name) -> Verdict {
        let (mut at, mut so_far) = (name.clone(), None);
        for _ in 0..MAX_STEPS {
            let Some(reply) = self.ask(&at).await else { return Verdict::Failed };
            match follow(&reply, &at, so_far) {
                Step::Done(verdict) => return verdict,
                Step::Onward(found, next) => (at, so_far) = (next, Some(found)),
            }
        }
        Verdict::Failed
    }

    async fn ask(&self, name: &Name) -> Option<Message> {
        for server in (0..TRIES).flat_map(|_| &self.0) {
            let query = upstream_query(name);
            match timeout(PATIENCE, exchange(*server, &query)).await {
                Ok(Ok(reply)) => return Some(reply),
                Ok(Err(error)) => tracing::debug!(%server, %error, "an upstream resolver is no help"),
                Err(_) => tracing::debug!(%server, "an upstream resolver does not answer"),
            }
        }
        None
    }
}

async fn exchange(server: SocketAddr, query: &Message) -> io::Result<Message> {
    let bytes = query.to_vec().map_err(io::Error::other)?;
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&bytes).await?;
    let mut buffer = vec![0; MAX_UDP];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // What does not fit the question may be forged; the true answer may still come.
        match upstream_reply(query, buffer.get(..length).unwrap_or_default()) {
            Some(reply) if reply.metadata.truncation => return exchange_long(server, query, &bytes).await,
            Some(reply) => return Ok(reply),
            None => {}
        }
    }
}

async fn exchange_long(server: SocketAddr, query: &Message, bytes: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    let mut reply = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut reply).await?;
    upstream_reply(query, &reply).ok_or_else(|| io::Error::other("not an answer to the question"))
}
