//! The gate: connections of VMs to ports 80 and 443 of the world end here, without the VM noticing. One goes on to where
//! it was to go if a lookup led there and its head names a host that the VM may reach; else it is reset.

mod hello;
mod http;
mod tls;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::domains::HostName;
use crate::guests::{Guest, Guests};
use crate::report::{Notice, Refusal};

/// How long the head of a connection may take to arrive whole.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// How long the other end may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How long a connection may be silent before its ends are asked whether they are still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// One connection of a VM, and where it was to go.
#[derive(Debug, Clone)]
struct Passage {
    guests: Arc<Guests>,
    guest: Arc<Guest>,
    to: SocketAddrV4,
}

/// Serves for ever.
pub(crate) async fn serve(guests: Arc<Guests>, listener: TcpListener) {
    loop {
        let Some((stream, from)) = crate::accept(&listener).await else { continue };
        let Some(guest) = guests.find(from.ip()) else {
            reset_at_end(&stream);
            continue;
        };
        let Some(permit) = guest.connection() else {
            reset_at_end(&stream);
            continue;
        };
        let guests = guests.clone();
        tokio::spawn(async move {
            if let Some(to) = destination(&stream) {
                pass(Passage { guests, guest, to }, stream).await;
            } else {
                reset_at_end(&stream);
            }
            drop(permit);
        });
    }
}

/// Where the connection was to go before it was led here. `None` if it was not led here, but made to this very place.
fn destination(stream: &TcpStream) -> Option<SocketAddrV4> {
    let original = SockRef::from(stream).original_dst_v4().ok()?.as_socket_ipv4()?;
    (stream.local_addr().ok()? != SocketAddr::V4(original)).then_some(original)
}

async fn pass(passage: Passage, stream: TcpStream) {
    reset_at_end(&stream);
    let (guest, to) = (passage.guest.clone(), passage.to);
    let refuse = |why| guest.refused(&Notice::Connection { to, why });
    let opened_by = guest.opened_by(*to.ip());
    if opened_by.is_empty() {
        // Told while the stream is open: whoever sees the reset finds the reason.
        return refuse(Refusal::NotLookedUp);
    }
    let passed = async {
        match to.port() {
            80 => http::pass(&passage, stream).await,
            443 => tls::pass(&passage, stream).await,
            _ => Err(Refusal::NotUnderstood),
        }
    };
    tokio::select! {
        // What is refused is told before anything else is looked at.
        biased;
        passed = passed => if let Err(why) = passed {
            refuse(why);
        },
        () = guest.ended() => {}
        // Whatever host the connection names.
        () = guest.withdrawn(&opened_by) => {}
    }
}

impl Passage {
    /// Whether a connection to `name` may go on.
    fn check(&self, name: HostName) -> Result<HostName, Refusal> {
        if self.guest.policy().domains.allow(&name) { Ok(name) } else { Err(Refusal::Name(name)) }
    }

    /// Connects to where the VM wanted to go. Looked at once more: an address may have become one of this host meanwhile.
    async fn connect(&self) -> io::Result<TcpStream> {
        if self.guests.is_closed(*self.to.ip(), &self.guest.policy()) {
            return Err(io::Error::other("the address is closed to names"));
        }
        let stream = timeout(CONNECT_LIMIT, TcpStream::connect(self.to)).await??;
        keep_alive(&stream);
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Whatever ends the connection from now on ends it with a reset, which no program takes for an answer; [`end_well`]
/// takes it back.
fn reset_at_end(stream: &TcpStream) {
    drop(SockRef::from(stream).set_linger(Some(Duration::ZERO)));
    keep_alive(stream);
}

fn end_well(stream: &SockRef<'_>) {
    drop(stream.set_linger(None));
}

/// Connections whose other end is gone without a word would be held for ever.
fn keep_alive(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4);
    drop(SockRef::from(stream).set_tcp_keepalive(&keepalive));
}

/// A listener for connections that are led to it.
pub(crate) fn bind(address: Ipv4Addr, port: u16) -> io::Result<TcpListener> {
    let socket = crate::socket((address, port).into(), socket2::Type::STREAM)?;
    socket.listen(1024)?;
    TcpListener::from_std(socket.into())
}
