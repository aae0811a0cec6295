//! The log of what was run in a VM. It holds names of variables, never their values.

use std::sync::Arc;

use rds_peers::strike::{STRUCK, Striker, Verbatim};
use rds_vmm::VmId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::Vms;
use super::run::{ExecRequest, Language, RunReply, RunRequest};
use crate::clock;
use crate::error::{Error, Result};
use crate::secrets::SecretEnv;
use crate::store::exec_logs::ExecLogRow;

/// Bytes of each text that are kept.
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

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
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
    pub input: Value,
    /// What the program did; long texts are cut.
    pub result: Value,
    /// How long the program ran in the guest, in milliseconds.
    pub duration_ms: i64,
}

/// Newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
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
    pub(super) fn into_row(self, vm: VmId, reply: RunReply) -> Result<ExecLogRow> {
        let mut result = json!({"exitCode": reply.exit_code, "stdout": reply.stdout, "stderr": reply.stderr});
        for (field, value) in [("result", reply.result), ("error", reply.error)] {
            if let Some(value) = value {
                result[field] = value;
            }
        }
        let values = self.values.iter().map(|value| value.as_str()).filter(|value| value.len() >= SHORTEST);
        let values = Verbatim::new(values);
        let values = values.map_err(|error| Error::internal("a run has too many variables to be struck out", error))?;
        let fit = |value| {
            let struck = self.strikers.iter().fold(value, |value, striker| striker.json(value).value);
            fit(struck, &values).to_string()
        };
        Ok(ExecLogRow {
            id: Uuid::new_v4().to_string(),
            vm_id: vm.to_string(),
            timestamp: self.begun,
            kind: self.kind.as_str().into(),
            input: fit(self.input.clone()),
            result: fit(result),
            duration_ms: i64::try_from(reply.duration_us / 1000).unwrap_or(i64::MAX),
        })
    }
}

/// A value without some others, with long texts cut and absent fields left out.
fn fit(value: Value, without: &Verbatim) -> Value {
    match value {
        Value::String(text) => Value::String(fit_text(&text, without)),
        Value::Number(number) if without.is_in(&number.to_string()) => STRUCK.into(),
        Value::Array(items) => items.into_iter().map(|item| fit(item, without)).collect(),
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(_, value)| !value.is_null());
            let fitted = kept.map(|(name, value)| (fit_text(&name, without), fit(value, without)));
            Value::Object(fitted.collect::<Map<_, _>>())
        }
        other => other,
    }
}

fn fit_text(text: &str, without: &Verbatim) -> String {
    let mut text = without.text(text);
    if text.len() > KEPT_BYTES {
        text.truncate(text.floor_char_boundary(KEPT_BYTES));
        text.push('…');
    }
    text
}

impl Vms {
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
    let parse = |text: &str| serde_json::from_str(text).map_err(|error| Error::internal("a bad exec log row", error));
    Ok(ExecLogEntry {
        timestamp: clock::rfc3339(row.timestamp),
        input: parse(&row.input)?,
        result: parse(&row.result)?,
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
        let reply = RunReply {
            exit_code: 1,
            stdout: "got hunter2hunter2!".into(),
            stderr: r#"s3cr3t czNjcjN0 {"KEY":"s3cr3t\\nline"}"#.into(),
            truncated: false,
            result: Some(json!({"hunter2": ["x hunter2 y"], "n": 1, "pin": 90210})),
            error: None,
            duration_us: 1500,
        };
        let secrets = SecretEnv::parse(vec!["KEY=s3cr3t".into(), "PEM=s3cr3t\nline".into()]).unwrap();
        let striker = Arc::new(Striker::new(secrets.values()).unwrap());
        let log = Log::of_run(Language::Node, &request).without(&secrets, striker);
        let row = log.into_row(VmId::new(), reply).unwrap();
        for gone in ["s3cr3t", "czNjcjN0", "line", "hunter2", "90210"] {
            assert!(!format!("{row:?}").contains(gone), "{gone}: {row:?}");
        }
        assert!(row.input.contains(r#""env":["TOKEN","LONG","ON","PIN"]"#), "{}", row.input);
        assert_eq!((row.kind.as_str(), row.duration_ms), ("run-js", 1));
        assert!(row.result.contains(r#""n":1"#));
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let text = fit_text(&"€".repeat(KEPT_BYTES), &Verbatim::new([]).unwrap());
        assert!(text.len() <= KEPT_BYTES + 3 && text.ends_with('…'));
    }
}
