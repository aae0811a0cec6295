//! Bodies and errors of the agent's HTTP interface.

use std::convert::Infallible;
use std::fmt::Display;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use http::{Response, StatusCode};
use http_body_util::{BodyDataStream, BodyExt, Full, Limited};
use hyper::body::{Frame, Incoming, SizeHint};
use rds_protocol::frame::FrameCodec;
use rds_protocol::guest::AgentError;
use tokio::sync::mpsc;
use tokio_util::codec::FramedRead;
use tokio_util::io::StreamReader;

/// The agent's end of a reply that is a stream. An error breaks the reply off.
pub(crate) type FrameSender = mpsc::Sender<io::Result<Bytes>>;

/// A request's body as bytes.
pub(crate) type BodyReader = StreamReader<Pin<Box<dyn Stream<Item = io::Result<Bytes>>>>, Bytes>;

/// A request's body as frames.
pub(crate) type ClientFrames = FramedRead<BodyReader, FrameCodec>;

/// A reply's body.
pub(crate) enum Body {
    /// All at once.
    Full(Full<Bytes>),
    /// As it comes, until the sender is dropped.
    Stream(mpsc::Receiver<io::Result<Bytes>>),
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Full(body) => Pin::new(body).poll_frame(cx).map_err(|never: Infallible| match never {}),
            Self::Stream(pieces) => pieces.poll_recv(cx).map_ok(Frame::data),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(body) => body.is_end_stream(),
            Self::Stream(_) => false,
        }
    }

    /// The manager makes room for a reply before it reads it.
    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(body) => body.size_hint(),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// An answer with a status of 400 or more.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    /// One with any status.
    pub(crate) fn new(status: StatusCode, message: impl Display) -> Self {
        Self { status, message: message.to_string() }
    }

    /// The request can't be carried out as it is.
    pub(crate) fn bad(message: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// There is no room on the VM's disk.
    pub(crate) fn full(message: impl Display) -> Self {
        Self::new(StatusCode::INSUFFICIENT_STORAGE, message)
    }

    /// Something went wrong that the request is not to blame for.
    pub(crate) fn internal(message: impl Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// The answer.
    pub(crate) fn into_response(self) -> Response<Body> {
        json(self.status, &AgentError { message: self.message })
    }
}

/// What was asked for, as JSON.
pub(crate) fn ok(value: &impl serde::Serialize) -> Response<Body> {
    json(StatusCode::OK, value)
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Response<Body> {
    let text = serde_json::to_vec(value).expect("protocol types have string keys and no failing serialisers");
    let mut response = Response::new(Body::Full(Full::new(text.into())));
    *response.status_mut() = status;
    response
}

/// An answer that says all by its status.
pub(crate) fn empty() -> Response<Body> {
    let mut response = Response::new(Body::Full(Full::default()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Reads a JSON body of at most `limit` bytes.
pub(crate) async fn read_json<T: serde::de::DeserializeOwned>(body: Incoming, limit: usize) -> Result<T, Refusal> {
    let body = Limited::new(body, limit).collect().await.map_err(Refusal::bad)?;
    serde_json::from_slice(&body.to_bytes()).map_err(Refusal::bad)
}

/// A body as bytes.
pub(crate) fn reader_of(body: Incoming) -> BodyReader {
    StreamReader::new(Box::pin(BodyDataStream::new(body).map_err(io::Error::other)))
}

/// A body as frames.
pub(crate) fn frames_of(body: Incoming) -> ClientFrames {
    FramedRead::new(reader_of(body), FrameCodec)
}
