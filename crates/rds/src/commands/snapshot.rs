//! `rds snapshot`: what is kept of VMs.

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::Shared;
use crate::client::Client;
use crate::error::CliError;
use crate::{output, progress};

/// What to do with snapshots. `rds vm create --snapshot ID` makes a VM from one.
#[derive(Debug, Subcommand)]
pub(crate) enum Snapshot {
    /// Keep a running VM as it is now, its disk or all of it; prints the snapshot's id
    Create {
        /// The VM
        vm: String,
        /// Keep its memory, too: programs go on in VMs that are made from it
        #[arg(long)]
        memory: bool,
    },
    /// List snapshots
    #[command(alias = "list")]
    Ls {
        /// Also those that the server made by itself
        #[arg(long)]
        all: bool,
    },
    /// Remove snapshots for good; VMs that were made from them stay
    #[command(alias = "delete")]
    Rm {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

impl Snapshot {
    /// Does it.
    pub(crate) async fn run(self, shared: &Shared) -> Result<u8, CliError> {
        let client = shared.client()?;
        match self {
            Self::Create { vm, memory } => create(&client, &vm, memory, shared.json).await?,
            Self::Ls { all } => list(&client, all, shared.json).await?,
            Self::Rm { ids } => remove(&client, &ids, shared.json).await?,
        }
        Ok(0)
    }
}

async fn create(client: &Client, vm: &str, memory: bool, json: bool) -> Result<(), CliError> {
    let id = client.find_vm(vm).await?;
    let kind = if memory { "vm" } else { "user_overlay" };
    let request = client.request(Method::POST, &["v1", "vms", &id, "snapshots"]).json(&json!({"kind": kind}));
    let snapshot: Value = progress::step("copy the VM", client.make(request, "rds snapshot ls")).await?;
    match snapshot.get("id").and_then(Value::as_str) {
        Some(id) if !json => output::line(id),
        _ => output::json(&snapshot),
    }
    Ok(())
}

async fn list(client: &Client, all: bool, json: bool) -> Result<(), CliError> {
    let scope = if all { "all" } else { "user" };
    let request = client.request(Method::GET, &["v1", "snapshots"]).query(&[("scope", scope)]);
    let snapshots: Vec<Value> = client.json(request).await?;
    if json {
        output::json(&snapshots);
        return Ok(());
    }
    let rows: Vec<Vec<String>> = snapshots.iter().map(row).collect();
    output::line(&output::table(&["ID", "KIND", "IMAGE", "VM", "SIZE", "CREATED"], &rows));
    Ok(())
}

fn row(snapshot: &Value) -> Vec<String> {
    let text = |field: &str| snapshot.get(field).and_then(Value::as_str).map_or_else(|| "-".into(), output::printable);
    let size = match snapshot.get("status").and_then(Value::as_str) {
        // A seed that is not there.
        Some(status @ ("building" | "error")) => status.to_owned(),
        _ => format!("{} MiB", snapshot.get("sizeBytes").and_then(Value::as_u64).unwrap_or(0) >> 20),
    };
    vec![text("id"), text("kind"), text("imageId"), text("sourceVmId"), size, text("createdAt")]
}

/// The first failure ends it; what was removed before is told.
async fn remove(client: &Client, ids: &[String], json: bool) -> Result<(), CliError> {
    let (mut removed, mut outcome) = (Vec::new(), Ok(()));
    for id in ids {
        outcome = client.send(client.request(Method::DELETE, &["v1", "snapshots", id])).await.map(drop);
        if outcome.is_err() {
            break;
        }
        if !json {
            output::line(id);
        }
        removed.push(id);
    }
    if json {
        output::json(&json!({"removed": removed}));
    }
    outcome
}
