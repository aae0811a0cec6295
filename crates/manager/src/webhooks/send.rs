//! One request to a receiver. The receiver is a stranger: it is reached only at addresses that were looked at, has so much
//! time, and is heard for so long.
//!
//! There is no client with a pool here that would follow redirects, ask a proxy of the environment or look a name up again: a
//! connection goes to an address that was found to be allowed a moment ago, and is used once.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderMap, RETRY_AFTER, USER_AGENT};
use hyper::http::response::Parts;
use hyper::{Method, Request, StatusCode, client::conn::http1};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use tokio_util::task::AbortOnDropHandle;
use url::Host;

use super::target::{Reach, Target};

/// What an attempt may take, from looking the name up to the head of the answer.
const LIMIT: Duration = Duration::from_secs(15);
/// What a connection to one address may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(4);
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;

/// What is heard of an answer: its head in so many bytes; then so much of its body for so long, so that a receiver need not find
/// its connection cut while it writes.
const HEAD_BYTES: usize = 16 * 1024;
const BODY_BYTES: usize = 64 * 1024;
const BODY_LIMIT: Duration = Duration::from_secs(1);

/// Why something did not reach its receiver, in words without any of the receiver's.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum Failure {
    #[error("the name of its host was not found")]
    Unknown,
    #[error("its host is no part of the Internet, and is not in WEBHOOK_ALLOW_NETWORKS")]
    Refused,
    #[error("no connection could be made")]
    Unreachable,
    #[error("its certificate is not trusted")]
    Untrusted,
    #[error("TLS could not be agreed on")]
    Tls,
    #[error("the connection broke, or what came was no HTTP")]
    Broken,
    #[error("it did not answer in time")]
    Late,
    #[error("it answered with a redirect, and those are not followed")]
    Redirected(u16),
    #[error("it answered that it is gone for good (410)")]
    Gone,
    /// And for how long the receiver wants to be left alone, if it said so.
    #[error("it did not answer with a 2xx status")]
    Status(u16, Option<Duration>),
    #[error("the secret cannot be used: {0}")]
    Secret(&'static str),
    #[error("what was kept of it is damaged")]
    Damaged,
}

impl Failure {
    /// A word for metrics.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Unknown | Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Untrusted | Self::Tls => "tls",
            Self::Broken => "broken",
            Self::Late => "timeout",
            Self::Redirected(_) | Self::Gone | Self::Status(..) => "status",
            Self::Secret(_) | Self::Damaged => "unusable",
        }
    }

    /// The status that came back.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Redirected(status) | Self::Status(status, _) => Some(*status),
            Self::Gone => Some(StatusCode::GONE.as_u16()),
            _ => None,
        }
    }

    /// For how long the receiver is to be left alone.
    pub(super) fn pause(&self) -> Duration {
        match self {
            Self::Status(_, Some(pause)) => *pause,
            _ => Duration::ZERO,
        }
    }
}

/// What is sent.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) id: String,
    /// Seconds since 1970.
    pub(super) timestamp: i64,
    pub(super) signature: String,
    pub(super) body: Vec<u8>,
}

/// The one that sends.
pub(super) struct Sender {
    reach: Reach,
    /// The host's certificate authorities, read when they are needed first.
    tls: OnceCell<TlsConnector>,
}

impl Sender {
    pub(super) fn new(reach: Reach) -> Self {
        Self { reach, tls: OnceCell::new() }
    }

    /// Sends a message; gives the status of the answer if it is a good one.
    pub(super) async fn send(&self, target: &Target, message: Message) -> Result<u16, Failure> {
        timeout(LIMIT, self.try_send(target, message)).await.unwrap_or(Err(Failure::Late))
    }

    async fn try_send(&self, target: &Target, message: Message) -> Result<u16, Failure> {
        let request = request(target, message).ok_or(Failure::Damaged)?;
        let stream = connect(&self.addresses(target).await?).await.ok_or(Failure::Unreachable)?;
        let answer = if target.is_tls() {
            let tls = self.tls.get_or_try_init(host_authorities).await?;
            let stream = tls.connect(server_name(target)?, stream).await.map_err(|error| why(&error))?;
            exchange(stream, request).await?
        } else {
            exchange(stream, request).await?
        };
        let status = answer.status.as_u16();
        match status {
            200..300 => Ok(status),
            300..400 => Err(Failure::Redirected(status)),
            _ if answer.status == StatusCode::GONE => Err(Failure::Gone),
            _ => Err(Failure::Status(status, retry_after(&answer.headers))),
        }
    }

