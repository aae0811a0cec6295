//! Calls into a guest in a trace: the agent is told whose call it is, and says how long it took.
//!
//! The guest exports nothing. What it says of itself is a duration, which is believed up to the length of the call.

use std::time::{Duration, Instant, SystemTime};

use http::HeaderMap;
use opentelemetry::propagation::Injector;
use opentelemetry::trace::{Span as _, SpanBuilder, SpanKind, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, global};
use rds_protocol::TIMING;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// A call that is being traced.
pub(super) struct Traced {
    context: Context,
    /// In the trace, and to measure by.
    begun: (SystemTime, Instant),
}

struct Headers<'a>(&'a mut HeaderMap);

impl Injector for Headers<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (http::HeaderName::try_from(key), http::HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

impl Traced {
    /// Marks a call as part of the trace of `span`, if there is one.
    pub(super) fn begin(span: &Span, headers: &mut HeaderMap) -> Option<Self> {
        let context = span.context();
        if !context.span().span_context().is_sampled() {
            return None;
        }
        global::get_text_map_propagator(|propagator| propagator.inject_context(&context, &mut Headers(headers)));
        Some(Self { context, begun: (SystemTime::now(), Instant::now()) })
    }

    /// Adds the agent's part, in the middle of the call.
    pub(super) fn end(self, route: &str, reply: &HeaderMap) {
        let (begun, all) = (self.begun.0, self.begun.1.elapsed());
        let Some(inside) = reply.get(TIMING).and_then(|value| agent_time(value.to_str().ok()?)) else { return };
        let inside = inside.min(all);
        let start = begun + (all - inside) / 2;
        let builder = SpanBuilder::from_name(format!("agent {route}")).with_kind(SpanKind::Server);
        let mut span = global::tracer("rds").build_with_context(builder.with_start_time(start), &self.context);
        span.end_with_timestamp(start + inside);
    }
}

/// The duration in `agent;dur=MILLISECONDS`, as the Server-Timing specification writes it.
fn agent_time(header: &str) -> Option<Duration> {
    let milliseconds: f64 = header.strip_prefix("agent;dur=")?.parse().ok()?;
    Duration::try_from_secs_f64(milliseconds / 1000.0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_duration_is_believed() {
        assert_eq!(agent_time("agent;dur=1.5"), Some(Duration::from_micros(1500)));
        for text in ["agent;dur=-1", "agent;dur=NaN", "agent;dur=inf", "agent;dur=1e300", "agent", "dur=1", ""] {
            assert_eq!(agent_time(text), None, "{text}");
        }
    }
}
