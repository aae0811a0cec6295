//! Where the server's log and traces go.
//!
//! Traces are exported where the standard variables of OpenTelemetry say so, over HTTP; without one of them nothing is
//! traced. What goes wrong with the exporter is in the log, and no request waits for it.

use opentelemetry::global;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry};

use crate::error::CliError;

/// Either says where traces go (the OpenTelemetry specification's exporter configuration).
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

/// Name of the service, unless `OTEL_SERVICE_NAME` gives another.
const SERVICE: &str = "run-dat-sheesh";

/// What runs as long as the server does. Dropping it loses the last spans; [`Telemetry::close`] doesn't.
#[derive(Debug, Default)]
pub(crate) struct Telemetry(Option<SdkTracerProvider>);

impl Telemetry {
    /// Sends the log to standard error, from `level` on unless `RUST_LOG` says otherwise, and traces to where the
    /// environment says.
    pub(crate) fn start(level: &str, json: bool) -> Result<Self, CliError> {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
        let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let log = if json { log.json().boxed() } else { log.with_target(false).boxed() };
        let registry = Registry::default().with(log.with_filter(filter));
        if ENDPOINTS.iter().all(|name| std::env::var_os(name).is_none_or(|value| value.is_empty())) {
            registry.init();
            return Ok(Self::default());
        }
        let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).build();
        let exporter = exporter.map_err(|error| CliError::Usage(format!("traces cannot be exported: {error}")))?;
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name(SERVICE);
        }
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
        global::set_text_map_propagator(TraceContextPropagator::new());
        global::set_tracer_provider(provider.clone());
        // Only our own: the exporter's requests would be traces of their own, for ever.
        let ours =
            Targets::new().with_target("rds_manager", LevelFilter::DEBUG).with_target("rds_vmm", LevelFilter::DEBUG);
        let traces = tracing_opentelemetry::layer().with_tracer(provider.tracer(SERVICE)).with_filter(ours);
        registry.with(traces).init();
        Ok(Self(Some(provider)))
    }

    /// Exports what is left.
    pub(crate) async fn close(self) {
        let Some(provider) = self.0 else { return };
        // It waits for a thread of its own.
        let closed = tokio::task::spawn_blocking(move || provider.shutdown()).await;
        if let Ok(Err(error)) = closed {
            tracing::warn!(%error, "the last traces could not be exported");
        }
    }
}