    /// The addresses of a target that may be connected to.
    async fn addresses(&self, target: &Target) -> Result<Vec<SocketAddr>, Failure> {
        let port = target.port();
        let mut found: Vec<SocketAddr> = match target.host() {
            Host::Ipv4(address) => vec![(address, port).into()],
            Host::Ipv6(address) => vec![(address, port).into()],
            Host::Domain(name) => lookup_host((name, port)).await.map_err(|_| Failure::Unknown)?.collect(),
        };
        if found.is_empty() {
            return Err(Failure::Unknown);
        }
        found.retain(|address| self.reach.allows(address.ip()));
        found.truncate(MAX_ADDRESSES);
        if found.is_empty() { Err(Failure::Refused) } else { Ok(found) }
    }
}

async fn connect(addresses: &[SocketAddr]) -> Option<TcpStream> {
    for address in addresses {
        if let Ok(Ok(stream)) = timeout(CONNECT_LIMIT, TcpStream::connect(address)).await {
            return Some(stream);
        }
    }
    None
}

/// `None` if the URL was kept by a version that took what cannot be asked for.
fn request(target: &Target, message: Message) -> Option<Request<Full<Bytes>>> {
    Request::builder()
        .method(Method::POST)
        .uri(target.path())
        .header(HOST, target.authority())
        .header(CONNECTION, "close")
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("run-dat-sheesh/", env!("CARGO_PKG_VERSION")))
        .header("webhook-id", message.id)
        .header("webhook-timestamp", message.timestamp)
        .header("webhook-signature", message.signature)
        .body(Full::from(message.body))
        .ok()
}

/// One request over a stream, and the head of its answer.
async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Parts, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|_| Failure::Broken)?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let answer = sender.send_request(request).await.map_err(|_| Failure::Broken)?;
    let (head, body) = answer.into_parts();
    // What it says is nobody's business, nor whether it is all there.
    let _ = timeout(BODY_LIMIT, Limited::new(body, BODY_BYTES).collect()).await;
    Ok(head)
}

/// For how long a receiver wants to be left alone: seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Timestamp::now().until(rfc2822::parse(text).ok()?.timestamp()).ok()?.try_into().ok(),
    }
}

fn server_name(target: &Target) -> Result<ServerName<'static>, Failure> {
    match target.host() {
        Host::Ipv4(address) => Ok(ServerName::IpAddress(IpAddr::from(address).into())),
        Host::Ipv6(address) => Ok(ServerName::IpAddress(IpAddr::from(address).into())),
        Host::Domain(name) => {
            let name = name.strip_suffix('.').unwrap_or(name).to_owned();
            ServerName::try_from(name).map_err(|_| Failure::Tls)
        }
    }
}

/// What a failed handshake says, without the other side's words.
fn why(error: &std::io::Error) -> Failure {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    if matches!(cause, Some(rustls::Error::InvalidCertificate(_))) { Failure::Untrusted } else { Failure::Tls }
}

async fn host_authorities() -> Result<TlsConnector, Failure> {
    let read = || {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (taken, _) = roots.add_parsable_certificates(found.certs);
        if taken == 0 {
            tracing::warn!("this host has no certificate authorities: no https webhook will be trusted");
        }
        trusting(roots)
    };
    spawn_blocking(read).await.map_err(|_| Failure::Tls)?
}

