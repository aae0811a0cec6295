//! Bodies of calls: what is sent, and replies that are never larger than they may be.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyDataStream, BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::time::{Instant, timeout_at};

use super::GuestError;

/// Body of a request. An error in it resets the stream: the agent sees that the call was given up.
pub(super) type RequestBody = UnsyncBoxBody<Bytes, io::Error>;

/// A body that is there as a whole.
pub(super) fn whole(data: impl Into<Bytes>) -> RequestBody {
    Full::new(data.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that comes piece by piece.
pub(super) fn pieces(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> RequestBody {
    StreamBody::new(stream.map(|piece| piece.map(Frame::data))).boxed_unsync()
}

/// Reads a reply of at most `limit` bytes as a whole.
pub(super) async fn read_whole(body: Incoming, limit: usize) -> Result<Vec<u8>, GuestError> {
    let mut data = Vec::new();
    let mut pieces = BodyDataStream::new(body);
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(GuestError::broken)?;
        if data.len() + piece.len() > limit {
            return Err(GuestError::Protocol(format!("a reply of more than {limit} bytes")));
        }
        data.extend_from_slice(&piece);
    }
    Ok(data)
}

/// A reply that is read piece by piece. Dropping it tells the agent to stop.
pub struct Download {
    pieces: BodyDataStream<Incoming>,
    left: u64,
    deadline: Instant,
}

impl Download {
    pub(super) fn new(body: Incoming, bytes: u64, limit: Duration) -> Self {
        Self { pieces: BodyDataStream::new(body), left: bytes, deadline: Instant::now() + limit }
    }

    /// The next piece; `None` at the end.
    ///
    /// Fails when the agent sends more than was agreed, or has not finished within the call's time limit.
    pub async fn next(&mut self) -> Option<Result<Bytes, GuestError>> {
        let piece = match timeout_at(self.deadline, self.pieces.next()).await {
            Ok(piece) => piece?.map_err(GuestError::broken),
            Err(_) => Err(GuestError::Timeout),
        };
        Some(piece.and_then(|piece| {
            self.left = (self.left.checked_sub(piece.len() as u64))
                .ok_or_else(|| GuestError::Protocol("more bytes than the call allows".into()))?;
            Ok(piece)
        }))
    }

    /// The pieces as a stream, for a reply of one's own. An error is its last item.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, GuestError>> + Send + Unpin {
        Box::pin(futures_util::stream::unfold(Some(self), |download| async move {
            let mut download = download?;
            let piece = download.next().await?;
            let rest = piece.is_ok().then_some(download);
            Some((piece, rest))
        }))
    }
}
