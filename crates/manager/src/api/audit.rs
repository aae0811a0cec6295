//! `/v1/audit` and `/v1/audit/head`: the audit log of peer calls.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream::{Stream, try_unfold};
use rds_peers::audit::{Call, Entry, Outcome, Record, damaged_line};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::ErrorBody;
use super::json::Json;
use super::path::{Query, limit};
use super::replies::CallerErrors;
use super::time;
use crate::app::App;
use crate::audit::{Audit, Found};
use crate::error::{Error, Result};
use crate::store::audit::{AuditFilter, AuditRange};

/// Records in a reply at most.
const MAX_RECORDS: u32 = 1000;
/// Content type of an export.
const JSON_LINES: &str = "application/x-ndjson";

pub(super) fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(end))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// Id of the calling VM.
    consumer: Option<String>,
    /// Id of the called VM.
    provider: Option<String>,
    /// The alias that was called.
    alias: Option<String>,
    /// The export that was called.
    export: Option<String>,
    /// How the call ended.
    #[param(inline)]
    outcome: Option<CallOutcome>,
    /// The first moment (RFC 3339).
    #[param(format = DateTime)]
    since: Option<String>,
    /// The first moment that is too late (RFC 3339).
    #[param(format = DateTime)]
    until: Option<String>,
    /// How many, 1 to 1000; 100 if absent. An export has no limit.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Only records before this `sequence`, for the next page.
    #[param(minimum = 0)]
    before: Option<i64>,
    /// `jsonl` for an export, as with `Accept: application/x-ndjson`.
    #[param(inline)]
    format: Option<Format>,
}

#[derive(Clone, Copy, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    Json,
    Jsonl,
}

/// How a call ended: `refused` before the provider was entered, `failed` because the provider or its worker was not there
/// or went away.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum CallOutcome {
    Returned,
    Threw,
    Refused,
    TimedOut,
    Cancelled,
    Failed,
}

impl From<CallOutcome> for Outcome {
    fn from(outcome: CallOutcome) -> Self {
        match outcome {
            CallOutcome::Returned => Self::Returned,
            CallOutcome::Threw => Self::Threw,
            CallOutcome::Refused => Self::Refused,
            CallOutcome::TimedOut => Self::TimedOut,
            CallOutcome::Cancelled => Self::Cancelled,
            CallOutcome::Failed => Self::Failed,
        }
    }
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AuditPage {
    /// Newest first.
    entries: Vec<AuditEntry>,
    /// Whether there are older ones.
    has_more: bool,
}

/// A peer call.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AuditEntry {
    /// Its place in the log, from 0.
    sequence: u64,
    /// Hash of its record, which seals all records before it too.
    hash: String,
    #[serde(flatten)]
    #[schema(value_type = AuditCall)]
    call: Call,
}

/// What is recorded of a call.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "it describes `Call`, which knows nothing of an API")]
struct AuditCall {
    /// When it came.
    #[schema(format = DateTime)]
    time: String,
    /// Id of the calling VM.
    consumer: String,
    /// The alias that was called.
    alias: String,
    /// Id of the VM behind the alias.
    #[schema(nullable = false)]
    provider: Option<String>,
    /// Module as called.
    module: String,
    /// Export as called.
    export: String,
    /// Bytes of the arguments as JSON.
    args_bytes: u64,
    /// Bytes of the result as JSON.
    result_bytes: u64,
    /// From the call's arrival to its answer, in microseconds.
    duration_us: u64,
    outcome: CallOutcome,
    /// The policy's rule that refused it or was warned about.
    #[schema(nullable = false)]
    rule: Option<String>,
    /// Generation of the provider's secrets that it ran with.
    #[schema(nullable = false)]
    secret_version: Option<u64>,
    /// Places where a secret was struck out of the answer.
    strikes: u64,
}

/// Where the log ends. Keep it elsewhere: it shows later whether anything before was changed or cut off.
#[derive(Serialize, ToSchema)]
struct AuditHead {
    /// Records in the log.
    records: u64,
    /// Hash of the last one; zeros without any.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    hash: String,
}

