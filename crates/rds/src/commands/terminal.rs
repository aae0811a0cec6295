//! A terminal in a VM: this terminal in raw mode at one end of a WebSocket, the guest's at the other.

use std::convert::Infallible;
use std::io::{IsTerminal, Read};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use rustix::termios::{self, OptionalActions, Termios, Winsize};
use serde::Deserialize;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};

use super::exec::exit_code;
use crate::api::{ErrorBody, Exit};
use crate::client::Client;
use crate::error::CliError;
use crate::output;
use crate::signals::Ending;

/// The size that a terminal without one has.
const DEFAULT_SIZE: (u16, u16) = (80, 24);

/// Between two signs of life for the server.
const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// What a terminal takes for the end of its input.
const END_OF_INPUT: u8 = 4;

/// Runs a command, or a shell, in a terminal of the VM and gives its exit code.
pub(crate) async fn run(client: &Client, id: &str, cmd: Option<String>) -> Result<u8, CliError> {
    let request = request(client, id, cmd)?;
    let (socket, _) = connect_async(request).await.map_err(|error| refused(client, error))?;
    let (to_guest, from_guest) = socket.split();
    let mut ending = Ending::listen()?; // a signal must not leave this terminal raw
    let resized = signal(SignalKind::window_change()).map_err(CliError::file("terminal"))?;
    let _raw = RawMode::enter()?;
    // Each goes on while the other waits: the guest may take no more keys until somebody reads what it shows.
    tokio::select! {
        code = ending.or(show(from_guest)) => code,
        never = send(to_guest, keyboard(), resized) => match never {},
    }
}

/// Shows what the guest sends until its program has ended; gives the exit code.
async fn show(mut from_guest: impl Stream<Item = tungstenite::Result<Message>> + Unpin) -> Result<u8, CliError> {
    loop {
        match from_guest.next().await {
            Some(Ok(Message::Binary(bytes))) => {
                // Not on this thread: while nobody reads on, as in a pager, all else goes on.
                let written = tokio::task::spawn_blocking(move || output::pass(output::Stream::Out, &bytes));
                written.await.map_err(|error| CliError::Failed(error.to_string()))??;
            }
            other => {
                if let Some(code) = incoming(other)? {
                    return Ok(code);
                }
            }
        }
    }
}

/// Sends what is typed, how large the terminal is, and a sign of life now and then: pings are not seen while nobody reads
/// what the guest shows, and the server takes a silent client for gone. If that fails,
/// whoever reads learns why.
async fn send(
    mut to_guest: impl Sink<Message> + Unpin,
    mut keys: mpsc::Receiver<Vec<u8>>,
    mut resized: Signal,
) -> Infallible {
    let mut alive = tokio::time::interval(ALIVE_EVERY);
    let mut reading = true;
    loop {
        let outgoing = tokio::select! {
            key = keys.recv(), if reading => match key {
                Some(bytes) => Message::binary(bytes),
                None => {
                    reading = false;
                    continue;
                }
            },
            _ = alive.tick() => Message::Pong(Bytes::new()),
            _ = resized.recv() => {
                let (cols, rows) = size();
                Message::text(json!({"type": "resize", "cols": cols, "rows": rows}).to_string())
            }
        };
        if to_guest.send(outgoing).await.is_err() {
            return std::future::pending().await;
        }
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

/// The server's last message.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase", tag = "type")]
enum Last {
    Exit(Exit),
    Error(ErrorBody),
}

/// What a message beside the screen says; the exit code with the last one.
fn incoming(message: Option<tungstenite::Result<Message>>) -> Result<Option<u8>, CliError> {
    match message {
        Some(Ok(Message::Text(text))) => match serde_json::from_str(&text) {
            Ok(Last::Exit(exit)) => Ok(Some(exit_code(exit.exit_code, exit.timed_out))),
            Ok(Last::Error(error)) => Err(CliError::Lost(error.message.unwrap_or_else(|| "the VM was lost".into()))),
            Err(_) => Ok(None), // of a newer server
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
            let said: ErrorBody = serde_json::from_slice(body).unwrap_or_default();
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
        let piped = !std::io::stdin().is_terminal();
        let pass = |bytes: Vec<u8>| to.blocking_send(bytes);
        let mut buffer = [0; 4096];
        let mut last = b'\n';
        while let Ok(count @ 1..) = std::io::stdin().read(&mut buffer) {
            let bytes: Vec<u8> = buffer.iter().take(count).copied().collect();
            last = bytes.last().copied().unwrap_or(last);
            if pass(bytes).is_err() {
                return;
            }
        }
        if piped {
            let _ = pass(end_of_input(last)); // the terminal may be gone
        }
    });
    from
}

/// What ends the input after this byte: within a line, the first one only hands over what there is of it.
fn end_of_input(last: u8) -> Vec<u8> {
    vec![END_OF_INPUT; if last == b'\n' { 1 } else { 2 }]
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

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: &str) -> Result<Option<u8>, CliError> {
        incoming(Some(Ok(Message::text(json))))
    }

    #[test]
    fn the_last_message_is_told() {
        assert_eq!(text(r#"{"type":"exit","exitCode":7}"#).unwrap(), Some(7));
        let error = text(r#"{"type":"error","message":"the VM has gone"}"#).unwrap_err();
        assert!(matches!(&error, CliError::Lost(words) if words == "the VM has gone"), "{error}");
        assert_eq!(text(r#"{"type":"new"}"#).unwrap(), None);
    }

    #[test]
    fn piped_input_ends_wherever_its_last_line_does() {
        assert_eq!(end_of_input(b'\n'), [4]);
        assert_eq!(end_of_input(b'x'), [4, 4]);
    }

    #[tokio::test]
    async fn what_cannot_be_sent_does_not_hold_up_what_is_shown() {
        let (to, keys) = mpsc::channel(1);
        to.send(b"keys".to_vec()).await.unwrap();
        let stuck = futures_util::sink::unfold((), |(), _: Message| std::future::pending::<Result<(), ()>>());
        let resized = signal(SignalKind::window_change()).unwrap();
        let exit = futures_util::stream::iter([Ok(Message::text(r#"{"type":"exit","exitCode":0}"#))]);
        let shown = tokio::select! {
            never = send(Box::pin(stuck), keys, resized) => match never {},
            code = show(exit) => code,
        };
        assert_eq!(shown.unwrap(), 0);
    }
}
