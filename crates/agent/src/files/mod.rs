//! Files of a client, in and out: the agent's side.
//!
//! The agent touches no file of the user's itself. It starts itself again in the sandbox, as the user, with the request's
//! body as standard input and the reply's as standard output ([`jailed`]): whatever path the user has prepared leads
//! nowhere that the user could not go himself.

mod beneath;
mod failure;
pub(crate) mod jailed;
mod look;
mod pack;
mod unpack;

use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::mpsc;

use crate::agent::Vm;
use crate::pipe;
use crate::reply::{Body, FrameSender, Refusal, empty};
use crate::sandbox::launch::{Child, Executable, Launch, Streams};
pub(crate) use failure::Failure;
use jailed::Order;
pub(crate) use unpack::unpack_entry;

/// Bytes of a reply that are read at once.
const PIECE: usize = 16 * 1024;

/// Pieces that may wait for a client that reads slowly.
const BACKLOG: usize = 4;

/// Bytes of a jailed process's last words.
pub(crate) const WORDS: u64 = 8 * 1024;

/// Carries an order out that takes a body and answers nothing.
pub(crate) async fn put(vm: Rc<Vm>, order: Order, body: Incoming) -> Result<Response<Body>, Refusal> {
    let mut jailed = Jailed::start(vm, &order).await?;
    // A process whose input has not come to its end is killed before it could take what it has for all.
    feed(body, &mut jailed.stdin).await?;
    jailed.end().await?;
    Ok(empty())
}

/// Carries an order out that takes no body and answers a stream.
pub(crate) async fn get(vm: Rc<Vm>, order: Order) -> Result<Response<Body>, Refusal> {
    let mut jailed = Jailed::start(vm, &order).await?;
    let mut first = BytesMut::with_capacity(PIECE);
    jailed.stdout.read_buf(&mut first).await.map_err(Refusal::internal)?;
    if first.is_empty() {
        jailed.end().await?;
        return Ok(Response::new(Body::Full(http_body_util::Full::default())));
    }
    let (client, pieces) = mpsc::channel(BACKLOG);
    tokio::task::spawn_local(jailed.carry(first.freeze(), client));
    Ok(Response::new(Body::Stream(pieces)))
}

/// Everything that was written is on the disk when this returns.
pub(crate) async fn sync(vm: Rc<Vm>, body: Incoming) -> Result<Response<Body>, Refusal> {
    body.collect().await.map_err(Refusal::bad)?;
    // A disk can take seconds, and the agent has one thread: a copy of it waits instead.
    let disk = &vm.sandbox.tree.disk;
    let work = || i32::from(rustix::fs::syncfs(disk).is_err());
    let copy = crate::sandbox::fork(None, &[disk.as_raw_fd()], work).map_err(Refusal::internal)?;
    let ended = vm.keepers.reaper.watch(copy).await;
    match ended.map_or(-1, |ended| ended.code) {
        0 => Ok(empty()),
        _ => Err(Refusal::internal("the disk could not be synced")),
    }
}

/// A process that carries an order out.
struct Jailed {
    /// First, so that the process is killed before its input seems to end.
    child: Child,
    stdin: Sender,
    stdout: Receiver,
    stderr: Receiver,
}

impl Jailed {
    async fn start(vm: Rc<Vm>, order: &Order) -> Result<Self, Refusal> {
        let pipes = || io::Result::Ok((pipe::input()?, pipe::output()?, pipe::output()?));
        let ((their_stdin, stdin), (their_stdout, stdout), (their_stderr, stderr)) =
            pipes().map_err(Refusal::internal)?;
        let c_string = |text: String| CString::new(text).map_err(|_| Refusal::bad("the path has a NUL byte"));
        let launch = Launch {
            executable: Executable::Agent,
            arguments: order.to_arguments().into_iter().map(c_string).collect::<Result<_, _>>()?,
            environment: Vec::new(),
            directory: c"/".into(),
            streams: Streams::Three([their_stdin, their_stdout, their_stderr]),
            script: None,
        };
        let launched = vm.sandbox.launch(&vm.keepers, launch).await;
        let child =
            launched.map_err(|failed| Refusal::internal(format!("cannot reach the files: {}", failed.error)))?;
        Ok(Self { child, stdin, stdout, stderr })
    }

    /// Waits for its end. A failure is what it said last.
    async fn end(mut self) -> Result<(), Refusal> {
        drop(self.stdin);
        let mut words = Vec::new();
        let _ = (&mut self.stderr).take(WORDS).read_to_end(&mut words).await;
        // One that says more than it should is not to wait for us, nor we for it.
        drop((self.stderr, self.stdout));
        match self.child.end().await.code {
            0 => Ok(()),
            _ => Err(Failure::parse(&String::from_utf8_lossy(&words)).into_refusal()),
        }
    }

    /// Sends what it writes. A failure after the first piece can only break the reply off.
    async fn carry(self, first: Bytes, client: FrameSender) {
        tokio::select! {
            // The process is killed: it may be one that a program has stopped.
            () = client.closed() => {}
            ended = self.send(first, &client) => if ended.is_err() {
                let _ = client.send(Err(io::Error::other("the files could not be read to their end"))).await;
            }
        }
    }

    async fn send(mut self, first: Bytes, client: &FrameSender) -> Result<(), Refusal> {
        let mut piece = first;
        while !piece.is_empty() && client.send(Ok(piece)).await.is_ok() {
            let mut next = BytesMut::with_capacity(PIECE);
            piece = match self.stdout.read_buf(&mut next).await {
                Ok(_) => next.freeze(),
                Err(_) => Bytes::new(),
            };
        }
        self.end().await
    }
}

/// Carries a body to a process. One that reads no more has failed and will say why.
pub(crate) async fn feed(mut body: Incoming, stdin: &mut Sender) -> Result<(), Refusal> {
    let broke_off = || Refusal::bad("the body broke off");
    let mut takes_more = true;
    while let Some(frame) = body.frame().await {
        if let Ok(piece) = frame.map_err(|_| broke_off())?.into_data() {
            takes_more = takes_more && stdin.write_all(&piece).await.is_ok();
        }
    }
    // hyper makes no difference between the end of a body and the cancellation of its request.
    if body.is_end_stream() { Ok(()) } else { Err(broke_off()) }
}

/// Reads an order from a request's query.
pub(crate) fn field(query: Option<&str>, name: &str) -> Result<String, Refusal> {
    let fields = query.unwrap_or_default().split('&').filter_map(|field| field.split_once('='));
    let value = fields.into_iter().find_map(|(key, value)| (key == name).then_some(value));
    let value = value.ok_or_else(|| Refusal::bad(format!("the query has no {name}")))?;
    let text = percent_encoding::percent_decode_str(value).decode_utf8();
    text.map(Into::into).map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, format!("{name} is no UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_query() {
        let query = Some("path=%2Fworkspace%2Fa%20b%26c&executable=true");
        assert_eq!(field(query, "path").unwrap(), "/workspace/a b&c");
        assert_eq!(field(query, "executable").unwrap(), "true");
        assert!(field(query, "dest").is_err());
        assert!(field(Some("path=%ff"), "path").is_err());
    }
}
