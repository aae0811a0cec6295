//! What a lookup of an allowed name costs beside the same lookup at the resolver that knows the answer. On loopback, so
//! that the difference is the work and not the way.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket as Unbound};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rds_names::{Config, Domains, Names, Notice, Policy, Report};
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::figure::{Figure, Limit, median, milliseconds};
use crate::error::CliError;

/// As many as a VM may ask at once, and some less.
const LOOKUPS: usize = 180;

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// The question for the address of `api.example`, as programs ask it.
const QUESTION: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03api\x07example\x00\x00\x01\x00\x01";

/// The answer to the name at the beginning of the question: 203.0.113.10, for a minute.
const ANSWER: &[u8] = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xcb\x00\x71\x0a";

/// Looks a name up by both ways, in turn.
pub(super) async fn measure() -> Result<Figure, CliError> {
    let failed = |error: io::Error| CliError::Failed(format!("a lookup: {error}"));
    let upstream = Upstream::start().await.map_err(failed)?;
    let (resolver, gate) = (free_port().map_err(failed)?, free_port().map_err(failed)?);
    let config = Config {
        gateway: HERE,
        range: "172.16.0.0/24".parse().map_err(|_| CliError::Failed("a network".into()))?,
        private: Vec::new(),
        resolver_port: resolver,
        gate_port: gate,
        upstream: vec![upstream.at],
    };
    let names = Names::start(&config, Arc::new(Nobody)).map_err(failed)?;
    let domains = Domains::parse(&["api.example"]).map_err(|error| CliError::Failed(error.to_string()))?;
    names.set(HERE, "bench", Policy { domains, trusted: Vec::new() });

    let (mut by_hand, mut through) = (Vec::new(), Vec::new());
    for _ in 0..LOOKUPS {
        by_hand.push(lookup(upstream.at).await.map_err(failed)?);
        through.push(lookup((HERE, resolver).into()).await.map_err(failed)?);
    }
    Ok(Figure::beside(
        "lookup of an allowed name, p50",
        median(&through),
        median(&by_hand),
        "the same lookup at the upstream resolver",
        Limit::Plus(1.0),
    ))
}

/// Milliseconds of a lookup.
async fn lookup(at: SocketAddr) -> io::Result<f64> {
    let begun = Instant::now();
    let socket = UdpSocket::bind((HERE, 0)).await?;
    socket.connect(at).await?;
    socket.send(QUESTION).await?;
    let mut reply = [0; 512];
    let length = timeout(Duration::from_secs(5), socket.recv(&mut reply)).await??;
    let reply = reply.get(..length).unwrap_or_default();
    let took = milliseconds(begun);
    if reply.ends_with(&[203, 0, 113, 10]) { Ok(took) } else { Err(io::Error::other("not the answer")) }
}

/// A resolver that knows one answer.
struct Upstream {
    at: SocketAddr,
    task: AbortHandle,
}

impl Upstream {
    async fn start() -> io::Result<Self> {
        let socket = UdpSocket::bind((HERE, 0)).await?;
        let at = socket.local_addr()?;
        let task = tokio::spawn(async move {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question).await {
                let question = question.get(..length.min(QUESTION.len())).unwrap_or_default();
                let mut reply = [question, ANSWER].concat();
                // It is a reply, with one answer and nothing else.
                for (at, value) in [(2, 0x81), (3, 0x80), (7, 1), (11, 0)] {
                    if let Some(byte) = reply.get_mut(at) {
                        *byte = value;
                    }
                }
                let _ = socket.send_to(&reply, from).await;
            }
        });
        Ok(Self { at, task: task.abort_handle() })
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A port that nobody had a moment ago.
fn free_port() -> io::Result<u16> {
    Ok(Unbound::bind((HERE, 0))?.local_addr()?.port())
}

/// Nobody is told anything.
#[derive(Debug)]
struct Nobody;

impl Report for Nobody {
    fn report(&self, _: &str, _: &Notice) -> bool {
        true
    }
}
