//! The log of what was run in a VM. It holds names of variables, never their values.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rds_peers::strike::{STRUCK, Striker, Verbatim};
use rds_vmm::VmId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::runtime::Handle;
use utoipa::ToSchema;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::Vms;
use super::program::{ExecRequest, Language, RunRequest};
use super::record::Generations;
use super::run::RunReply;
use crate::clock;
use crate::error::{Chain, Error, Result};
use crate::metrics;
use crate::secrets::SecretEnv;
use crate::store::exec_logs::ExecLogRow;

/// Bytes of JSON that are kept of each field: of a text its beginning; of another value nothing, if it is larger.
pub(super) const KEPT_BYTES: usize = 64 * 1024;

/// Values shorter than this are left in: they are words like `1` or `on` that stand in every output by themselves.
const SHORTEST: usize = 4;

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

/// An entry in the making.
pub(super) struct Log {
    kind: Kind,
    begun: i64,
    input: Value,
    /// Values of variables of this run, and short secrets: they are not recorded as they are.
    values: Vec<Zeroizing<String>>,
    /// Of secrets of the VM: they are recorded in no form.
    strikers: Vec<Arc<Striker>>,
}

impl Log {
    pub(super) fn of_exec(request: &ExecRequest) -> Self {
        let env = request.env.as_ref();
        let names: Vec<_> = env.into_iter().flat_map(|env| env.keys()).collect();
        let input = json!({"cmd": request.cmd, "cwd": request.cwd, "env": names, "timeoutMs": request.timeout_ms});
        Self::new(Kind::Exec, input, env.into_iter().flat_map(|env| env.values().map(String::as_str)))
    }

    pub(super) fn of_run(language: Language, request: &RunRequest) -> Self {
        let env = request.env.as_deref().unwrap_or_default();
        let (names, values): (Vec<_>, Vec<_>) = env.iter().filter_map(|entry| entry.split_once('=')).unzip();
        let flags = match language {
            Language::Deno => &request.deno_flags,
            Language::Node => &request.node_flags,
        };
        let input = json!({
            "code": request.code, "path": request.path, "args": request.args, "env": names, "flags": flags,
            "timeoutMs": request.timeout_ms,
        });
        Self::new(language.into(), input, values.into_iter())
    }

    fn new<'a>(kind: Kind, input: Value, values: impl Iterator<Item = &'a str>) -> Self {
        let values = values.map(|value| Zeroizing::new(value.to_owned())).collect();
        Self { kind, begun: clock::now_ms(), input, values, strikers: Vec::new() }
    }

    /// What was run, in the API's words.
    pub(super) fn kind(&self) -> &'static str {
        self.kind.as_str()
    }

    /// The same without secrets of the VM, in any of the forms that their striker knows.
    pub(super) fn without(mut self, secrets: &SecretEnv, striker: Arc<Striker>) -> Self {
        self.values.extend(secrets.values().map(|value| Zeroizing::new(value.to_owned())));
        self.strikers.push(striker);
        self
    }

    /// What is written down. Takes as long as the texts are long: not for the threads of the runtime.
    fn into_row(self, vm: VmId, ended: Ended) -> Result<ExecLogRow> {
        let values = self.values.iter().map(|value| value.as_str()).filter(|value| value.len() >= SHORTEST);
        let values = Verbatim::new(values);
        let values = values.map_err(|error| Error::internal("a run has too many variables to be struck out", error))?;
        let fit = |fields: Value| {
            let Value::Object(fields) = fields else { return fields.to_string() };
            let present = fields.into_iter().filter(|(_, value)| !value.is_null());
            let fitted = present.map(|(name, value)| {
                let struck = self.strikers.iter().fold(value, |value, striker| striker.json(value).value);
                (name, bounded(fit(struck, &values)))
            });
            Value::Object(fitted.collect::<Map<_, _>>()).to_string()
        };
        Ok(ExecLogRow {
            id: Uuid::new_v4().to_string(),
            vm_id: vm.to_string(),
            timestamp: self.begun,
            kind: self.kind.as_str().into(),
            input: fit(self.input.clone()),
            result: fit(ended.result),
            duration_ms: i64::try_from(ended.duration.as_millis()).unwrap_or(i64::MAX),
        })
    }
}

/// How a run ended.
struct Ended {
    /// The entry's `result`.
    result: Value,
    duration: Duration,
}

