//! The listening socket and its connections, HTTP/1.1 and HTTP/2.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl};
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tower::ServiceExt as _;

use crate::app::App;

/// What requests that are under way may still take once the server is to end.
const GRACE: Duration = Duration::from_secs(30);

/// What a client may take to send a request's headers, the first one's from when it connected, so that slow ones cannot
/// hold connections for ever.
const HEADER_TIME: Duration = Duration::from_secs(30);

/// A client that was silent for so long is asked by the kernel whether it is there, so often and that many times.
const PROBE_AFTER: Duration = Duration::from_secs(60);
const PROBE_EVERY: Duration = Duration::from_secs(15);
const PROBES: u32 = 4;

/// Pause after a connection could not be accepted, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Most connections at once. Others wait to be accepted.
const MAX_CONNECTIONS: usize = 4096;

/// Answers requests until `shutdown` is done. Requests that are under way then have half a minute to finish.
pub async fn serve(app: Arc<App>, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) -> io::Result<()> {
    if let Some(address) = app.config.http.metrics_addr {
        super::metrics::serve_apart(Arc::clone(&app), address, app.shutdown.clone()).await?;
    }
    let router = super::router(Arc::clone(&app));
    let connections = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(room()));
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accept = async {
            let place = Arc::clone(&room).acquire_owned().await;
            listener.accept().await.map(|(stream, peer)| (stream, peer, place))
        };
        tokio::select! {
            accepted = accept => match accepted {
                Ok((stream, peer, place)) => start(&connections, &router, stream, peer, place.ok()),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            () = &mut shutdown => break,
        }
    }
    drop(listener);
    app.shutdown.cancel();
    if timeout(GRACE, connections.shutdown()).await.is_err() {
        tracing::warn!("some requests did not finish in time");
    }
    // Calls out of guests come by no connection of a client.
    app.vms.peers().close().await;
    if timeout(GRACE, app.audit.flush()).await.is_err() {
        tracing::error!("the last records of the audit log could not be written");
    }
    app.webhooks.close().await;
    app.seeds.close().await;
    app.vms.close_pool().await;
    app.egress.end().await;
    app.store.close().await;
    Ok(())
}

/// How many connections there is room for: a quarter of the descriptors that this process may have open.
fn room() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok());
    descriptors.map_or(MAX_CONNECTIONS, |descriptors| (descriptors / 4).min(MAX_CONNECTIONS))
}

/// Answers the requests of a connection, which keeps its place until it ends.
fn start(
    connections: &GracefulShutdown,
    router: &Router,
    stream: TcpStream,
    peer: SocketAddr,
    place: Option<OwnedSemaphorePermit>,
) {
    if let Err(error) = set_options(&stream) {
        tracing::debug!(%error, "cannot set a connection's options");
    }
    let (router, asked) = (router.clone(), Arc::new(Notify::new()));
    let first = Arc::clone(&asked);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        asked.notify_one();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request)
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIME);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(HEADER_TIME);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    let connection = connections.watch(connection);
    tokio::spawn(async move {
        let _place = place;
        // hyper has no time limit while it does not know yet which HTTP is spoken, nor for HTTP/2 without a request.
        let silent = async {
            if timeout(HEADER_TIME, first.notified()).await.is_ok() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            ended = connection => if let Err(error) = ended {
                tracing::debug!(error = %error, %peer, "a connection broke");
            },
            () = silent => tracing::debug!(%peer, "a connection brought no request in time"),
        }
    });
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    // Replies are small and written at once: waiting to fill a packet only delays them.
    stream.set_nodelay(true)?;
    set_tcp_keepidle(stream, PROBE_AFTER)?;
    set_tcp_keepintvl(stream, PROBE_EVERY)?;
    set_tcp_keepcnt(stream, PROBES)?;
    Ok(set_socket_keepalive(stream, true)?)
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::*;

    /// What a client that sends `words` and no more gets, and how long its connection lasts.
    async fn met(words: &str) -> (String, Duration) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let router = Router::new().route("/", get(async || tokio::time::sleep(2 * HEADER_TIME).await));
        let room = Arc::new(Semaphore::new(1));
        let place = Arc::clone(&room).acquire_owned().await.unwrap();
        let (connections, from) = (GracefulShutdown::new(), Instant::now());
        start(&connections, &router, stream, peer, Some(place));
        client.write_all(words.as_bytes()).await.unwrap();
        let mut reply = Vec::new();
        // An end that is no clean one is an end, too.
        let _ = client.read_to_end(&mut reply).await;
        let lasted = from.elapsed();
        drop(room.acquire().await.unwrap());
        (String::from_utf8_lossy(&reply).into_owned(), lasted)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_request_ends() {
        let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let settings = "\0\0\0\x04\0\0\0\0\0";
        for words in ["", "PRI * HT", "G", "GET / HTTP/1.1\r\nhost: a\r\n", preface, &format!("{preface}{settings}")] {
            let (reply, lasted) = met(words).await;
            assert!(!reply.contains("200 OK"), "{words:?}: {reply:?}");
            assert!(lasted >= HEADER_TIME && lasted < HEADER_TIME + Duration::from_secs(1), "{words:?}: {lasted:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_may_take_long() {
        let (reply, lasted) = met("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert!(reply.starts_with("HTTP/1.1 200 OK"), "{reply:?}");
        assert!(lasted >= 2 * HEADER_TIME, "{lasted:?}");
    }
}
