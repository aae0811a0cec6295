//! Rate limits on matched routes. The table below says which routes are counted apart; all others are counted together.

use std::future::Future;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::auth::Caller;
use super::client::Client;
use crate::app::App;
use crate::error::{Error, Result};
use crate::rate_limit::{Allowance, Asker, Class};

/// Routes that have a limit of their own (section 1 of the wire contract).
const CLASSES: &[(Method, &str, Class)] = &[
    (Method::POST, "/auth/login", Class::Login),
    (Method::POST, "/v1/vms", Class::CreateVm),
    (Method::POST, "/v1/vms/{id}/exec", Class::Exec),
    (Method::POST, "/v1/vms/{id}/exec/stream", Class::Exec),
    (Method::GET, "/v1/vms/{id}/pty", Class::Exec),
    (Method::POST, "/v1/vms/{id}/run-ts", Class::RunTs),
    (Method::POST, "/v1/vms/{id}/run-js", Class::RunJs),
    (Method::POST, "/v1/vms/{id}/files/upload", Class::Upload),
    (Method::GET, "/v1/vms/{id}/files/download", Class::Download),
];

/// Method and path of every route with a limit of its own.
pub fn limited_apart() -> impl Iterator<Item = (&'static str, &'static str)> {
    CLASSES.iter().map(|(method, path, _)| (method.as_str(), *path))
}

fn class(request: &Request) -> Class {
    let Some(path) = request.extensions().get::<MatchedPath>() else { return Class::Default };
    let entry = CLASSES.iter().find(|(method, route, _)| method == request.method() && *route == path.as_str());
    entry.map_or(Class::Default, |(_, _, class)| *class)
}

/// Counts a request for its principal, or for its address if it has none.
pub(super) async fn layer(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let asker = match request.extensions().get::<Caller>() {
        Some(Caller(principal)) => Asker::Principal(principal.name()),
        None => Asker::Address(Client::of(&request, &app.config.http.trusted_proxies).name()),
    };
    let Some(allowance) = app.rate_limits.count(class(&request), &asker) else { return next.run(request).await };
    answer(&allowance, async { Ok(next.run(request).await) }).await
}

/// `reply`, or a refusal if somebody asks too often; either tells what is left.
pub(super) async fn answer(allowance: &Allowance, reply: impl Future<Output = Result<Response>>) -> Response {
    let refusal = |wait| Error::TooMany { message: "Rate limit exceeded".into(), retry_after: Some(wait) };
    let reply = match allowance.retry_after {
        Some(wait) => Err(refusal(wait)),
        None => reply.await,
    };
    let mut response = reply.unwrap_or_else(IntoResponse::into_response);
    describe(allowance, response.headers_mut());
    response
}

fn describe(allowance: &Allowance, headers: &mut HeaderMap) {
    headers.insert("x-ratelimit-limit", allowance.limit.into());
    headers.insert("x-ratelimit-remaining", allowance.remaining.into());
    headers.insert("x-ratelimit-reset", allowance.reset.as_secs_f64().ceil().to_string().parse().unwrap_or(0.into()));
}
