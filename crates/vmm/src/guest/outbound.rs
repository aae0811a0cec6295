//! Calls out of a guest: its agent is the client of an HTTP/2 connection that the manager serves.
//!
//! A hostile guest can hold open [`STREAMS`] calls, each for [`CALL_LIMIT`], and have [`BODIES`] KiB of their bodies in the
//! manager's memory, and [`CONNECTION_WINDOW`] bytes on their way; further ones wait. Replies that it does not read stay where
//! [`Reply::body`] has them: how many there may be is for whoever answers. Which guest is calling is known by the channel
//! alone.

use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rds_protocol::link::{self, History};
use rds_protocol::peer::{CALL_BYTES, INVOKE};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::{HEADER_BYTES, PING_EVERY, PING_LIMIT};
use crate::hypervisor::{ByteStream, Hypervisor, Port};

/// Calls at once of one guest. Its agent passes on no more than this.
pub(super) const STREAMS: u32 = 64;

/// Bytes that the guest may send of one call before they are read, and of all together. Calls whose bodies wait to be
/// read must leave room for those that are being read, or these would wait for ever.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = STREAMS * STREAM_WINDOW;

/// KiB of all bodies of one guest's calls that are being worked on.
const BODIES: u32 = 8 * 1024;

/// Bodies that are read at once.
const READERS: usize = 4;

/// How long the body of a call may take to come.
const BODY_LIMIT: Duration = Duration::from_secs(30);

/// How long a call may take, from its head to the last byte of its reply. Three times what the longest one takes, a person's
/// approval included.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(900);

/// Bytes of a reply that are handed to the connection at once.
const PIECE: usize = 16 * 1024;

/// How long a guest may take to answer a greeting before it is greeted again.
const GREETING_LIMIT: Duration = Duration::from_secs(60);

/// Between two attempts to open a channel.
const PAUSE: Duration = Duration::from_millis(200);

/// The answer to a call.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Value of the header `Retry-After`, in seconds.
    pub retry_after: Option<u64>,
    /// JSON. It is dropped when the guest has read nearly all of it, or the call has ended otherwise.
    pub body: Bytes,
}

/// What answers calls: it gets a body of at most [`CALL_BYTES`], and its future is dropped when the caller gives up.
#[async_trait::async_trait]
pub trait Answer: Send + Sync + 'static {
    /// Answers one call.
    async fn answer(&self, body: Bytes) -> Reply;
    /// What a call that is no call gets: not `POST` to [`INVOKE`], too large, or broken off.
    fn refuse(&self, status: u16, message: &str) -> Reply;
}

/// Serves the calls of the guest in `dir` until the future is dropped, over as many connections as it takes.
pub async fn serve(hypervisor: &dyn Hypervisor, dir: &Path, mut history: History, answer: Arc<dyn Answer>) {
    loop {
        if let Err(error) = serve_one(hypervisor, dir, history, &answer).await {
            tracing::debug!(dir = %dir.display(), error, "a channel out of a guest ended");
        }
        history = History::Used;
        sleep(PAUSE).await;
    }
}

async fn serve_one(
    hypervisor: &dyn Hypervisor,
    dir: &Path,
    history: History,
    answer: &Arc<dyn Answer>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve_over(hypervisor.connect(dir, Port::Out).await?, history, answer).await
}

pub(super) async fn serve_over(
    mut stream: Box<dyn ByteStream>,
    history: History,
    answer: &Arc<dyn Answer>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    link::greet(&mut stream, history, || Uuid::new_v4().into_bytes(), GREETING_LIMIT).await?;
    let guest = Arc::new(Guest {
        answer: Arc::clone(answer),
        readers: Semaphore::new(READERS),
        bodies: Semaphore::new(BODIES as usize),
    });
    let service = service_fn(move |request| {
        let guest = Arc::clone(&guest);
        async move { Ok::<_, Infallible>(response(guest.take(request).await.unwrap_or_else(|refusal| refusal))) }
    });
    http2::Builder::new(Calls)
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_LIMIT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        // Calls that were given up before they were looked at: no more than there may be.
        .max_pending_accept_reset_streams(STREAMS as usize)
        .max_header_list_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await?;
    Ok(())
}

struct Guest {
    answer: Arc<dyn Answer>,
    readers: Semaphore,
    bodies: Semaphore,
}

impl Guest {
    async fn take(&self, request: Request<Incoming>) -> Result<Reply, Reply> {
        let refuse = |status: StatusCode, message: &str| self.answer.refuse(status.as_u16(), message);
        if request.uri().path() != INVOKE {
            return Err(refuse(StatusCode::NOT_FOUND, "there is nothing here"));
        }
        if request.method() != Method::POST {
            return Err(refuse(StatusCode::METHOD_NOT_ALLOWED, "calls are made with POST"));
        }
        let reader = self.readers.acquire().await;
        let body = timeout(BODY_LIMIT, Limited::new(request.into_body(), CALL_BYTES).collect()).await;
        let body = match body {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                return Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, "the call is larger than 1 MiB"));
            }
            Ok(Err(_)) | Err(_) => return Err(refuse(StatusCode::BAD_REQUEST, "the call broke off")),
        };
        // Held while the call is worked on. It is waited for with the place of a reader, so that no more bodies come.
        let kib = u32::try_from(body.len() / 1024 + 1).unwrap_or(BODIES).min(BODIES);
        let _room = self.bodies.acquire_many(kib).await;
        drop(reader);
        Ok(self.answer.answer(body).await)
    }
}

/// Runs calls. One whose time is over is reset, and what the guest has not read of its reply forgotten.
#[derive(Clone)]
struct Calls;

impl<Call: Future<Output: Send> + Send + 'static> Executor<Call> for Calls {
    fn execute(&self, call: Call) {
        tokio::spawn(timeout(CALL_LIMIT, call));
    }
}

/// A reply's body. The connection gets copies of pieces: what it has is its own for as long as the guest likes.
struct Text(Bytes);

impl Body for Text {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = Bytes::copy_from_slice(self.0.get(..PIECE).unwrap_or(&self.0));
        self.0.advance(piece.len());
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

fn response(reply: Reply) -> Response<Text> {
    let mut response = Response::new(Text(reply.body));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    if let Some(seconds) = reply.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}
