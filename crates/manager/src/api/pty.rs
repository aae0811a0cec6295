//! `/v1/vms/{id}/pty`: a terminal over a WebSocket.
//!
//! Binary messages are the terminal's bytes, both ways. Text messages are JSON: from the client
//! `{"type":"resize","cols":80,"rows":24}` and `{"type":"signal","signal":2}`, from the server `{"type":"exit","exitCode":0}`
//! and `{"type":"error","message":"…"}`, the last one. Closing the socket kills what runs in the terminal; so does a client
//! that does not answer pings, since a terminal keeps its VM in use. It ends with the session or the key that opened it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade, rejection::WebSocketUpgradeRejection};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use rds_protocol::exec::{AgentFrame, ClientFrame, TerminalSize};
use rds_protocol::limits::FRAME_BYTES;
use rds_vmm::guest::{ExecSender, ExecStream, GuestError};
use serde::Deserialize;
use serde_json::json;
use tokio::time::MissedTickBehavior;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{Credential, LOOK_EVERY};
use super::exec::GuestErrors;
use super::path::{Path, Query};
use super::replies::CallerErrors;
use super::vms::{VmErrors, vm_id};
use crate::app::App;
use crate::error::{Error, Result};

pub(super) fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(pty))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct PtyQuery {
    /// Width in characters; 80 if absent.
    cols: Option<u16>,
    /// Height in characters; 24 if absent.
    rows: Option<u16>,
    /// A command line to run instead of a shell.
    cmd: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase", tag = "type")]
enum Control {
    Resize(TerminalSize),
    Signal { signal: i32 },
}

/// Open a terminal (WebSocket)
#[utoipa::path(get, path = "/vms/{id}/pty", tag = "run", params(("id" = String, Path), PtyQuery),
    responses((status = 101, description = "The connection is a WebSocket now"), CallerErrors, VmErrors, GuestErrors))]
async fn pty(
    State(app): State<Arc<App>>,
    credential: Credential,
    Path(id): Path<String>,
    Query(query): Query<PtyQuery>,
    upgrade: std::result::Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response> {
    let id = vm_id(&id)?;
    let upgrade = upgrade.map_err(|_| Error::invalid("A terminal needs a WebSocket handshake"))?;
    let size = TerminalSize { cols: query.cols.unwrap_or(80).max(1), rows: query.rows.unwrap_or(24).max(1) };
    let (input, output, in_use) = app.vms.terminal(id, size, query.cmd).await?;
    let upgrade = upgrade.max_message_size(MESSAGE_BYTES).max_frame_size(MESSAGE_BYTES);
    Ok(upgrade.on_upgrade(|socket| async move {
        carry(socket, input, output, credential.ended(&app.auth, LOOK_EVERY)).await;
        drop(in_use);
    }))
}

/// Largest message of a client: what is pasted comes as one.
const MESSAGE_BYTES: usize = 1024 * 1024;

/// Between two pings of the client. Proxies often close what is silent for a minute.
const PING_EVERY: Duration = Duration::from_secs(15);

/// Without a word of the client, a pong at least, it has gone, however well the connection looks.
const GONE_AFTER: Duration = Duration::from_secs(35);

/// Carries bytes both ways until either side ends, or what let the client in. What is dropped then kills the program.
async fn carry(socket: WebSocket, input: ExecSender, output: ExecStream, let_in: impl Future<Output = ()>) {
    let (to_client, mut from_client) = socket.split();
    let keys = async {
        while let Some(message) = heard(&mut from_client).await {
            let frames = match message {
                Message::Binary(data) => pieces(data).map(ClientFrame::Stdin).collect(),
                Message::Text(text) => match serde_json::from_str(&text) {
                    Ok(Control::Resize(size)) => vec![ClientFrame::Resize(size)],
                    Ok(Control::Signal { signal }) => vec![ClientFrame::Signal(signal)],
                    Err(_) => continue,
                },
                Message::Close(_) => break,
                Message::Ping(_) | Message::Pong(_) => continue,
            };
            for frame in &frames {
                if input.send(frame).await.is_err() {
                    return;
                }
            }
        }
    };
    tokio::select! {
        () = keys => {}
        () = show(output, to_client, let_in) => {}
    }
}

/// Keys in as many pieces as frames need.
fn pieces(mut data: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || (!data.is_empty()).then(|| data.split_to(data.len().min(FRAME_BYTES))))
}

