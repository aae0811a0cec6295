//! `/metrics`: on an address of its own, or here for whoever has the token.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::ErrorBody;
use crate::app::App;
use crate::error::{Error, Result};
use crate::metrics::{self, MEDIA_TYPE, Now};
use crate::trace;

pub(super) fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(guarded))
}

/// Numbers for Prometheus
///
/// Here with `METRICS_TOKEN` as the bearer token, if the server has one; without a token on `METRICS_ADDR`.
#[utoipa::path(get, path = "/metrics", tag = "operation", security(("metrics" = [])), responses(
    (status = 200, description = "In the OpenMetrics format", body = String, content_type = "application/openmetrics-text"),
    (status = 401, description = "Another token", body = ErrorBody),
    (status = 404, description = "The server has no METRICS_TOKEN", body = ErrorBody),
))]
async fn guarded(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response> {
    let Some(token) = &app.config.http.metrics_token else {
        return Err(Error::not_found("Metrics are not served here: METRICS_TOKEN or METRICS_ADDR is to be set"));
    };
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let same = |given: &[u8]| {
        use ctutils::CtEq as _;
        given.ct_eq(token.expose_secret().as_bytes()).to_bool()
    };
    if !given.is_some_and(same) {
        return Err(Error::Unauthorized("METRICS_TOKEN is needed, as the bearer token"));
    }
    Ok(shown(&app))
}

async fn open(State(app): State<Arc<App>>) -> Response {
    shown(&app)
}

fn shown(app: &App) -> Response {
    let now = Now {
        vms: app.vms.count_by_state(),
        pool: app.vms.pooled(),
        seeds: app.seeds.list().len(),
        monitor: app.vms.monitor(),
    };
    ([(header::CONTENT_TYPE, MEDIA_TYPE)], metrics::render(&now)).into_response()
}

/// Serves the numbers alone, for whoever asks, until `shutdown`.
pub(super) async fn serve_apart(app: Arc<App>, address: SocketAddr, shutdown: CancellationToken) -> io::Result<()> {
    let listener = TcpListener::bind(address).await;
    let listener =
        listener.map_err(|error| io::Error::new(error.kind(), format!("METRICS_ADDR {address}: {error}")))?;
    tracing::info!(address = %listener.local_addr()?, "metrics are served");
    let router = Router::new().route("/metrics", get(open)).with_state(app);
    tokio::spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "metrics are not served any more");
        }
    });
    Ok(())
}

/// Counts and traces a request until its answer is there.
pub(super) async fn layer(request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let (method, route) = (metrics::method(request.method()), request.extensions().get::<MatchedPath>().cloned());
    let span = trace::of_request(method, request.headers(), request.extensions());
    let response = next.run(request).instrument(span.clone()).await;
    let status = response.status().as_u16();
    trace::answered(&span, status);
    metrics::answered(method, route.as_ref().map(MatchedPath::as_str), status, begun);
    response
}
