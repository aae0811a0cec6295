//! `/v1/vms/{id}/exec`, `/exec/stream`, `/run-ts`, `/run-js`: running code in a VM.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};
use serde_json::json;
use tokio_stream::wrappers::ReceiverStream;
use utoipa::IntoResponses;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::ErrorBody;
use super::json::{Json, RUN_BYTES};
use super::path::Path;
use super::replies::CallerErrors;
use super::vms::{VmErrors, vm_id};
use crate::app::App;
use crate::error::Result;
use crate::vms::program::{ExecRequest, Language, RunRequest};
use crate::vms::run::RunReply;
use crate::vms::stream::RunEvent;

/// Time between two comments of a stream that has nothing to say, so that proxies keep it open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(exec))
        .routes(routes!(exec_stream))
        .routes(routes!(run_ts))
        .routes(routes!(run_js))
}

/// What a call that reaches into a guest may answer besides [`VmErrors`].
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it describes replies; they are made by `Error`")]
pub(super) enum GuestErrors {
    /// The body is too large
    #[response(status = 413)]
    TooLarge(ErrorBody),
    /// The body is of the wrong kind
    #[response(status = 415)]
    UnsupportedMedia(ErrorBody),
    /// The guest answered something unusable, or was lost
    #[response(status = 502)]
    BadGateway(ErrorBody),
    /// The guest did not answer in time
    #[response(status = 504)]
    GatewayTimeout(ErrorBody),
}

/// Run a shell command
///
/// A command that fails is still a 200. At the time limit every process it started is killed and `exitCode` is -1. The
/// header `x-rds-guest-duration-us` tells how long the program ran, in microseconds, as the guest measured it.
#[utoipa::path(post, path = "/vms/{id}/exec", tag = "run", params(("id" = String, Path)), request_body = ExecRequest,
    responses((status = 200, body = RunReply), CallerErrors, VmErrors, GuestErrors))]
async fn exec(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Json(body): Json<ExecRequest, RUN_BYTES>,
) -> Result<Response> {
    Ok(answer(app.vms.exec(vm_id(&id)?, body).await?))
}

/// Run a shell command and stream its output
///
/// Server-sent events: `stdout` and `stderr` carry a JSON string, `exit` the object `{exitCode, timedOut, truncated}`,
/// `error` an object `{message}` if the VM is lost. Closing the connection kills the program.
#[utoipa::path(post, path = "/vms/{id}/exec/stream", tag = "run", params(("id" = String, Path)),
    request_body = ExecRequest,
    responses((status = 200, content_type = "text/event-stream", body = String), CallerErrors, VmErrors, GuestErrors))]
async fn exec_stream(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Json(body): Json<ExecRequest, RUN_BYTES>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    let events = app.vms.exec_stream(vm_id(&id)?, body).await?;
    let events = ReceiverStream::new(events).filter_map(async |event| sse_event(event).map(Ok));
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// Run TypeScript or JavaScript under Deno
///
/// Either `code` or `path`; `path` wins. The global `result` gives structured values back.
#[utoipa::path(post, path = "/vms/{id}/run-ts", tag = "run", params(("id" = String, Path)), request_body = RunRequest,
    responses((status = 200, body = RunReply), CallerErrors, VmErrors, GuestErrors))]
async fn run_ts(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Json(body): Json<RunRequest, RUN_BYTES>,
) -> Result<Response> {
    Ok(answer(app.vms.run_code(vm_id(&id)?, Language::Deno, body).await?))
}

/// Run JavaScript under Node.js
///
/// ES modules and CommonJS both work. The global `result` gives structured values back.
#[utoipa::path(post, path = "/vms/{id}/run-js", tag = "run", params(("id" = String, Path)), request_body = RunRequest,
    responses((status = 200, body = RunReply), CallerErrors, VmErrors, GuestErrors))]
async fn run_js(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Json(body): Json<RunRequest, RUN_BYTES>,
) -> Result<Response> {
    Ok(answer(app.vms.run_code(vm_id(&id)?, Language::Node, body).await?))
}

fn answer(reply: RunReply) -> Response {
    let duration = [("x-rds-guest-duration-us", reply.duration_us.to_string())];
    (duration, axum::Json(reply)).into_response()
}

/// `None` for a part without text.
fn sse_event(event: RunEvent) -> Option<Event> {
    let (name, data) = match event {
        RunEvent::Stdout(text) | RunEvent::Stderr(text) if text.is_empty() => return None,
        RunEvent::Stdout(text) => ("stdout", json!(text)),
        RunEvent::Stderr(text) => ("stderr", json!(text)),
        RunEvent::Exit(exit) => {
            ("exit", json!({"exitCode": exit.exit_code, "timedOut": exit.timed_out, "truncated": exit.truncated}))
        }
        RunEvent::Lost(message) => ("error", json!({"message": message})),
    };
    Some(Event::default().event(name).data(data.to_string()))
}
