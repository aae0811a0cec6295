//! `rds run-ts` and `rds run-js`: a local file, run in a VM.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::exec::{TRUNCATED, exit_code, variable};
use crate::api::RunResult;
use crate::cli::Shared;
use crate::error::CliError;
use crate::output::{self, Stream};

/// What both have in common.
#[derive(Debug, Args)]
struct Program {
    /// The VM: its id, the beginning of its id, or its name
    vm: String,
    /// The file on this machine, `-` for standard input, or with --path a file in the VM
    file: PathBuf,
    /// The file is in the VM, under /workspace
    #[arg(long)]
    path: bool,
    /// Variable; may be repeated
    #[arg(short, long = "env", value_name = "KEY=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// Time limit in milliseconds [default: the server's]
    #[arg(long, value_name = "MS")]
    timeout: Option<u64>,
    /// Arguments of the program
    #[arg(last = true)]
    args: Vec<String>,
}

/// A TypeScript program.
#[derive(Debug, Args)]
pub(crate) struct RunTs {
    #[command(flatten)]
    program: Program,
    /// Flag of `deno run`; may be repeated
    #[arg(long = "deno-flag", value_name = "FLAG", allow_hyphen_values = true)]
    flags: Vec<String>,
}

/// A JavaScript program.
#[derive(Debug, Args)]
pub(crate) struct RunJs {
    #[command(flatten)]
    program: Program,
    /// Flag of `node`; may be repeated
    #[arg(long = "node-flag", value_name = "FLAG", allow_hyphen_values = true)]
    flags: Vec<String>,
}

impl RunTs {
    /// Does it.
    pub(crate) async fn run(self, shared: &Shared) -> Result<u8, CliError> {
        self.program.run(shared, "run-ts", "denoFlags", &self.flags).await
    }
}

impl RunJs {
    /// Does it.
    pub(crate) async fn run(self, shared: &Shared) -> Result<u8, CliError> {
        self.program.run(shared, "run-js", "nodeFlags", &self.flags).await
    }
}

impl Program {
    async fn run(self, shared: &Shared, call: &str, flags_name: &str, flags: &[String]) -> Result<u8, CliError> {
        let client = shared.client()?;
        let id = client.find_vm(&self.vm).await?;
        let env: Vec<String> = self.env.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let mut body = json!({"args": self.args, "env": env});
        body[flags_name] = json!(flags);
        if self.path {
            body["path"] = json!(self.file);
        } else {
            body["code"] = Value::String(read(&self.file)?);
        }
        if let Some(timeout) = self.timeout {
            body["timeoutMs"] = json!(timeout);
        }
        let result: RunResult = client.post_vm(&id, call, &body).await.map_err(CliError::of_a_run)?;
        if shared.json {
            output::json(&result);
        } else {
            show(&result);
        }
        Ok(exit_code(result.exit_code, result.exit_code == -1))
    }
}

fn read(file: &Path) -> Result<String, CliError> {
    if file == Path::new("-") {
        let mut code = String::new();
        std::io::stdin().read_to_string(&mut code).map_err(CliError::file("standard input"))?;
        return Ok(code);
    }
    std::fs::read_to_string(file).map_err(CliError::file(file))
}

/// The program's output where it belongs, then its `result` there or its `error` beside it.
fn show(result: &RunResult) {
    output::raw(shown(&result.stdout, "result", result.rest.get("result")).as_bytes());
    // Who cannot be told of an error cannot be told of that either.
    let _ = output::pass(Stream::Err, shown(&result.stderr, "error", result.rest.get("error")).as_bytes());
    if result.rest.get("truncated") == Some(&Value::Bool(true)) {
        output::note(TRUNCATED);
    }
}

/// A program's output as it is, then a value on lines of its own.
fn shown(output: &str, name: &str, value: Option<&Value>) -> String {
    let Some(value) = value else { return output.to_owned() };
    let end = if output.is_empty() || output.ends_with('\n') { "" } else { "\n" };
    format!("{output}{end}{name}: {}\n", output::json_text(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_begins_a_line_and_is_harmless() {
        assert_eq!(shown("out", "result", None), "out");
        assert_eq!(shown("", "result", Some(&json!(1))), "result: 1\n");
        assert_eq!(shown("out\n", "result", Some(&json!(1))), "out\nresult: 1\n");
        assert_eq!(shown("out", "error", Some(&json!("\u{9b}2J"))), "out\nerror: \"\\u009b2J\"\n");
    }
}
