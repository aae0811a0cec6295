//! What a VM may reach by name: a resolver that answers for allowed names alone, and a gate through which connections to
//! the addresses of its answers go, if they name an allowed host, too.
//!
//! This crate owns the rules about names, and the sockets on which VMs ask and connect. It knows nothing of VMs, links or
//! firewalls: whoever uses it makes sure that a packet with a VM's address comes from that VM, leads the VM's connections
//! to the gate, and lets nothing else out.

mod budget;
mod domains;
mod gate;
mod guests;
mod openings;
mod reach;
mod report;
mod resolver;
mod upstream_config;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

pub use domains::{DomainError, Domains, HostName, MAX_DOMAINS};
pub use guests::Policy;
pub use report::{Notice, Refusal, Report};
pub use upstream_config::{UpstreamError, upstream_servers};

use guests::Guests;
use reach::Closed;
use resolver::{Resolver, Upstream};

/// Most connections of all VMs together. Each takes some 40 KiB while it is busy.
const MAX_CONNECTIONS: usize = 16_384;

/// Where names are served, and where answers come from.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address on this host that all VMs see as their gateway. It need not be there yet.
    pub gateway: Ipv4Addr,
    /// The addresses of VMs and of the gateway: no name leads there.
    pub range: Ipv4Net,
    /// Where else no name leads: what is private, of this host or near it. Addresses of this host are found out.
    pub private: Vec<Ipv4Net>,
    /// The resolver's port on the gateway, UDP and TCP.
    pub resolver_port: u16,
    /// The gate's port on the gateway.
    pub gate_port: u16,
    /// The resolvers that are asked, in their order; at least one.
    pub upstream: Vec<SocketAddr>,
}

/// Serves names to VMs until it is dropped; connections that go through it end with it.
#[derive(Debug)]
pub struct Names {
    guests: Arc<Guests>,
    _tasks: JoinSet<()>,
}

impl Names {
    /// Binds the sockets and begins to serve; nobody is served before [`Self::set`].
    ///
    /// # Errors
    /// A socket that cannot be bound, with its address: the port is another program's, or this one is not root.
    pub fn start(config: &Config, report: Arc<dyn Report>) -> io::Result<Self> {
        let closed = Closed::new(&config.private, config.range);
        let guests = Arc::new(Guests::new(closed, report, room()));
        let at = SocketAddr::from((config.gateway, config.resolver_port));
        let named = |what: &'static str, port: u16| {
            let gateway = config.gateway;
            move |error: io::Error| io::Error::new(error.kind(), format!("{what} on {gateway}:{port}: {error}"))
        };
        let udp = resolver::bind_udp(at).map_err(named("the resolver (UDP)", config.resolver_port))?;
        let tcp = gate::bind(config.gateway, config.resolver_port);
        let tcp = tcp.map_err(named("the resolver (TCP)", config.resolver_port))?;
        let gate = gate::bind(config.gateway, config.gate_port).map_err(named("the gate", config.gate_port))?;

        let resolver = Arc::new(Resolver { guests: guests.clone(), upstream: Upstream(config.upstream.clone()) });
        let mut tasks = JoinSet::new();
        tasks.spawn(resolver.clone().serve_udp(Arc::new(udp)));
        tasks.spawn(resolver.serve_tcp(tcp));
        tasks.spawn(gate::serve(guests.clone(), gate));
        Ok(Self { guests, _tasks: tasks })
    }

    /// Lets the VM with this address reach what `policy` says, from now on. The same `id` again changes the policy: what
    /// was open stays so if its name is still allowed, and connections to names that are not any more are reset. Another
    /// `id` is another VM, which has nothing of the one before.
    pub fn set(&self, address: Ipv4Addr, id: &str, policy: Policy) {
        self.guests.set(address, id, policy);
    }

    /// Ends all that the VM with this address has open.
    pub fn remove(&self, address: Ipv4Addr) {
        self.guests.remove(address);
    }
}

/// How many connections of VMs there is room for: each takes two descriptors, and half of what the process may have is for
/// its other work. The limit is raised as far as it goes, because what a login shell or systemd begins with is made for
/// programs that use `select`.
fn room() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files cannot be raised");
        limit = getrlimit(Resource::Nofile);
    }
    let descriptors = limit.current.and_then(|limit| usize::try_from(limit).ok());
    descriptors.map_or(MAX_CONNECTIONS, |descriptors| (descriptors / 4).min(MAX_CONNECTIONS))
}

/// A socket on an address that this host may get later: the gateway's is there only while a VM's link is.
fn socket(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    socket.set_freebind_v4(true)?;
    if kind == Type::STREAM {
        // Connections of a server that has just ended linger; they are no other server.
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// The next connection. When there are too many descriptors, it takes a rest, or it would spin.
async fn accept(listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    match listener.accept().await {
        Ok(accepted) => Some(accepted),
        Err(error) => {
            tracing::debug!(%error, "a connection cannot be accepted");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}
