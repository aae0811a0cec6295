//! What is run in a VM: from a request's body to what the guest is sent, or a 400. Pure.

use std::collections::BTreeMap;

use rds_protocol::exec::{Program, Source, Start, Stdin};
use rds_protocol::limits::OUTPUT_BYTES;
use serde::Deserialize;
use utoipa::ToSchema;

use super::files::workspace_path;
use crate::error::{Error, Result};
use crate::secrets::is_name;

/// Time limit of a run if the caller names none (section 3 of the wire contract).
pub(super) const DEFAULT_TIMEOUT_MS: u64 = 30_000;

/// Arguments, flags and variables of a run, each.
const MAX_WORDS: usize = 1000;

/// Body of `POST /v1/vms/:id/exec` and `/exec/stream`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecRequest {
    /// A shell command line.
    #[schema(example = "echo hello")]
    pub cmd: String,
    /// Working directory; `/workspace` if absent.
    pub cwd: Option<String>,
    /// Variables of this call.
    #[serde(default)]
    pub env: Option<BTreeMap<String, String>>,
    /// Time limit in milliseconds; 30000 if absent.
    pub timeout_ms: Option<f64>,
}

/// Body of `POST /v1/vms/:id/run-ts` and `/run-js`. Either `code` or `path`; `path` wins.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RunRequest {
    /// The text of a module.
    #[schema(example = "result.set({ answer: 42 })")]
    pub code: Option<String>,
    /// A file under `/workspace`; a relative path is relative to it.
    pub path: Option<String>,
    /// Arguments of the program.
    pub args: Option<Vec<String>>,
    /// Variables of this call, each `NAME=value`.
    pub env: Option<Vec<String>>,
    /// Further flags of `deno run` (run-ts).
    pub deno_flags: Option<Vec<String>>,
    /// Further flags of `node` (run-js).
    pub node_flags: Option<Vec<String>>,
    /// Time limit in milliseconds; 30000 if absent.
    pub timeout_ms: Option<f64>,
    /// Whether the program may use the network (run-ts); the VM's `outboundInternet` if absent. The firewall applies.
    pub allow_net: Option<bool>,
}

/// The interpreter of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// `run-ts`.
    Deno,
    /// `run-js`.
    Node,
}

pub(super) fn exec_start(request: ExecRequest, max_timeout_ms: u64) -> Result<Start> {
    if request.cmd.trim().is_empty() {
        return Err(Error::invalid("cmd must not be empty"));
    }
    let env = request.env.unwrap_or_default();
    check_env(&env)?;
    Ok(Start {
        program: Program::Shell { cmd: word("cmd", request.cmd)? },
        cwd: request.cwd.map(directory).transpose()?,
        env,
        timeout_ms: Some(timeout_ms(request.timeout_ms, max_timeout_ms)?),
        stdin: Stdin::Closed,
        output_limit: Some(OUTPUT_BYTES),
    })
}

pub(super) fn run_start(language: Language, request: RunRequest, outbound: bool, max_timeout_ms: u64) -> Result<Start> {
    let source = match (request.path, request.code) {
        (Some(path), _) => Source::Path { path: workspace_path("path", &path)? },
        (None, Some(code)) => Source::Inline { code: word("code", code)? },
        (None, None) => return Err(Error::invalid("Either code or path is needed")),
    };
    let env = env_of_list(request.env.unwrap_or_default())?;
    let args = words("args", request.args)?;
    let program = match language {
        Language::Deno => {
            let flags = words("denoFlags", request.deno_flags)?;
            Program::Deno { source, args, flags, allow_net: request.allow_net.unwrap_or(outbound) }
        }
        Language::Node => Program::Node { source, args, flags: words("nodeFlags", request.node_flags)? },
    };
    Ok(Start {
        program,
        cwd: None,
        env,
        timeout_ms: Some(timeout_ms(request.timeout_ms, max_timeout_ms)?),
        stdin: Stdin::Closed,
        output_limit: Some(OUTPUT_BYTES),
    })
}

