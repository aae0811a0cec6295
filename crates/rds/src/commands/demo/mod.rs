//! `rds demo`: the product in a minute.

mod peers;
mod stage;

use clap::Args;
use serde_json::{Map, Value, json};

use crate::api::CreateVm;
use crate::cli::Shared;
use crate::error::CliError;
use crate::output;

use stage::{File, Stage};

/// Small programs in VMs, and nothing left behind.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Memory of each VM in MiB; there are two at once
    #[arg(long, default_value_t = 512)]
    mem: u32,
}

const DEST: &str = "/workspace/demo";

const FILES: [File; 3] = [
    ("sdk/shop.mjs", include_bytes!("shop.mjs")),
    ("app.ts", include_bytes!("app.ts")),
    ("app.mjs", include_bytes!("app.mjs")),
];

impl Demo {
    /// Does it; the VMs are removed however it ends.
    pub(crate) async fn run(self, shared: &Shared) -> Result<u8, CliError> {
        let mut stage = Stage::new(shared.client()?, self.mem)?;
        let shown = show(&mut stage).await;
        let removed = stage.clear().await;
        let shown = shown?;
        removed?;
        if shared.json {
            output::json(&shown);
        } else {
            for call in ["run-ts", "run-js"] {
                output::line(&format!("{call} {}", output::json_text(&shown[call])));
            }
            peers::tell(&shown["peers"]);
            output::line("All VMs are removed again.");
        }
        Ok(0)
    }
}

async fn show(stage: &mut Stage) -> Result<Value, CliError> {
    let mut shown = alone(stage).await?;
    stage.clear().await?;
    shown.insert("peers".into(), peers::show(stage).await?);
    Ok(shown.into())
}

/// Uploads an SDK with two programs that import it, and runs those.
async fn alone(stage: &mut Stage) -> Result<Map<String, Value>, CliError> {
    let vm = stage.create("create a VM", CreateVm::default()).await?;
    stage.upload("upload an SDK and an app", &vm, DEST, &FILES).await?;
    let mut results = Map::new();
    for (call, file) in [("run-ts", "app.ts"), ("run-js", "app.mjs")] {
        let program = json!({"path": format!("{DEST}/{file}"), "args": ["2"]});
        let result = stage.run(&format!("{call} {file}"), &vm, call, program).await?;
        results.insert(call.to_owned(), result);
    }
    Ok(results)
}
