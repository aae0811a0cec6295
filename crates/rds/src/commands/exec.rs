//! `rds exec`: a command in a VM, its output as it comes, its exit code as this process's.

use std::collections::BTreeMap;

use clap::Args;
use futures_util::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};

use super::terminal;
use crate::api::{Exit, RunResult};
use crate::cli::Shared;
use crate::client::Client;
use crate::error::CliError;
use crate::output::{self, Stream};
use crate::sse::{Event, Events};

/// Exit code at the time limit, as that of timeout(1).
pub(crate) const TIMED_OUT: u8 = 124;

/// What is told where the server says `truncated`.
pub(crate) const TRUNCATED: &str = "rds: the program wrote more; it was dropped";

/// A command to run.
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Give the command a terminal, with this one's keyboard
    #[arg(short = 't', long)]
    tty: bool,
    /// Together with -t, as other tools want it
    #[arg(short = 'i', long, requires = "tty")]
    interactive: bool,
    /// Working directory [default: /workspace]
    #[arg(short = 'w', long, value_name = "DIR", conflicts_with = "tty")]
    cwd: Option<String>,
    /// Variable; may be repeated
    #[arg(short, long = "env", value_name = "KEY=VALUE", conflicts_with = "tty", value_parser = variable)]
    env: Vec<(String, String)>,
    /// Time limit in milliseconds [default: the server's]
    #[arg(long, value_name = "MS", conflicts_with = "tty")]
    timeout: Option<u64>,
    /// The VM: its id, the beginning of its id, or its name
    vm: String,
    /// The command and its arguments; a single word with spaces is a shell command line
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Reads `KEY=VALUE`.
pub(crate) fn variable(text: &str) -> Result<(String, String), String> {
    text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or("not KEY=VALUE".to_owned())
}

impl Exec {
    /// Does it.
    pub(crate) async fn run(self, shared: &Shared) -> Result<u8, CliError> {
        let client = shared.client()?;
        let id = client.find_vm(&self.vm).await?;
        if self.tty {
            return terminal::run(&client, &id, self.command_line()).await;
        }
        let Some(cmd) = self.command_line() else {
            return Err(CliError::Usage("which command? Write it after `--`, or use -it for a shell".into()));
        };
        let env: BTreeMap<String, String> = self.env.into_iter().collect();
        let mut body = json!({"cmd": cmd, "env": env});
        if let Some(cwd) = self.cwd {
            body["cwd"] = json!(cwd);
        }
        if let Some(timeout) = self.timeout {
            body["timeoutMs"] = json!(timeout);
        }
        if shared.json {
            let result: RunResult = client.post_vm(&id, "exec", &body).await.map_err(CliError::of_a_run)?;
            output::json(&result);
            return Ok(exit_code(result.exit_code, result.exit_code == -1));
        }
        stream(&client, &id, &body).await
    }

    /// The shell command line that the words after `--` make: one word as it is, several quoted.
    pub(crate) fn command_line(&self) -> Option<String> {
        match self.command.as_slice() {
            [] => None,
            [line] => Some(line.clone()),
            words => Some(words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")),
        }
    }
}

/// One word for a POSIX shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The exit code of this process for one of the guest.
pub(crate) fn exit_code(code: i32, timed_out: bool) -> u8 {
    let [low, ..] = code.to_le_bytes();
    if timed_out { TIMED_OUT } else { low }
}

async fn stream(client: &Client, id: &str, body: &Value) -> Result<u8, CliError> {
    let request = client.request(Method::POST, &["v1", "vms", id, "exec", "stream"]).json(body);
    let mut pieces = client.send(request).await.map_err(CliError::of_a_run)?.bytes_stream();
    let mut events = Events::default();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| client.transport(&error).of_a_run())?;
        for event in events.push(&piece) {
            if let Some(code) = show(&event)? {
                return Ok(code);
            }
        }
    }
    Err(CliError::Lost("the server closed the stream before the command ended".into()))
}

/// Shows what an event says; gives the exit code with the last one.
fn show(event: &Event) -> Result<Option<u8>, CliError> {
    let unreadable = |error: serde_json::Error| CliError::Answer(error.to_string());
    match event.name.as_str() {
        "stdout" | "stderr" => {
            let stream = if event.name == "stdout" { Stream::Out } else { Stream::Err };
            let text: String = serde_json::from_str(&event.data).map_err(unreadable)?;
            output::pass(stream, text.as_bytes())?; // a failure closes the connection, which ends the program
        }
        "exit" => {
            let exit: Exit = serde_json::from_str(&event.data).map_err(unreadable)?;
            if exit.truncated {
                output::note(TRUNCATED);
            }
            return Ok(Some(exit_code(exit.exit_code, exit.timed_out)));
        }
        "error" => {
            let error: crate::api::ErrorBody = serde_json::from_str(&event.data).map_err(unreadable)?;
            return Err(CliError::Lost(error.message.unwrap_or_else(|| "the VM was lost".into())));
        }
        _ => {}
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_guest_as_they_are() {
        assert_eq!(quoted("-la"), "-la");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted("$(id)"), "'$(id)'");
    }

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        assert_eq!(exit_code(0, false), 0);
        assert_eq!(exit_code(137, false), 137);
        assert_eq!(exit_code(-1, true), TIMED_OUT);
    }
}
