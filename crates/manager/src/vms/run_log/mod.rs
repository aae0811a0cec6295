//! The log of what was run in a VM. It holds names of variables, never their values.

mod draft;

use std::time::{Duration, Instant};

use rds_vmm::VmId;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::runtime::Handle;
use utoipa::ToSchema;

use draft::Ended;
pub(super) use draft::{BEYOND_BYTES, Draft, KEPT_BYTES};

use super::Vms;
use super::program::Language;
use super::record::Generations;
use super::run::RunReply;
use crate::clock;
use crate::error::{Chain, Error, Result};
use crate::metrics;
use crate::store::exec_logs::ExecLogRow;

/// What was run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A shell command.
    Exec,
    /// A module under Deno.
    RunTs,
    /// A module under Node.js.
    RunJs,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::RunTs => "run-ts",
            Self::RunJs => "run-js",
        }
    }
}

impl From<Language> for Kind {
    fn from(language: Language) -> Self {
        match language {
            Language::Deno => Self::RunTs,
            Language::Node => Self::RunJs,
        }
    }
}

/// One run.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecLogEntry {
    /// UUID.
    pub id: String,
    /// When it began (RFC 3339).
    #[schema(format = DateTime)]
    pub timestamp: String,
    /// `exec`, `run-ts` or `run-js`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What was asked; of variables their names.
    #[schema(value_type = Value)]
    pub input: Box<RawValue>,
    /// What the program did: `exitCode`, `stdout`, `stderr`, `result`, `error`. Long texts are cut, and values beyond 64 KiB
    /// left out. Of a run that did not end in front of its client `outcome` says `cancelled` or `lost` instead of `exitCode`.
    #[schema(value_type = Value)]
    pub result: Box<RawValue>,
    /// How long the program ran in the guest, in milliseconds.
    pub duration_ms: i64,
}

/// Newest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecLogs {
    /// The entries.
    pub entries: Vec<ExecLogEntry>,
    /// Whether there are older ones.
    pub has_more: bool,
}

/// The entry of a run that has begun. Dropped before the end, it is written down as that of a cancelled run.
pub(super) struct Running {
    vms: Vms,
    vm: VmId,
    /// Until it is written.
    log: Option<Draft>,
    begun: Instant,
    /// The VM's secrets when the run began.
    began_with: Generations,
}

impl Running {
    pub(super) fn begin(vms: &Vms, vm: VmId, log: Draft) -> Result<Self> {
        let began_with = vms.secrets(vm)?;
        Ok(Self { vms: vms.clone(), vm, log: Some(log), begun: Instant::now(), began_with })
    }

    /// The program ended.
    pub(super) async fn exited(mut self, reply: &RunReply) {
        let duration = Duration::from_micros(reply.duration_us);
        if let Some(log) = &self.log {
            metrics::ran(log.kind(), reply.exit_code, duration);
        }
        let result = json!({
            "exitCode": reply.exit_code, "stdout": reply.stdout, "stderr": reply.stderr,
            "result": reply.result, "error": reply.error,
        });
        self.write(Ended { result, duration }).await;
    }

    /// Nobody knows how the program ended, or whether it did; this is what it had written.
    pub(super) async fn broke(mut self, outcome: Broken, stdout: &str, stderr: &str) {
        let result = json!({"outcome": outcome.as_str(), "stdout": stdout, "stderr": stderr});
        let duration = self.begun.elapsed();
        self.write(Ended { result, duration }).await;
    }

    /// The program was certainly never started.
    pub(super) fn refused(mut self) {
        self.log = None;
    }

    /// Writes in a task of its own: whoever waits for a run may go at any time.
    fn write(&mut self, ended: Ended) -> impl Future<Output = ()> + use<> {
        let task = self.log.take().zip(Handle::try_current().ok()).map(|(log, runtime)| {
            let (vms, vm, began_with) = (self.vms.clone(), self.vm, self.began_with.clone());
            runtime.spawn(async move { vms.write_log(vm, log, began_with, ended).await })
        });
        async move {
            if let Some(task) = task {
                // What went wrong is in the server's log.
                let _ = task.await;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(log) = &self.log else { return };
        metrics::run_abandoned(log.kind());
        let result = json!({"outcome": Broken::Cancelled.as_str()});
        let duration = self.begun.elapsed();
        drop(self.write(Ended { result, duration }));
    }
}

/// How a run ended that did not end in front of its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// The client went.
    Cancelled,
    /// The guest did.
    Lost,
}

impl Broken {
    fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
        }
    }
}

impl Vms {
    /// Writes a run down, without the secrets that the VM may have and those that it may have had when the program began.
    async fn write_log(&self, id: VmId, mut log: Draft, began_with: Generations, ended: Ended) {
        let written = async {
            let (host, now) = (&self.0.host, self.secrets(id)?);
            let earlier = began_with.all().filter(|sealed| now.all().all(|known| known != *sealed));
            for sealed in now.all().chain(earlier) {
                log = log.without(&sealed.open(host.sealer.as_deref(), id)?, host.peers.striker(id, sealed).await?);
            }
            let row = tokio::task::spawn_blocking(move || log.into_row(id, ended)).await;
            let row = row.map_err(|error| Error::internal("the task that strikes secrets out ended", error))??;
            host.store.add_exec_log(&row).await
        };
        match written.await {
            Ok(()) => {}
            // Its log goes with a VM.
            Err(Error::NotFound(_) | Error::Conflict(_)) => tracing::debug!(vm = %id, "the VM of a run is gone"),
            Err(error) => tracing::error!(vm = %id, error = %Chain(&error), "cannot write an exec log down"),
        }
    }

    /// The newest runs in a VM, newest first.
    pub async fn exec_logs(&self, id: VmId, kind: Option<Kind>, limit: u32) -> Result<ExecLogs> {
        self.handle(id)?;
        let rows = self.0.host.store.exec_logs(&id.to_string(), kind.map(Kind::as_str), i64::from(limit) + 1).await?;
        let has_more = rows.len() > limit as usize;
        let entries = rows.into_iter().take(limit as usize).map(entry).collect::<Result<_>>()?;
        Ok(ExecLogs { entries, has_more })
    }
}

fn entry(row: ExecLogRow) -> Result<ExecLogEntry> {
    let json = |text| RawValue::from_string(text).map_err(|error| Error::internal("a bad exec log row", error));
    Ok(ExecLogEntry {
        timestamp: clock::rfc3339(row.timestamp),
        input: json(row.input)?,
        result: json(row.result)?,
        id: row.id,
        kind: row.kind,
        duration_ms: row.duration_ms,
    })
}