/// List peer calls, or export them
///
/// The list is newest first. An export (`Accept: application/x-ndjson`, or `format=jsonl`) is oldest first, one line for
/// each record: `{"hash":"...","record":{...}}`. The bytes of `record` are those that its hash was taken over, together
/// with the hash of the line before; `rds audit verify` checks a whole export. A record that does not say what it is searched
/// by is followed by a line `{"damaged":SEQUENCE}`.
#[utoipa::path(get, path = "/audit", tag = "audit", params(AuditQuery), responses(
    (status = 200, content((AuditPage = "application/json"), (String = "application/x-ndjson"))),
    (status = 400, description = "A parameter makes no sense", body = ErrorBody),
    CallerErrors,
))]
async fn list(State(app): State<Arc<App>>, headers: HeaderMap, Query(query): Query<AuditQuery>) -> Result<Response> {
    let filter = query.filter()?;
    let export = match query.format {
        Some(format) => format == Format::Jsonl,
        None => headers.get(header::ACCEPT).is_some_and(|kinds| kinds.to_str().unwrap_or("").contains(JSON_LINES)),
    };
    app.audit.catch_up().await;
    if export {
        if query.limit.is_some() || query.before.is_some() {
            return Err(Error::invalid("limit and before are for the list; an export is whole"));
        }
        let lines = Body::from_stream(lines(app.audit.clone(), filter));
        return Ok(([(header::CONTENT_TYPE, JSON_LINES)], lines).into_response());
    }
    let limit = limit(query.limit, 100, MAX_RECORDS)?;
    let range = AuditRange::Before(query.before.unwrap_or(i64::MAX));
    let mut records = app.audit.records(&filter, range, limit + 1).await?;
    let has_more = records.len() > limit as usize;
    records.truncate(limit as usize);
    let entries = records.into_iter().map(entry).collect::<Result<_>>()?;
    Ok(Json::<_>(AuditPage { entries, has_more }).into_response())
}

/// Where the log ends
#[utoipa::path(get, path = "/audit/head", tag = "audit", responses((status = 200, body = AuditHead), CallerErrors))]
async fn end(State(app): State<Arc<App>>) -> Result<Json<AuditHead>> {
    let head = app.audit.head().await?;
    Ok(Json(AuditHead { records: head.records, hash: head.hash.to_string() }))
}

impl AuditQuery {
    fn filter(&self) -> Result<AuditFilter> {
        let time = |name, text: &Option<String>| text.as_deref().map(|text| time::parse(name, text)).transpose();
        Ok(AuditFilter {
            consumer: self.consumer.clone(),
            provider: self.provider.clone(),
            alias: self.alias.clone(),
            export: self.export.clone(),
            outcome: self.outcome.map(|outcome| Outcome::from(outcome).name()),
            since: time("since", &self.since)?,
            until: time("until", &self.until)?,
        })
    }
}

fn entry(Found { stored, entry }: Found) -> Result<AuditEntry> {
    let damaged = || Error::internal("the audit log is damaged", format!("see record {}", stored.sequence));
    let Entry { sequence, call } = entry.ok_or_else(damaged)?;
    Ok(AuditEntry { sequence, hash: stored.hash, call })
}

/// A record in an export. What was tampered with is exported as it is, and followed by a line that says so.
fn line(Found { stored, entry }: &Found) -> String {
    let mut lines = Record::line(&stored.hash, &stored.text) + "\n";
    if entry.is_none() {
        lines += &(damaged_line(stored.sequence) + "\n");
    }
    lines
}

/// The lines of an export, read from the database a page at a time as the client takes them.
fn lines(audit: Audit, filter: AuditFilter) -> impl Stream<Item = Result<Bytes>> {
    try_unfold(0, move |from| {
        let (audit, filter) = (audit.clone(), filter.clone());
        async move {
            let records = audit.records(&filter, AuditRange::From(from), MAX_RECORDS).await?;
            let Some(last) = records.last() else { return Ok(None) };
            let next = last.stored.sequence + 1;
            let lines: String = records.iter().map(line).collect();
            Ok(Some((lines.into(), next)))
        }
    })
}