fn timeout_ms(asked: Option<f64>, max: u64) -> Result<u64> {
    let Some(asked) = asked else { return Ok(DEFAULT_TIMEOUT_MS.min(max)) };
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        clippy::cast_possible_truncation,
        reason = "the range is checked first, and limits are far below 2^53"
    )]
    if asked.fract() == 0.0 && asked >= 1.0 && asked <= max as f64 {
        return Ok(asked as u64);
    }
    Err(Error::Invalid(format!("timeoutMs must be an integer from 1 to {max}")))
}

/// A working directory; relative ones are relative to `/workspace`. It may be anywhere in the guest.
fn directory(cwd: String) -> Result<String> {
    let cwd = word("cwd", cwd)?;
    Ok(if cwd.starts_with('/') { cwd } else { format!("/workspace/{cwd}") })
}

fn words(field: &str, words: Option<Vec<String>>) -> Result<Vec<String>> {
    let words = words.unwrap_or_default();
    if words.len() > MAX_WORDS {
        return Err(Error::Invalid(format!("{field} has more than {MAX_WORDS} entries")));
    }
    words.into_iter().map(|text| word(field, text)).collect()
}

/// Text that can be an argument of a program.
pub(super) fn word(field: &str, text: String) -> Result<String> {
    if text.contains('\0') {
        return Err(Error::Invalid(format!("{field} must not contain NUL characters")));
    }
    Ok(text)
}

fn env_of_list(list: Vec<String>) -> Result<BTreeMap<String, String>> {
    let pair = |entry: String| match entry.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(Error::invalid("env: every entry must be NAME=value")),
    };
    let env = list.into_iter().map(pair).collect::<Result<_>>()?;
    check_env(&env)?;
    Ok(env)
}

/// Names are those of POSIX shells; values are anything that an environment can hold, several lines included.
fn check_env(env: &BTreeMap<String, String>) -> Result<()> {
    if env.len() > MAX_WORDS {
        return Err(Error::Invalid(format!("env has more than {MAX_WORDS} entries")));
    }
    for (name, value) in env {
        if !is_name(name) {
            return Err(Error::Invalid(format!("env: {name:?} is no name; names match [A-Za-z_][A-Za-z0-9_]*")));
        }
        if value.contains('\0') {
            return Err(Error::Invalid(format!("env: the value of {name} has a NUL character")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn run(body: Value) -> Result<Start> {
        run_start(Language::Deno, serde_json::from_value(body).unwrap(), true, 120_000)
    }

    #[test]
    fn a_path_wins_over_code_and_stays_in_the_workspace() {
        let start = run(json!({"code": "1", "path": "a/b.ts"})).unwrap();
        let Program::Deno { source, allow_net, .. } = start.program else { panic!("not Deno") };
        assert_eq!(source, Source::Path { path: "/workspace/a/b.ts".into() });
        assert!(allow_net, "the VM may go out");
        for path in ["/home/user/a.ts", "../a.ts", "/workspace/../etc/passwd", "/etc/passwd", "a\0b"] {
            assert!(run(json!({"path": path})).is_err(), "{path:?}");
        }
        assert!(run(json!({})).is_err());
    }

    #[test]
    fn bad_words_are_refused() {
        for body in [
            json!({"code": "a\0"}),
            json!({"code": "1", "args": ["\0"]}),
            json!({"code": "1", "env": ["A"]}),
            json!({"code": "1", "env": ["A B=1"]}),
            json!({"code": "1", "env": ["A\n=1"]}),
            json!({"code": "1", "env": ["=1"]}),
            json!({"code": "1", "env": ["A=\0"]}),
            json!({"code": "1", "timeoutMs": 120_001}),
            json!({"code": "1", "timeoutMs": 0}),
            json!({"code": "1", "timeoutMs": 1.5}),
        ] {
            assert!(matches!(run(body.clone()), Err(Error::Invalid(_))), "{body}");
        }
        assert_eq!(run(json!({"code": "1", "env": ["A=b=c\nd"]})).unwrap().env["A"], "b=c\nd");
    }
}
