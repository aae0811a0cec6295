//! Running code in a VM, to its end.
//!
//! A program is sent to the guest once. Whatever breaks afterwards is told to the caller, never mended by a second try.

use std::time::Duration;

use rds_protocol::exec::Start;
use rds_vmm::VmId;
use rds_vmm::guest::Collected;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Vms;
use super::program::{DEFAULT_TIMEOUT_MS, ExecRequest, Language, RunRequest, exec_start, run_start};
use super::record::Generations;
use super::run_log::{Broken, Draft, Running};
use crate::error::Result;
use crate::metrics;

/// How long an agent may take to tell about a program whose own time limit has passed.
const GRACE: Duration = Duration::from_secs(15);

/// What a program did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunReply {
    /// Its exit status; 128 + signal if a signal ended it; -1 at the time limit.
    pub exit_code: i32,
    /// Its standard output, at most 1,000,000 bytes; bytes that are no UTF-8 are replaced.
    pub stdout: String,
    /// Its standard error, likewise.
    pub stderr: String,
    /// Whether output was dropped for its size.
    pub truncated: bool,
    /// The JSON value that it gave to `result.set`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// What it gave to `result.error`, or its uncaught exception.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Value>,
    /// From just before its start to its end, as the guest measured it, in microseconds. Not part of the JSON.
    #[serde(skip)]
    pub duration_us: u64,
}

impl Vms {
    /// Runs a shell command to its end.
    pub async fn exec(&self, id: VmId, request: ExecRequest) -> Result<RunReply> {
        let log = Draft::of_exec(&request);
        let start = exec_start(request, self.0.limits.max_exec_timeout_ms)?;
        self.run(id, start, log, str::to_owned).await
    }

    /// Runs a module under Deno or Node.js to its end.
    pub async fn run_code(&self, id: VmId, language: Language, request: RunRequest) -> Result<RunReply> {
        let log = Draft::of_run(language, &request);
        let outbound = self.handle(id)?.live.borrow().settings.network.outbound_internet;
        let start = run_start(language, request, outbound, self.0.limits.max_runts_timeout_ms)?;
        let plain = if language == Language::Deno { without_ansi } else { str::to_owned };
        self.run(id, start, log, plain).await
    }

    /// `plain` makes output what is told of it.
    async fn run(&self, id: VmId, start: Start, log: Draft, plain: fn(&str) -> String) -> Result<RunReply> {
        let kind = log.kind();
        let ran = self.run_once(id, start, log, plain).await;
        ran.inspect_err(|error| metrics::not_run(kind, error))
    }

    #[tracing::instrument(level = "debug", name = "run", skip_all, fields(vm = %id))]
    async fn run_once(&self, id: VmId, start: Start, log: Draft, plain: fn(&str) -> String) -> Result<RunReply> {
        let limit = Duration::from_millis(start.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS)) + GRACE;
        let guest = self.guest(id).await?;
        let running = Running::begin(self, id, log)?;
        match guest.run(start, limit).await {
            Ok(run) => {
                let reply = reply_of(run, plain);
                running.exited(&reply).await;
                Ok(reply)
            }
            Err(error) => {
                if error.may_have_run() {
                    running.broke(Broken::Lost, "", "").await;
                } else {
                    running.refused();
                }
                Err(error.into())
            }
        }
    }

    /// The VM's secrets as they are now.
    pub(super) fn secrets(&self, id: VmId) -> Result<Generations> {
        Ok(self.handle(id)?.live.borrow().settings.secrets.clone())
    }
}

fn reply_of(run: Collected, plain: fn(&str) -> String) -> RunReply {
    let mut reply = RunReply {
        exit_code: run.exit.exit_code,
        stdout: plain(&String::from_utf8_lossy(&run.stdout)),
        stderr: plain(&String::from_utf8_lossy(&run.stderr)),
        truncated: run.exit.truncated,
        result: run.exit.result,
        error: run.exit.error,
        duration_us: run.exit.duration_us,
    };
    if run.exit.timed_out {
        if !reply.stderr.is_empty() && !reply.stderr.ends_with('\n') {
            reply.stderr.push('\n');
        }
        reply.stderr.push_str("Timeout exceeded");
    }
    reply
}

fn without_ansi(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_taken_out() {
        assert_eq!(without_ansi("\u{1b}[31mred\u{1b}[0m\n"), "red\n");
    }
}
