//! Programs whose output is handed out as it comes: streamed commands and terminals.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use rds_protocol::exec::{AgentFrame, Exit, Program, Start, Stdin, TerminalSize};
use rds_vmm::VmId;
use rds_vmm::guest::{ExecSender, ExecStream};
use tokio::sync::mpsc;

use super::Vms;
use super::program::{ExecRequest, exec_start, word};
use super::run::RunReply;
use super::run_log::{BEYOND_BYTES, Broken, Draft, KEPT_BYTES, Running};
use crate::error::{Error, Result};
use crate::metrics;

/// How long an agent may take to say that a program without a time limit has started.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Events of a streamed run that wait for a slow reader; then the program waits.
const EVENTS: usize = 16;

/// A part of a streamed run.
#[derive(Debug, Clone, PartialEq)]
pub enum RunEvent {
    /// Text of standard output.
    Stdout(String),
    /// Text of standard error.
    Stderr(String),
    /// The end.
    Exit(Exit),
    /// The program was lost.
    Lost(String),
}

impl Vms {
    /// Runs a shell command and hands out what it writes as it comes. Dropping the receiver kills the program.
    pub async fn exec_stream(&self, id: VmId, request: ExecRequest) -> Result<mpsc::Receiver<RunEvent>> {
        let log = Draft::of_exec(&request);
        let mut start = exec_start(request, self.0.limits.max_exec_timeout_ms)?;
        start.output_limit = None;
        let guest = self.guest(id).await?;
        let (kind, running) = (log.kind(), Running::begin(self, id, log)?);
        let (sender, frames) = match guest.exec(start, START_LIMIT).await {
            Ok(started) => started,
            Err(error) if error.may_have_run() => {
                running.broke(Broken::Lost, "", "").await;
                return Err(error.into());
            }
            Err(error) => {
                running.refused();
                return Err(error.into());
            }
        };
        let (events, receiver) = mpsc::channel(EVENTS);
        tokio::spawn(async move {
            let (mut stdout, mut stderr) = (Text::default(), Text::default());
            match forward(frames, &events, &mut stdout, &mut stderr).await {
                Ok(reply) => running.exited(&reply).await,
                Err(outcome) => {
                    metrics::run_abandoned(kind);
                    running.broke(outcome, &stdout.kept, &stderr.kept).await;
                }
            }
            // They were kept so that the program is alive, and the VM in use, as long as somebody listens.
            drop((sender, guest));
        });
        Ok(receiver)
    }

    /// Opens a terminal with a shell, or with a command line. Dropping both ends kills what runs in it. The VM is in use
    /// until the last part is dropped.
    pub async fn terminal(
        &self,
        id: VmId,
        size: TerminalSize,
        cmd: Option<String>,
    ) -> Result<(ExecSender, ExecStream, impl Send + 'static)> {
        let cmd = cmd.unwrap_or_else(|| "exec \"$SHELL\" -i".into());
        let start = Start {
            program: Program::Shell { cmd: word("cmd", cmd)? },
            cwd: None,
            env: BTreeMap::from([("TERM".into(), "xterm-256color".into())]),
            timeout_ms: None,
            stdin: Stdin::Terminal(size),
            output_limit: None,
        };
        let guest = self.guest(id).await?;
        let (sender, frames) = guest.exec(start, START_LIMIT).await?;
        Ok((sender, frames, guest))
    }
}

/// Passes a program's output on until it ends; what is kept of it for the log, if it ended.
async fn forward(
    mut frames: ExecStream,
    events: &mpsc::Sender<RunEvent>,
    stdout: &mut Text,
    stderr: &mut Text,
) -> Result<RunReply, Broken> {
    loop {
        let frame = tokio::select! {
            frame = frames.next() => frame.ok_or(Broken::Lost)?,
            // Nobody listens any more: what is dropped here kills the program.
            () = events.closed() => return Err(Broken::Cancelled),
        };
        let event = match frame {
            Ok(AgentFrame::Stdout(data)) => RunEvent::Stdout(stdout.push(&data)),
            Ok(AgentFrame::Stderr(data)) => RunEvent::Stderr(stderr.push(&data)),
            Ok(AgentFrame::Exit(exit)) => {
                for last in [RunEvent::Stdout(stdout.flush()), RunEvent::Stderr(stderr.flush())] {
                    let _ = events.send(last).await;
                }
                let reply = RunReply {
                    exit_code: exit.exit_code,
                    stdout: std::mem::take(&mut stdout.kept),
                    stderr: std::mem::take(&mut stderr.kept),
                    truncated: exit.truncated,
                    result: None,
                    error: None,
                    duration_us: exit.duration_us,
                };
                let _ = events.send(RunEvent::Exit(*exit)).await;
                return Ok(reply);
            }
            Err(error) => {
                // Whoever listened may have gone, too.
                let _ = events.send(RunEvent::Lost(Error::from(error).to_string())).await;
                return Err(Broken::Lost);
            }
        };
        events.send(event).await.map_err(|_| Broken::Cancelled)?;
    }
}

/// Bytes on their way to being text: a character that is cut in two waits for its rest.
#[derive(Default)]
struct Text {
    rest: Vec<u8>,
    /// The beginning, for the log.
    kept: String,
}

impl Text {
    fn push(&mut self, data: &[u8]) -> String {
        self.rest.extend_from_slice(data);
        let whole = match std::str::from_utf8(&self.rest) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            // Whole text, or bytes that no rest makes text.
            _ => self.rest.len(),
        };
        self.take(whole)
    }

    fn flush(&mut self) -> String {
        self.take(self.rest.len())
    }

    fn take(&mut self, bytes: usize) -> String {
        let rest = self.rest.split_off(bytes);
        let text = String::from_utf8_lossy(&std::mem::replace(&mut self.rest, rest)).into_owned();
        if self.kept.len() < KEPT_BYTES + BEYOND_BYTES {
            self.kept.push_str(&text);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_never_cut() {
        let mut text = Text::default();
        let mut seen = String::new();
        for byte in "aé€😀".bytes() {
            seen.push_str(&text.push(&[byte]));
        }
        seen.push_str(&text.push(b"\xff!"));
        seen.push_str(&text.push(b"\xe2\x82"));
        seen.push_str(&text.flush());
        assert_eq!(seen, "aé€😀\u{fffd}!\u{fffd}");
    }
}
