//! `rds demo`: the product in half a minute.

use clap::Args;
use serde_json::{Map, Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::api::{CreateVm, RunResult};
use crate::archive;
use crate::cli::Shared;
use crate::client::Client;
use crate::error::CliError;
use crate::{output, progress};

/// A VM, two small programs, and nothing left behind.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Memory of the VM in MiB
    #[arg(long, default_value_t = 512)]
    mem: u32,
}

const DEST: &str = "/workspace/demo";

const FILES: [(&str, &[u8]); 3] = [
    ("sdk/shop.mjs", include_bytes!("demo/shop.mjs")),
    ("app.ts", include_bytes!("demo/app.ts")),
    ("app.mjs", include_bytes!("demo/app.mjs")),
];

impl Demo {
    /// Does it; the VM is removed however it ends.
    pub(crate) async fn run(self, shared: &Shared) -> Result<u8, CliError> {
        let client = shared.client()?;
        let wish = CreateVm { cpu: 1, mem_mb: self.mem, ..CreateVm::default() };
        // From here on ctrl-c ends nothing by itself. The create is not given up halfway: a VM that is being made has no
        // name yet by which it could be removed.
        let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::file("ctrl-c"))?;
        let vm = progress::step("create a VM", client.create_vm(&wish)).await?;
        let outcome = tokio::select! {
            biased;
            _ = interrupt.recv() => Err(CliError::Failed("interrupted".into())),
            outcome = show(&client, &vm.id) => outcome,
        };
        let removed = progress::step("remove the VM", client.delete_vm(&vm.id)).await;
        let results = outcome?;
        removed?;
        if shared.json {
            output::json(&results);
        } else {
            for (call, result) in &results {
                output::line(&format!("{call} {result:#}"));
            }
            output::line("The VM is removed again.");
        }
        Ok(0)
    }
}

/// Uploads an SDK with two programs that import it, and runs those.
async fn show(client: &Client, id: &str) -> Result<Map<String, Value>, CliError> {
    let archive = archive::pack_files(&FILES).map_err(CliError::file("demo"))?;
    progress::step("upload an SDK and an app", client.upload(id, DEST, archive)).await?;
    let mut results = Map::new();
    for (call, file) in [("run-ts", "app.ts"), ("run-js", "app.mjs")] {
        let body = json!({"path": format!("{DEST}/{file}"), "args": ["2"]});
        let run = client.post_vm::<RunResult>(id, call, &body);
        let result = progress::step(&format!("{call} {file}"), run).await?;
        if result.exit_code != 0 {
            return Err(CliError::Failed(format!("{call} failed: {}", output::printable(&result.stderr))));
        }
        results.insert(call.to_owned(), result.rest.get("result").cloned().unwrap_or_default());
    }
    Ok(results)
}
