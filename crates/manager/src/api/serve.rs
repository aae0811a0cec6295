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
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::ServiceExt as _;

use crate::app::App;

/// What requests that are under way may still take once the server is to end.
const GRACE: Duration = Duration::from_secs(30);

/// What a client may take to send a request's headers, so that slow ones cannot hold connections for ever.
const HEADER_TIME: Duration = Duration::from_secs(30);

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
    if tokio::time::timeout(GRACE, connections.shutdown()).await.is_err() {
        tracing::warn!("some requests did not finish in time");
    }
    if tokio::time::timeout(GRACE, app.audit.flush()).await.is_err() {
        tracing::error!("the last records of the audit log could not be written");
    }
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
    // Replies are small and written at once: waiting to fill a packet only delays them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let router = router.clone();
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
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
        if let Err(error) = connection.await {
            tracing::debug!(error = %error, %peer, "a connection broke");
        }
    });
}
