//! Running programs in a guest.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use http::Method;
use http_body_util::BodyDataStream;
use hyper::body::Incoming;
use rds_protocol::exec::{AgentFrame, ClientFrame, Exit, Start};
use rds_protocol::frame::FrameCodec;
use rds_protocol::limits::{OUTPUT_BYTES, RESULT_BYTES};
use rds_protocol::routes;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::codec::FramedRead;
use tokio_util::io::StreamReader;

use super::body::pieces;
use super::{GuestClient, GuestError};

/// Frames on their way to the guest. A sender waits while this many are under way.
const QUEUE: usize = 8;

/// Room for the fields of an exit message beside the program's own result.
const EXIT_ENVELOPE: u64 = 4096;

/// A program that has ended, with what it wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct Collected {
    /// How it ended.
    pub exit: Exit,
    /// Its standard output, at most [`OUTPUT_BYTES`].
    pub stdout: Vec<u8>,
    /// Its standard error, at most [`OUTPUT_BYTES`].
    pub stderr: Vec<u8>,
}

/// What is sent to a program. Dropping it ends the program's input, not the program.
#[derive(Debug, Clone)]
pub struct ExecSender(mpsc::Sender<io::Result<Bytes>>);

impl ExecSender {
    /// Sends a frame, waiting while the guest does not take more. Fails when the program's stream is gone.
    pub async fn send(&self, frame: &ClientFrame) -> Result<(), GuestError> {
        let frame = frame.encode().to_bytes();
        self.0.send(Ok(frame)).await.map_err(|_| GuestError::unsent("the program's stream has ended"))
    }
}

type Frames = FramedRead<StreamReader<Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>, Bytes>, FrameCodec>;

/// What comes from a program: frames, the last of which is [`AgentFrame::Exit`]. Anything else is an error item.
///
/// Dropping this and the [`ExecSender`] before the exit kills the program.
pub struct ExecStream {
    /// `None` after the last item.
    frames: Option<Frames>,
}

impl ExecStream {
    fn new(body: Incoming) -> Self {
        let pieces: Pin<Box<dyn Stream<Item = _> + Send>> =
            Box::pin(BodyDataStream::new(body).map_err(io::Error::other));
        Self { frames: Some(FramedRead::new(StreamReader::new(pieces), FrameCodec)) }
    }
}

impl Stream for ExecStream {
    type Item = Result<AgentFrame, GuestError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(frames) = self.frames.as_mut() else { return Poll::Ready(None) };
        let frame = match std::task::ready!(frames.poll_next_unpin(cx)) {
            Some(Ok(frame)) if frame.payload.len() as u64 > RESULT_BYTES + EXIT_ENVELOPE => {
                Err(GuestError::Protocol("a result of more bytes than a program may leave".into()))
            }
            Some(frame) => frame.and_then(AgentFrame::decode).map_err(GuestError::from),
            None => Err(GuestError::broken("the stream ended before the program did")),
        };
        if !matches!(frame, Ok(AgentFrame::Stdout(_) | AgentFrame::Stderr(_))) {
            self.frames = None;
        }
        Poll::Ready(Some(frame))
    }
}

impl GuestClient {
    /// Starts a program. `limit` is for the agent's word that it has started, not for the program.
    pub async fn exec(&self, start: Start, limit: Duration) -> Result<(ExecSender, ExecStream), GuestError> {
        let (sender, mut queue) = mpsc::channel(QUEUE);
        let first = ClientFrame::Start(Box::new(start)).encode().to_bytes();
        sender.try_send(Ok(first)).expect("the queue is empty and its other end is at hand");
        let body = pieces(futures_util::stream::poll_fn(move |cx| queue.poll_recv(cx)));
        let reply =
            timeout(limit, self.send(Method::POST, routes::EXEC, body)).await.map_err(|_| GuestError::Timeout)?;
        Ok((ExecSender(sender), ExecStream::new(reply?)))
    }

    /// Runs a program to its end and collects what it writes.
    ///
    /// `limit` is for the whole call; when it has passed, or when the future is dropped, the program is killed. Whatever
    /// the agent sends, no more than [`OUTPUT_BYTES`] of either output are kept.
    pub async fn run(&self, start: Start, limit: Duration) -> Result<Collected, GuestError> {
        let collect = async {
            let (sender, mut frames) = self.exec(start, limit).await?;
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            let mut cut = false;
            while let Some(frame) = frames.next().await {
                match frame? {
                    AgentFrame::Stdout(data) => cut |= keep(&mut stdout, &data),
                    AgentFrame::Stderr(data) => cut |= keep(&mut stderr, &data),
                    AgentFrame::Exit(mut exit) => {
                        exit.truncated |= cut;
                        drop(sender);
                        return Ok(Collected { exit: *exit, stdout, stderr });
                    }
                }
            }
            unreachable!("a stream of frames ends with an exit or an error")
        };
        timeout(limit, collect).await.map_err(|_| GuestError::Timeout)?
    }
}

/// Appends what fits and tells whether something did not.
fn keep(to: &mut Vec<u8>, data: &[u8]) -> bool {
    let room = usize::try_from(OUTPUT_BYTES).unwrap_or(usize::MAX).saturating_sub(to.len());
    to.extend_from_slice(data.get(..room).unwrap_or(data));
    data.len() > room
}
