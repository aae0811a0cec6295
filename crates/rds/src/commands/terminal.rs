//! A terminal in a VM: this terminal in raw mode at one end of a WebSocket, the guest's at the other.

use std::io::{IsTerminal, Read, Write};

use futures_util::{SinkExt, StreamExt};
use rustix::termios::{self, OptionalActions, Termios, Winsize};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};

use super::exec::exit_code;
use crate::api::Exit;
use crate::client::Client;
use crate::error::CliError;

/// The size that a terminal without one has.
const DEFAULT_SIZE: (u16, u16) = (80, 24);

/// Runs a command, or a shell, in a terminal of the VM and gives its exit code.
pub(crate) async fn run(client: &Client, id: &str, cmd: Option<String>) -> Result<u8, CliError> {
    let request = request(client, id, cmd)?;
    let (socket, _) = connect_async(request).await.map_err(|error| refused(client, error))?;
    let (mut to_guest, mut from_guest) = socket.split();
    let _raw = RawMode::enter()?;
    let mut keys = keyboard();
    let mut resized = signal(SignalKind::window_change()).map_err(CliError::file("terminal"))?;
    let mut reading = true;
    loop {
        let outgoing = tokio::select! {
            message = from_guest.next() => match incoming(message)? {
                Some(code) => return Ok(code),
                None => continue,
            },
            key = keys.recv(), if reading => match key {
                Some(bytes) => Message::binary(bytes),
                None => {
                    reading = false;
                    continue;
                }
            },
            _ = resized.recv() => {
                let (cols, rows) = size();
                Message::text(json!({"type": "resize", "cols": cols, "rows": rows}).to_string())
            }
        };
        to_guest.send(outgoing).await.map_err(|error| lost(&error))?;
    }
}

fn request(
    client: &Client,
    id: &str,
    cmd: Option<String>,
) -> Result<tungstenite::handshake::client::Request, CliError> {
    let mut url = client.url(&["v1", "vms", id, "pty"]);
    let _ = url.set_scheme("ws"); // http and ws are of one kind, so this cannot fail
    let (cols, rows) = size();
    url.query_pairs_mut().append_pair("cols", &cols.to_string()).append_pair("rows", &rows.to_string());
    if let Some(cmd) = cmd {
        url.query_pairs_mut().append_pair("cmd", &cmd);
    }
    let mut request = url.as_str().into_client_request().map_err(|error| CliError::Usage(error.to_string()))?;
    if let Some(key) = client.key() {
        let key = key.parse().map_err(|_| CliError::Usage("the API key is no header value".into()))?;
        request.headers_mut().insert("x-api-key", key);
    }
    Ok(request)
}

/// Shows what the guest sent; gives the exit code with its last message.
fn incoming(message: Option<tungstenite::Result<Message>>) -> Result<Option<u8>, CliError> {
    match message {
        Some(Ok(Message::Binary(bytes))) => {
            let mut out = std::io::stdout();
            let _ = out.write_all(&bytes).and_then(|()| out.flush());
            Ok(None)
        }
        Some(Ok(Message::Text(text))) => match serde_json::from_str::<Exit>(&text) {
            Ok(exit) => Ok(Some(exit_code(exit.exit_code, exit.timed_out))),
            Err(_) => Ok(None),
        },
        Some(Ok(Message::Close(_))) | None => {
            Err(CliError::Lost("the server closed the terminal before its program ended".into()))
        }
        Some(Ok(_)) => Ok(None),
        Some(Err(error)) => Err(lost(&error)),
    }
}

fn lost(error: &tungstenite::Error) -> CliError {
    CliError::Lost(format!("the terminal was lost: {error}"))
}

fn refused(client: &Client, error: tungstenite::Error) -> CliError {
    match error {
        tungstenite::Error::Http(reply) => {
            let body = reply.body().as_deref().unwrap_or_default();
            let said: crate::api::ErrorBody = serde_json::from_slice(body).unwrap_or_default();
            let status = reply.status().as_u16();
            let message = said.message.unwrap_or_else(|| format!("the server answered {status}"));
            CliError::Refused { status, message, request_id: said.request_id }
        }
        other => CliError::Unreachable { url: client.base().to_string(), reason: other.to_string() },
    }
}

/// What is typed, from a thread of its own: a read of a terminal cannot be called off.
fn keyboard() -> mpsc::Receiver<Vec<u8>> {
    let (to, from) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = std::io::stdin().read(&mut buffer) {
            if to.blocking_send(buffer.iter().take(count).copied().collect()).is_err() {
                break;
            }
        }
    });
    from
}

fn size() -> (u16, u16) {
    match termios::tcgetwinsize(std::io::stdout()) {
        Ok(Winsize { ws_col: cols @ 1.., ws_row: rows @ 1.., .. }) => (cols, rows),
        _ => DEFAULT_SIZE,
    }
}

/// The terminal in raw mode while this lives; nothing if standard input is no terminal.
struct RawMode {
    before: Option<Termios>,
}

impl RawMode {
    fn enter() -> Result<Self, CliError> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok(Self { before: None });
        }
        let failed = |error: rustix::io::Errno| CliError::file("terminal")(error.into());
        let before = termios::tcgetattr(&stdin).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(&stdin, OptionalActions::Flush, &raw).map_err(failed)?;
        Ok(Self { before: Some(before) })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Flush, before);
        }
    }
}
