//! `/v1/vms/{id}/pty`: a terminal over a WebSocket.
//!
//! Binary messages are the terminal's bytes, both ways. Text messages are JSON: from the client
//! `{"type":"resize","cols":80,"rows":24}` and `{"type":"signal","signal":2}`, from the server `{"type":"exit","exitCode":0}`
//! and `{"type":"error","message":"…"}`, the last one. Closing the socket kills what runs in the terminal.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade, rejection::WebSocketUpgradeRejection};
use axum::response::Response;
use futures_util::{SinkExt, StreamExt};
use rds_protocol::exec::{AgentFrame, ClientFrame, TerminalSize};
use rds_protocol::limits::FRAME_BYTES;
use rds_vmm::guest::{ExecSender, ExecStream};
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

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
    Path(id): Path<String>,
    Query(query): Query<PtyQuery>,
    upgrade: std::result::Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response> {
    let id = vm_id(&id)?;
    let upgrade = upgrade.map_err(|_| Error::invalid("A terminal needs a WebSocket handshake"))?;
    let size = TerminalSize { cols: query.cols.unwrap_or(80).max(1), rows: query.rows.unwrap_or(24).max(1) };
    let (input, output, in_use) = app.vms.terminal(id, size, query.cmd).await?;
    let upgrade = upgrade.max_message_size(FRAME_BYTES).max_frame_size(FRAME_BYTES);
    Ok(upgrade.on_upgrade(|socket| async move {
        carry(socket, input, output).await;
        drop(in_use);
    }))
}

/// Carries bytes both ways until either side ends. What is dropped then kills the program.
async fn carry(socket: WebSocket, input: ExecSender, mut output: ExecStream) {
    let (mut to_client, mut from_client) = socket.split();
    let keys = async {
        while let Some(Ok(message)) = from_client.next().await {
            let frame = match message {
                Message::Binary(data) => ClientFrame::Stdin(data),
                Message::Text(text) => match serde_json::from_str(&text) {
                    Ok(Control::Resize(size)) => ClientFrame::Resize(size),
                    Ok(Control::Signal { signal }) => ClientFrame::Signal(signal),
                    Err(_) => continue,
                },
                Message::Close(_) => break,
                Message::Ping(_) | Message::Pong(_) => continue,
            };
            if input.send(&frame).await.is_err() {
                break;
            }
        }
    };
    let screen = async {
        while let Some(frame) = output.next().await {
            let message = match frame {
                Ok(AgentFrame::Stdout(data) | AgentFrame::Stderr(data)) => Message::Binary(data),
                Ok(AgentFrame::Exit(exit)) => last(&json!({"type": "exit", "exitCode": exit.exit_code})),
                Err(error) => last(&json!({"type": "error", "message": Error::from(error).to_string()})),
            };
            if to_client.send(message).await.is_err() {
                break;
            }
        }
        // The client may have gone first.
        let _ = to_client.close().await;
    };
    tokio::select! {
        () = keys => {}
        () = screen => {}
    }
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
}
