//! What is written down of a run: cut, and without secrets.

use std::sync::Arc;
use std::time::Duration;

use rds_peers::strike::{STRUCK, Striker, Verbatim};
use rds_vmm::VmId;
use serde_json::{Map, Value, json};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::Kind;
use crate::clock;
use crate::error::{Error, Result};
use crate::secrets::SecretEnv;
use crate::store::exec_logs::ExecLogRow;
use crate::vms::program::{ExecRequest, Language, RunRequest};

/// Bytes of JSON that are kept of each field: of a text its beginning; of another value nothing, if it is larger.
pub(crate) const KEPT_BYTES: usize = 64 * 1024;

/// Bytes of a text that are looked at beyond those which are kept: a secret that ends there is known as a whole.
pub(crate) const BEYOND_BYTES: usize = 64 * 1024;

/// Values shorter than this are left in: they are words like `1` or `on` that stand in every output by themselves.
const SHORTEST: usize = 4;

/// An entry in the making.
pub(crate) struct Draft {
    kind: Kind,
    begun: i64,
    input: Value,
    /// Values of variables of this run, and short secrets: they are not recorded as they are.
    values: Vec<Zeroizing<String>>,
    /// Of secrets of the VM: they are recorded in no form.
    strikers: Vec<Arc<Striker>>,
}

impl Draft {
    pub(crate) fn of_exec(request: &ExecRequest) -> Self {
        let env = request.env.as_ref();
        let names: Vec<_> = env.into_iter().flat_map(|env| env.keys()).collect();
        let input = json!({"cmd": request.cmd, "cwd": request.cwd, "env": names, "timeoutMs": request.timeout_ms});
        Self::new(Kind::Exec, input, env.into_iter().flat_map(|env| env.values().map(String::as_str)))
    }

    pub(crate) fn of_run(language: Language, request: &RunRequest) -> Self {
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
    pub(crate) fn kind(&self) -> &'static str {
        self.kind.as_str()
    }

    /// The same without secrets of the VM, in any of the forms that their striker knows.
    pub(super) fn without(mut self, secrets: &SecretEnv, striker: Arc<Striker>) -> Self {
        self.values.extend(secrets.values().map(|value| Zeroizing::new(value.to_owned())));
        self.strikers.push(striker);
        self
    }

    /// What is written down. Takes as long as the texts are long: not for the threads of the runtime.
    pub(super) fn into_row(self, vm: VmId, ended: Ended) -> Result<ExecLogRow> {
        let values = self.values.iter().map(|value| value.as_str()).filter(|value| value.len() >= SHORTEST);
        let values = Verbatim::new(values);
        let values = values.map_err(|error| Error::internal("a run has too many variables to be struck out", error))?;
        let fit = |fields: Value| {
            let Value::Object(fields) = fields else { return fields.to_string() };
            let present = fields.into_iter().filter(|(_, value)| !value.is_null());
            let fitted = present.map(|(name, value)| {
                // Where it was cut before, the beginning of a secret may be its end. It goes, however short the rest has become.
                let beyond = value.as_str().map_or(0, |text| text.len().saturating_sub(KEPT_BYTES).min(BEYOND_BYTES));
                let struck = self.strikers.iter().fold(value, |value, striker| striker.json(value).value);
                (name, bounded(fit(struck, &values), beyond))
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
pub(super) struct Ended {
    /// The entry's `result`.
    pub(super) result: Value,
    pub(super) duration: Duration,
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

/// A value whose JSON is not much longer than [`KEPT_BYTES`]; a text without so many bytes at its end.
fn bounded(value: Value, beyond: usize) -> Value {
    if let Value::String(text) = value {
        return Value::String(cut(text, beyond));
    }
    let bytes = value.to_string().len();
    if bytes > KEPT_BYTES { format!("[left out: {bytes} bytes]").into() } else { value }
}

/// As much of a text without its end as [`KEPT_BYTES`] of JSON hold.
fn cut(mut text: String, beyond: usize) -> String {
    let mut bytes = 0;
    let last = text.len() - beyond.min(text.len());
    let end = text.char_indices().find(|(at, character)| {
        bytes += match character {
            '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
            '\0'..='\u{1f}' => 6,
            other => other.len_utf8(),
        };
        bytes > KEPT_BYTES || at + character.len_utf8() > last
    });
    if let Some((end, _)) = end {
        text.truncate(end);
        text.push('…');
    }
    text
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
        let log = Draft::of_run(Language::Node, &request).without(&secrets, striker);
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
            let cut = bounded(text.clone().into(), 0).to_string();
            assert!(cut.len() <= KEPT_BYTES + "\"\"…".len() && cut.len() > KEPT_BYTES - 6, "{}", cut.len());
            assert!(cut.ends_with("…\""));
        }
        assert_eq!(bounded("x".repeat(KEPT_BYTES).into(), 0), "x".repeat(KEPT_BYTES));
    }

    #[test]
    fn no_beginning_of_a_secret_is_where_a_text_was_cut() {
        let secret = "s3cret".repeat(100);
        let secrets = SecretEnv::parse(vec![format!("KEY={secret}")]).unwrap();
        let striker = Arc::new(Striker::new(secrets.values()).unwrap());
        let request =
            RunRequest { env: Some(vec![format!("TOKEN={}", "hunter2".repeat(100))]), ..RunRequest::default() };
        for value in [secret, "hunter2".repeat(100)] {
            let line = format!("{value}\n");
            let whole = line.repeat((KEPT_BYTES + BEYOND_BYTES) / line.len() + 1);
            for end in [0, 1, line.len() / 2, line.len() - 2] {
                let cut = whole.get(..KEPT_BYTES + BEYOND_BYTES - end);
                let log = Draft::of_run(Language::Node, &request).without(&secrets, Arc::clone(&striker));
                let ended = Ended { result: json!({"stdout": cut}), duration: Duration::ZERO };
                let row = log.into_row(VmId::new(), ended).unwrap();
                assert!(!row.result.contains("s3cr") && !row.result.contains("hunt"), "{}", row.result);
            }
        }
    }

    #[test]
    fn what_a_program_returns_takes_bounded_room() {
        let request = RunRequest { args: Some(vec!["x".repeat(1000); 1000]), ..RunRequest::default() };
        let long = "\0".repeat(1_000_000);
        let result = json!({
            "exitCode": 0, "stdout": long, "stderr": long, "result": vec![1; 2_000_000], "error": {"m": long},
        });
        let ended = Ended { result, duration: Duration::ZERO };
        let row = Draft::of_run(Language::Deno, &request).into_row(VmId::new(), ended).unwrap();
        assert!(row.result.len() < 3 * KEPT_BYTES && row.input.len() < KEPT_BYTES);
        let result: Value = serde_json::from_str(&row.result).unwrap();
        assert_eq!((&result["exitCode"], &result["result"]), (&json!(0), &json!("[left out: 4000001 bytes]")));
        assert!(result["stdout"].as_str().unwrap().starts_with('\0'));
    }
}
