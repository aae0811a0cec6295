//! The HTTP API: handlers that extract, call one service function and answer.
//!
//! The first three functions are the table of contents; each file below has its own `router()` beside its handlers. What
//! holds for all routes (names, authorisation, rate limits, errors) is a layer here, never a line in a handler.

#![expect(unused_qualifications, reason = "utoipa's macro repeats the type of an extractor named Query, with its path")]

mod admin;
mod api_keys;
mod audit;
pub mod auth;
mod client;
mod error;
mod exec;
mod files;
mod health;
mod idempotency;
mod images;
pub mod json;
mod metrics;
pub mod openapi;
mod pages;
pub mod path;
mod peers;
mod pty;
mod rate_limit;
mod replies;
mod request_id;
mod serve;
mod sessions;
mod snapshots;
pub mod time;
mod vms;
mod webhooks;

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;

pub use rate_limit::limited_apart;
pub use serve::serve;

use crate::app::App;
use crate::error::Error;

/// For everybody.
fn open_routes() -> OpenApiRouter<Arc<App>> {
    health::router().merge(metrics::router())
}

/// For everybody, but not without end.
fn limited_routes() -> OpenApiRouter<Arc<App>> {
    sessions::router().merge(peers::bridge_router())
}

/// Under `/v1`, for whoever has a key or a session.
fn keyed_routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .merge(vms::router())
        .merge(exec::router())
        .merge(pty::router())
        .merge(files::router())
        .merge(peers::router())
        .merge(images::router())
        .merge(snapshots::router())
        .merge(admin::router())
        .merge(audit::router())
}

/// Under `/v1`, for whoever signed in.
fn session_routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().merge(api_keys::router()).merge(webhooks::router()).merge(admin::session_router())
}

/// The whole server.
pub fn router(app: Arc<App>) -> Router {
    let limit = from_fn_with_state(app.clone(), rate_limit::layer);
    let require = from_fn_with_state(app.clone(), auth::require);
    let require_session = from_fn_with_state(app.clone(), auth::require_session);

    let v1 = plain(session_routes())
        .route_layer(require_session)
        .merge(plain(keyed_routes()))
        .fallback(unknown_under_v1)
        .method_not_allowed_fallback(wrong_method)
        .layer(limit.clone())
        .layer(require);
    let limited = plain(limited_routes()).method_not_allowed_fallback(wrong_method).layer(limit);

    plain(open_routes())
        .merge(pages::router())
        .method_not_allowed_fallback(wrong_method)
        .fallback(unknown)
        .merge(limited)
        .nest("/v1", v1)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(metrics::layer))
        .layer(from_fn(pages::security_headers))
        .layer(from_fn(request_id::layer))
        .with_state(app)
}

fn plain(routes: OpenApiRouter<Arc<App>>) -> Router<Arc<App>> {
    routes.split_for_parts().0
}

async fn unknown() -> Error {
    Error::not_found("Not found")
}

/// What ends in a slash lacks the id that should follow it (section 1 of the wire contract).
async fn unknown_under_v1(request: Request) -> Error {
    if request.uri().path().ends_with('/') { Error::invalid("The id is empty") } else { Error::not_found("Not found") }
}

async fn wrong_method() -> Error {
    Error::MethodNotAllowed
}

fn panicked(cause: Box<dyn Any + Send>) -> Response {
    let words = match cause.downcast::<String>() {
        Ok(words) => *words,
        Err(cause) => cause.downcast::<&str>().map_or_else(|_| "without words".into(), |words| (*words).into()),
    };
    Error::internal("a handler panicked", words).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_internal_error_without_its_words() {
        let response = panicked(Box::new("the secret is sesame"));
        assert_eq!(response.status(), 500);
        assert!(!format!("{response:?}").contains("sesame"));
    }
}
