//! The listening socket.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;

use crate::app::App;

/// What requests that are under way may still take once the server is to end.
const GRACE: Duration = Duration::from_secs(30);

/// Answers requests until `shutdown` is done. Requests that are under way then have half a minute to finish.
pub async fn serve(
    app: Arc<App>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    // Replies are small and written at once: waiting to fill a packet only delays them.
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
    });
    let ending = app.shutdown.clone();
    let signal = {
        let ending = ending.clone();
        async move {
            shutdown.await;
            ending.cancel();
        }
    };
    let service = super::router(Arc::clone(&app)).into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(listener, service).with_graceful_shutdown(signal);
    let grace = async {
        ending.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    let result = tokio::select! {
        result = server => result,
        () = grace => {
            tracing::warn!("some requests did not finish in time");
            Ok(())
        }
    };
    app.store.close().await;
    result
}
