//! The HTTP API: handlers that extract, call one service function and answer.
//!
//! [`router`] is the table of contents; each file below has its own `router()` beside its handlers. What holds for all
//! routes (names, authorisation, rate limits, errors) is a layer here, never a line in a handler.

mod error;
mod health;
pub mod json;
mod request_id;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn;
use tokio::net::TcpListener;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;
use crate::error::Error;

/// Everything under `/v1`: all of it needs a key or a session.
fn v1() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
}

/// The whole server.
pub fn router(app: Arc<App>) -> Router {
    let (router, _document) = OpenApiRouter::new().merge(health::router()).nest("/v1", v1()).split_for_parts();
    router
        .fallback(async || Error::not_found("Not found"))
        .method_not_allowed_fallback(async || Error::MethodNotAllowed)
        .layer(from_fn(request_id::layer))
        .with_state(app)
}

/// Answers requests until `shutdown` is done; requests that are under way are finished first.
pub async fn serve(
    app: Arc<App>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let service = router(app.clone()).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(shutdown).await?;
    app.store.close().await;
    Ok(())
}
