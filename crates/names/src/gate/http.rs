//! HTTP/1: every request is read and written anew by an HTTP library, so that the server cannot see a request in the
//! guest's bytes that was not seen, and checked, here. A connection is for one host: a request for another ends it.

use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::sync::SetOnce;
use tokio::task::AbortHandle;

use super::{HEAD_LIMIT, Passage, end_well};
use crate::domains::HostName;
use crate::report::Refusal;

/// Longest head of a request or a response.
const MAX_HEAD: usize = 64 * 1024;

const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

type Failure = Box<dyn Error + Send + Sync>;

/// What one connection has come to.
struct Conversation<'p> {
    passage: &'p Passage,
    /// The host that all its requests are for.
    name: SetOnce<HostName>,
    refusal: Mutex<Option<Refusal>>,
    server: tokio::sync::Mutex<Option<Server>>,
    /// Both sides of a connection that is no longer HTTP.
    upgrade: Mutex<Option<(OnUpgrade, OnUpgrade)>>,
}

/// The connection to the server.
struct Server {
    sender: client::SendRequest<Incoming>,
    driver: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

pub(super) async fn pass(passage: &Passage, guest: TcpStream) -> Result<(), Refusal> {
    let Ok(socket) = std::os::fd::AsFd::as_fd(&guest).try_clone_to_owned() else { return Ok(()) };
    let conversation = Arc::new(Conversation {
        passage,
        name: SetOnce::new(),
        refusal: Mutex::default(),
        server: tokio::sync::Mutex::default(),
        upgrade: Mutex::default(),
    });
    let service = service_fn(|request| Conversation::answer(conversation.clone(), request));
    let connection = server::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(MAX_HEAD)
        .preserve_header_case(true)
        .serve_connection(TokioIo::new(guest), service)
        .with_upgrades();
    let served = async {
        let served = connection.await;
        let upgrade = conversation.upgrade.lock().unwrap_or_else(PoisonError::into_inner).take();
        match upgrade {
            Some((guest, world)) => tunnel(guest, world).await,
            None => served.map_err(Into::into),
        }
    };
    let ended = tokio::select! {
        () = conversation.withdrawn() => Err("the name was withdrawn".into()),
        served = served => served,
    };
    let refusal = conversation.refusal.lock().unwrap_or_else(PoisonError::into_inner).take();
    let silent = |error: &Failure| error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_timeout);
    let malformed = |error: &Failure| error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse);
    match (refusal, ended) {
        (Some(refusal), _) => return Err(refusal),
        (None, Err(error)) if malformed(&error) => return Err(Refusal::NotUnderstood),
        (None, Err(error)) if silent(&error) && conversation.name.get().is_none() => {
            return Err(Refusal::NotUnderstood);
        }
        (None, Err(error)) if !silent(&error) => {}
        // An answer was the last thing, or the guest has long had it.
        _ => end_well(&SockRef::from(&socket)),
    }
    Ok(())
}

async fn tunnel(guest: OnUpgrade, world: OnUpgrade) -> Result<(), Failure> {
    let (mut guest, mut world) = (TokioIo::new(guest.await?), TokioIo::new(world.await?));
    copy_bidirectional(&mut guest, &mut world).await?;
    Ok(())
}

impl Conversation<'_> {
    /// Returns when the connection's host may not be reached any more; never while it has none.
    async fn withdrawn(&self) {
        self.passage.guest.withdrawn(std::slice::from_ref(self.name.wait().await)).await;
    }

    async fn answer(self: Arc<Self>, mut request: Request<Incoming>) -> Result<Response<Incoming>, Failure> {
        if let Err(why) = self.admit(&mut request) {
            let message = format!("refused: {why}");
            *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
            return Err(message.into());
        }
        let upgrade = request.headers().contains_key(UPGRADE).then(|| hyper::upgrade::on(&mut request));
        let mut server = self.server.lock().await;
        let sender = self.connected(&mut server).await?;
        let mut response = sender.send_request(request).await?;
        drop(server);
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let guest = upgrade.ok_or("the server switches protocols by itself")?;
            let both = (guest, hyper::upgrade::on(&mut response));
            *self.upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some(both);
        }
        Ok(response)
    }

    /// Checks whom a request is for, and takes off what could lead it elsewhere.
    fn admit(&self, request: &mut Request<Incoming>) -> Result<(), Refusal> {
        let name = self.passage.check(named(request)?)?;
        // The first request of the connection sets its name; later ones find it set.
        drop(self.name.set(name.clone()));
        if self.name.get() != Some(&name) {
            return Err(Refusal::Name(name));
        }
        if let Some(path) = request.uri().path_and_query().filter(|_| request.uri().authority().is_some()) {
            *request.uri_mut() = Uri::from(path.clone());
        }
        keep_only_websockets(request.headers_mut());
        Ok(())
    }

    /// The connection to the server, made again if the server ended the one before.
    async fn connected<'s>(
        &self,
        server: &'s mut Option<Server>,
    ) -> Result<&'s mut client::SendRequest<Incoming>, Failure> {
        let ready = match server {
            Some(server) => server.sender.ready().await.is_ok(),
            None => false,
        };
        if !ready {
            let stream = self.passage.connect().await?;
            let (sender, connection) = client::Builder::new()
                .max_buf_size(MAX_HEAD)
                .preserve_header_case(true)
                .handshake(TokioIo::new(stream))
                .await?;
            let driver = tokio::spawn(connection.with_upgrades()).abort_handle();
            *server = Some(Server { sender, driver });
        }
        match server {
            Some(server) => Ok(&mut server.sender),
            None => Err(io::Error::from(io::ErrorKind::NotConnected).into()),
        }
    }
}

/// The one host that a request is for.
fn named(request: &Request<Incoming>) -> Result<HostName, Refusal> {
    if request.method() == Method::CONNECT {
        return Err(Refusal::NotUnderstood);
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(Refusal::NoName) };
    let name = host_of(host.as_bytes()).ok_or(Refusal::NoName)?;
    // A target with a host of its own goes before the header.
    match request.uri().authority().map(|authority| host_of(authority.as_str().as_bytes())) {
        None => Ok(name),
        Some(Some(target)) if target == name => Ok(name),
        Some(_) => Err(Refusal::NotUnderstood),
    }
}

/// The host of `host` or `host:port`.
fn host_of(text: &[u8]) -> Option<HostName> {
    let mut parts = text.splitn(2, |byte| *byte == b':');
    let host = parts.next()?;
    let port = parts.next().unwrap_or_default();
    HostName::parse(host).filter(|_| port.iter().all(u8::is_ascii_digit))
}

/// Takes off every change of protocol but the one to a WebSocket, which goes to the host of its request. In HTTP/2 every
/// request could name another host.
fn keep_only_websockets(headers: &mut HeaderMap) {
    let websocket = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"websocket");
    headers.remove(HTTP2_SETTINGS);
    if headers.contains_key(UPGRADE) && !headers.get_all(UPGRADE).iter().all(websocket) {
        headers.remove(UPGRADE);
        headers.remove(CONNECTION);
    }
}