/// The client's next message; nothing if it has gone. While the guest takes no keys nobody listens to the client: then a
/// connection that takes no pings ends.
async fn heard<E>(from_client: &mut (impl Stream<Item = std::result::Result<Message, E>> + Unpin)) -> Option<Message> {
    tokio::time::timeout(GONE_AFTER, from_client.next()).await.ok()??.ok()
}

/// Sends what the guest shows, and pings, until one of them ends, or `let_in` is done.
async fn show(
    mut output: impl Stream<Item = std::result::Result<AgentFrame, GuestError>> + Unpin,
    mut to_client: impl Sink<Message> + Unpin,
    let_in: impl Future<Output = ()>,
) {
    let mut let_in = std::pin::pin!(let_in);
    let mut pings = tokio::time::interval(PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            frame = output.next() => match frame {
                Some(Ok(AgentFrame::Stdout(data) | AgentFrame::Stderr(data))) => Message::Binary(data),
                Some(Ok(AgentFrame::Exit(exit))) => last(&json!({"type": "exit", "exitCode": exit.exit_code})),
                Some(Err(error)) => last(&json!({"type": "error", "message": Error::from(error).to_string()})),
                None => break,
            },
            _ = pings.tick() => Message::Ping(Bytes::new()),
            () = &mut let_in => {
                // The client may have gone first.
                let _ = to_client.send(last(&json!({"type": "error", "message": "Unauthorized"}))).await;
                break;
            }
        };
        // While the client takes nothing, it is looked all the same.
        let sent = tokio::select! {
            sent = to_client.send(message) => sent.is_ok(),
            () = &mut let_in => false,
        };
        if !sent {
            break;
        }
    }
    // The client may have gone first.
    let _ = to_client.close().await;
}

fn last(control: &serde_json::Value) -> Message {
    Message::Text(control.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_messages() {
        let parse = |text: &str| serde_json::from_str::<Control>(text).unwrap();
        let size = TerminalSize { cols: 100, rows: 40 };
        assert_eq!(parse(r#"{"type":"resize","cols":100,"rows":40}"#), Control::Resize(size));
        assert_eq!(parse(r#"{"type":"signal","signal":2}"#), Control::Signal { signal: 2 });
    }

    #[test]
    fn what_is_pasted_comes_through_whole() {
        let pasted = Bytes::from(vec![b'x'; 2 * FRAME_BYTES + 1]);
        let lengths: Vec<_> = pieces(pasted).map(|piece| piece.len()).collect();
        assert_eq!(lengths, [FRAME_BYTES, FRAME_BYTES, 1]);
        assert_eq!(pieces(Bytes::new()).count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_answers_nothing_has_gone() {
        let from = tokio::time::Instant::now();
        let mut silent = futures_util::stream::pending::<std::result::Result<Message, ()>>();
        assert_eq!(heard(&mut silent).await, None);
        assert_eq!(from.elapsed(), GONE_AFTER);
        let mut answers = futures_util::stream::iter([Ok::<_, ()>(Message::Pong(Bytes::new()))]);
        assert_eq!(heard(&mut answers).await, Some(Message::Pong(Bytes::new())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_asked_whether_it_is_there() {
        let (to, mut sent) = tokio::sync::mpsc::unbounded_channel();
        let to_client = futures_util::sink::unfold(to, async |to, message: Message| to.send(message).map(|()| to));
        let silent = futures_util::stream::pending();
        let asked = async { (sent.recv().await, sent.recv().await, tokio::time::Instant::now()) };
        let from = tokio::time::Instant::now();
        let (first, second, at) = tokio::select! {
            () = show(silent, Box::pin(to_client), std::future::pending()) => panic!("it ended"),
            asked = asked => asked,
        };
        assert_eq!((first, second), (Some(Message::Ping(Bytes::new())), Some(Message::Ping(Bytes::new()))));
        assert_eq!(at - from, PING_EVERY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_terminal_ends_with_what_let_its_client_in() {
        let (to, mut sent) = tokio::sync::mpsc::unbounded_channel();
        let to_client = futures_util::sink::unfold(to, async |to, message: Message| to.send(message).map(|()| to));
        let silent = futures_util::stream::pending();
        show(silent, Box::pin(to_client), tokio::time::sleep(Duration::from_secs(20))).await;
        let mut messages = Vec::new();
        while let Ok(message) = sent.try_recv() {
            messages.push(message);
        }
        let refusal = last(&json!({"type": "error", "message": "Unauthorized"}));
        assert_eq!(messages.last(), Some(&refusal), "{messages:?}");
    }
}
