//! Traces: where one begins, and whose it goes on with.
//!
//! Spans are `tracing`'s, at level debug, so that they are in no log unless asked for; whoever runs the server decides
//! where they go. They are named after what the server does and hold ids and patterns, never text of a client or a guest.

use axum::extract::MatchedPath;
use axum::http::{Extensions, HeaderMap};
use opentelemetry::global;
use opentelemetry::propagation::Extractor;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}

/// The span of a request, in the trace that its caller says it is part of (the header `traceparent`).
pub(crate) fn of_request(method: &'static str, headers: &HeaderMap, extensions: &Extensions) -> Span {
    let route = extensions.get::<MatchedPath>().map_or("none", MatchedPath::as_str);
    let span = tracing::debug_span!(
        "http",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        http.request.method = method,
        http.route = route,
        http.response.status_code = tracing::field::Empty,
    );
    // Fails where nobody traces.
    let _ = span.set_parent(global::get_text_map_propagator(|propagator| propagator.extract(&Headers(headers))));
    span
}

/// Notes how a request was answered.
pub(crate) fn answered(span: &Span, status: u16) {
    span.record("http.response.status_code", status);
}