/// A value without some others, and absent fields left out.
fn fit(value: Value, without: &Verbatim) -> Value {
    match value {
        Value::String(text) => Value::String(without.text(&text)),
        Value::Number(number) if without.is_in(&number.to_string()) => STRUCK.into(),
        Value::Array(items) => items.into_iter().map(|item| fit(item, without)).collect(),
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(_, value)| !value.is_null());
            let fitted = kept.map(|(name, value)| (without.text(&name), fit(value, without)));
            Value::Object(fitted.collect::<Map<_, _>>())
        }
        other => other,
    }
}

/// A value whose JSON is not much longer than [`KEPT_BYTES`].
fn bounded(value: Value) -> Value {
    if let Value::String(text) = value {
        return Value::String(cut(text));
    }
    let bytes = value.to_string().len();
    if bytes > KEPT_BYTES { format!("[left out: {bytes} bytes]").into() } else { value }
}

/// As much of a text as [`KEPT_BYTES`] of JSON hold.
fn cut(mut text: String) -> String {
    let mut bytes = 0;
    let end = text.char_indices().find(|(_, character)| {
        bytes += match character {
            '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
            '\0'..='\u{1f}' => 6,
            other => other.len_utf8(),
        };
        bytes > KEPT_BYTES
    });
    if let Some((end, _)) = end {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// The entry of a run that has begun. Dropped before the end, it is written down as that of a cancelled run.
pub(super) struct Running {
    vms: Vms,
    vm: VmId,
    /// Until it is written.
    log: Option<Log>,
    begun: Instant,
    /// The VM's secrets when the run began.
    began_with: Generations,
}

impl Running {
    pub(super) fn begin(vms: &Vms, vm: VmId, log: Log) -> Result<Self> {
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
    async fn write_log(&self, id: VmId, mut log: Log, began_with: Generations, ended: Ended) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_variables_are_not_recorded_wherever_they_turn_up() {
        let request = RunRequest {
            code: Some("fetch('hunter2hunter2')".into()),
            env: Some(vec!["TOKEN=hunter2".into(), "LONG=hunter2hunter2".into(), "ON=1".into(), "PIN=90210".into()]),
            ..RunRequest::default()
        };
        let result = json!({
            "exitCode": 1, "stdout": "got hunter2hunter2!", "stderr": r#"s3cr3t czNjcjN0 {"KEY":"s3cr3t\\nline"}"#,
            "result": {"hunter2": ["x hunter2 y"], "n": 1, "pin": 90210}, "error": null,
        });
        let ended = Ended { result, duration: Duration::from_micros(1500) };
        let secrets = SecretEnv::parse(vec!["KEY=s3cr3t".into(), "PEM=s3cr3t\nline".into()]).unwrap();
        let striker = Arc::new(Striker::new(secrets.values()).unwrap());
        let log = Log::of_run(Language::Node, &request).without(&secrets, striker);
        let row = log.into_row(VmId::new(), ended).unwrap();
        for gone in ["s3cr3t", "czNjcjN0", "line", "hunter2", "90210"] {
            assert!(!format!("{row:?}").contains(gone), "{gone}: {row:?}");
        }
        assert!(row.input.contains(r#""env":["TOKEN","LONG","ON","PIN"]"#), "{}", row.input);
        assert_eq!((row.kind.as_str(), row.duration_ms), ("run-js", 1));
        assert!(row.result.contains(r#""n":1"#));
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        for text in ["€".repeat(KEPT_BYTES), "\0\"\n\u{7f}".repeat(KEPT_BYTES)] {
            let cut = bounded(text.clone().into()).to_string();
            assert!(cut.len() <= KEPT_BYTES + "\"\"…".len() && cut.len() > KEPT_BYTES - 6, "{}", cut.len());
            assert!(cut.ends_with("…\""));
        }
        assert_eq!(bounded("x".repeat(KEPT_BYTES).into()), "x".repeat(KEPT_BYTES));
    }

    #[test]
    fn what_a_program_returns_takes_bounded_room() {
        let request = RunRequest { args: Some(vec!["x".repeat(1000); 1000]), ..RunRequest::default() };
        let long = "\0".repeat(1_000_000);
        let result = json!({
            "exitCode": 0, "stdout": long, "stderr": long, "result": vec![1; 2_000_000], "error": {"m": long},
        });
        let ended = Ended { result, duration: Duration::ZERO };
        let row = Log::of_run(Language::Deno, &request).into_row(VmId::new(), ended).unwrap();
        assert!(row.result.len() < 3 * KEPT_BYTES && row.input.len() < KEPT_BYTES);
        let result: Value = serde_json::from_str(&row.result).unwrap();
        assert_eq!((&result["exitCode"], &result["result"]), (&json!(0), &json!("[left out: 4000001 bytes]")));
        assert!(result["stdout"].as_str().unwrap().starts_with('\0'));
    }
}