fn trusting(roots: RootCertStore) -> Result<TlsConnector, Failure> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_| Failure::Tls)?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;

    use super::*;

    fn sender(networks: &[&str]) -> Sender {
        Sender::new(Reach::new(&networks.iter().map(|network| network.parse().unwrap()).collect::<Vec<_>>()))
    }

    fn message() -> Message {
        Message { id: "m".into(), timestamp: 7, signature: "v1,s".into(), body: b"{}".to_vec() }
    }

    async fn send(sender: &Sender, url: &str) -> Result<u16, Failure> {
        sender.send(&Target::parse(url).unwrap(), message()).await
    }

    /// Answers one connection after the other with `words`.
    async fn receiver(words: Vec<u8>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(&words).await;
                let _ = stream.shutdown().await;
            }
        });
        port
    }

    #[tokio::test]
    async fn what_a_receiver_answers_is_told_in_our_words() {
        let sender = sender(&["127.0.0.0/8"]);
        let huge = [b"HTTP/1.1 200 OK\r\nx: ".as_slice(), &[b'x'; 100_000], b"\r\n\r\n"].concat();
        for (words, wanted) in [
            (b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(), Ok(204)),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nshort".to_vec(), Ok(200)),
            (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\n\r\n".to_vec(), Err(Failure::Redirected(302))),
            (b"HTTP/1.1 500 Oh\r\n\r\n".to_vec(), Err(Failure::Status(500, None))),
            (b"HTTP/1.1 410 Gone\r\n\r\n".to_vec(), Err(Failure::Gone)),
            (
                b"HTTP/1.1 429 Slow\r\nretry-after: 90\r\n\r\n".to_vec(),
                Err(Failure::Status(429, Some(Duration::from_secs(90)))),
            ),
            (b"SSH-2.0-OpenSSH\r\n".to_vec(), Err(Failure::Broken)),
            (Vec::new(), Err(Failure::Broken)),
            (huge, Err(Failure::Broken)),
        ] {
            let url = format!("http://127.0.0.1:{}/", receiver(words.clone()).await);
            assert_eq!(
                send(&sender, &url).await,
                wanted,
                "{:?}",
                String::from_utf8_lossy(&words[..words.len().min(40)])
            );
        }
    }

    #[test]
    fn a_receiver_says_in_seconds_or_by_a_date_when_it_may_be_asked_again() {
        let after = |text: &str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]));
        assert_eq!(after("120"), Some(Duration::from_secs(120)));
        assert!(after("Thu, 31 Dec 9998 23:59:59 GMT").is_some_and(|pause| pause > Duration::from_secs(1 << 32)));
        for none in ["Sun, 06 Nov 1994 08:49:37 GMT", "-1", "1.5", "soon", "", "99999999999999999999"] {
            assert_eq!(after(none), None, "{none}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    #[tokio::test]
    async fn an_address_is_looked_at_when_it_is_connected_to() {
        let port = receiver(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()).await;
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
            let url = format!("http://{host}:{port}/");
            assert_eq!(send(&sender(&[]), &url).await, Err(Failure::Refused), "{host}");
        }
        assert_eq!(send(&sender(&["127.0.0.1/32"]), &format!("http://localhost:{port}")).await, Ok(204));
        // No name has a label so long, so nobody is asked for it.
        let nowhere = format!("http://{}.example/", "x".repeat(64));
        assert_eq!(send(&sender(&[]), &nowhere).await, Err(Failure::Unknown));
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert_eq!(send(&sender(&["127.0.0.1/32"]), &format!("http://{closed}/")).await, Err(Failure::Unreachable));
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_says_nothing_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let begun = tokio::time::Instant::now();
        assert_eq!(send(&sender(&["127.0.0.1/32"]), &url).await, Err(Failure::Late));
        assert!(begun.elapsed() >= LIMIT && begun.elapsed() < 2 * LIMIT);
    }

    #[tokio::test]
    async fn tls_is_spoken_with_whom_the_authorities_vouch_for() {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
        let (der, key) = (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![der.clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let _ = stream.read(&mut [0; 4096]).await;
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                }
            }
        });
        let url = format!("https://localhost:{port}/");
        let stranger = sender(&["127.0.0.1/32"]);
        assert_eq!(send(&stranger, &url).await, Err(Failure::Untrusted));
        let mut roots = RootCertStore::empty();
        roots.add(der).unwrap();
        let friend = sender(&["127.0.0.1/32"]);
        friend.tls.set(trusting(roots).unwrap()).ok().unwrap();
        assert_eq!(send(&friend, &url).await, Ok(200));
        assert_eq!(send(&friend, &format!("https://127.0.0.1:{port}/")).await, Err(Failure::Untrusted));
        let plain = receiver(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()).await;
        assert_eq!(send(&friend, &format!("https://localhost:{plain}/")).await, Err(Failure::Tls));
    }
}
