//! JSON bodies with a size that each route decides.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Size of a body that creates something (section 1 of the wire contract).
pub const CREATE_BYTES: usize = 64 * 1024;
/// Size of a body that runs something.
pub const RUN_BYTES: usize = 1024 * 1024;
/// Size of a body that signs in.
pub const LOGIN_BYTES: usize = 16 * 1024;

/// What a client may take to send a body.
const READ_TIME: Duration = Duration::from_secs(30);

/// What is read of a body that is refused for its size, so that simple clients see the answer.
const DRAIN_BYTES: usize = 16 * 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// A JSON body of at most `CAP` bytes; also a JSON reply.
///
/// Any content type with `json` in it is taken, and none. Nesting beyond 128 levels is refused by the parser.
#[derive(Debug, Clone, Copy)]
pub struct Json<T, const CAP: usize = CREATE_BYTES>(pub T);

impl<S: Sync, T: DeserializeOwned, const CAP: usize> FromRequest<S> for Json<T, CAP> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        let (parts, body) = request.into_parts();
        check_content_type(&parts.headers)?;
        let bytes = read(body, CAP).await?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| Error::Invalid(explain(&error, bytes.is_empty())))
    }
}

/// The bytes of a JSON body of at most `CAP` bytes, for whoever reads them more strictly.
#[derive(Debug)]
pub(super) struct Bytes<const CAP: usize>(pub(super) axum::body::Bytes);

impl<S: Sync, const CAP: usize> FromRequest<S> for Bytes<CAP> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        let (parts, body) = request.into_parts();
        check_content_type(&parts.headers)?;
        read(body, CAP).await.map(Self)
    }
}

/// A JSON body, or none: then the value that stands for nothing said.
#[derive(Debug, Clone, Copy)]
pub struct OptionalJson<T>(pub T);

impl<S: Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalJson<T> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        let (parts, body) = request.into_parts();
        let bytes = read(body, CREATE_BYTES).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        check_content_type(&parts.headers)?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| Error::Invalid(explain(&error, false)))
    }
}

impl<T: Serialize, const CAP: usize> IntoResponse for Json<T, CAP> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<()> {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    if kind.to_str().is_ok_and(|kind| kind.to_ascii_lowercase().contains("json")) {
        return Ok(());
    }
    Err(Error::UnsupportedMedia("The body must be JSON: send it with `content-type: application/json`".into()))
}

/// The parser's words are about the caller's own text; they may show it to him.
fn explain(error: &serde_json::Error, empty: bool) -> String {
    if empty {
        return "The request needs a JSON body".into();
    }
    format!("Invalid JSON body: {error}")
}

async fn read(body: Body, cap: usize) -> Result<axum::body::Bytes> {
    let late = |_| Error::invalid("The request body did not arrive in time");
    tokio::time::timeout(READ_TIME, read_all(body, cap)).await.map_err(late)?
}

async fn read_all(body: Body, cap: usize) -> Result<axum::body::Bytes> {
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Error::invalid("The request body broke off"))?;
        if bytes.len() + chunk.len() > cap {
            drain(stream, bytes.len() + chunk.len()).await;
            return Err(Error::TooLarge { limit: cap as u64 });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.into())
}

/// Reads on, forgetting what comes.
pub(super) async fn drain(mut stream: axum::body::BodyDataStream, already: usize) {
    let mut total = already;
    let read_on = async {
        while let Some(Ok(chunk)) = stream.next().await {
            total += chunk.len();
            if total > DRAIN_BYTES {
                break;
            }
        }
    };
    // Whether it ended or not, the answer goes out now.
    let _ = tokio::time::timeout(DRAIN_TIME, read_on).await;
}
