//! `rds vm`: the life of a VM.

use std::path::Path;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::peers::read_policy;
use super::secret_source::SecretSource;
use crate::api::{self, CreateVm, Limits, Log, PeerLink};
use crate::cli::Shared;
use crate::client::Client;
use crate::error::CliError;
use crate::{output, progress};

/// What to do with VMs. A VM is named by its id, the beginning of its id, or its name.
#[derive(Debug, Subcommand)]
pub(crate) enum Vm {
    /// Make a VM and wait until it answers; prints its id
    Create(Box<Create>),
    /// List VMs
    #[command(alias = "list")]
    Ls,
    /// Show a VM
    Get {
        /// The VM
        vm: String,
    },
    /// Remove VMs for good, with their disks
    #[command(alias = "delete")]
    Rm {
        /// The VMs
        #[arg(required = true)]
        vms: Vec<String>,
    },
    /// Stop VMs; their disks are kept
    Stop {
        /// The VMs
        #[arg(required = true)]
        vms: Vec<String>,
    },
    /// Start VMs that were stopped
    Start {
        /// The VMs
        #[arg(required = true)]
        vms: Vec<String>,
    },
    /// Pause VMs: they stand still in memory until they are resumed, or used
    Pause {
        /// The VMs
        #[arg(required = true)]
        vms: Vec<String>,
    },
    /// Resume VMs that were paused
    Resume {
        /// The VMs
        #[arg(required = true)]
        vms: Vec<String>,
    },
    /// Copy a running VM with its memory and its programs; prints the copies' ids
    Fork {
        /// The VM
        vm: String,
        /// How many copies
        #[arg(long, short = 'n', default_value_t = 1)]
        count: u32,
        #[command(flatten)]
        limits: Limits,
        #[command(flatten)]
        secrets: SecretSource,
        /// Provider that each copy is linked to, as for create; may be repeated
        #[arg(long = "peer", value_name = "ALIAS=VM[:mounted]", value_parser = pair)]
        peers: Vec<(String, String)>,
    },
    /// Show a log of a VM
    Logs {
        /// The VM
        vm: String,
        /// Which log: serial.log is the guest's console, vmm.log the virtual machine monitor's
        #[arg(long = "type", default_value = "serial.log", value_name = "LOG")]
        kind: String,
        /// Lines from its end, at most 1000
        #[arg(long, default_value_t = 200)]
        tail: u32,
    },
}

/// What a new VM shall be.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Virtual processors
    #[arg(long, default_value_t = 1)]
    cpu: u32,
    /// Memory in MiB
    #[arg(long, default_value_t = 512)]
    mem: u32,
    /// Size of the writable disk in MiB [default: the server's]
    #[arg(long, value_name = "MIB")]
    disk: Option<u64>,
    /// Name
    #[arg(long)]
    name: Option<String>,
    /// Label; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Image: its id, the beginning of its id, or its name [default: the server's default image]
    #[arg(long)]
    image: Option<String>,
    /// Snapshot whose disk the VM starts with
    #[arg(long, value_name = "ID")]
    snapshot: Option<String>,
    /// Address or network that may be reached (with --internet); may be repeated
    #[arg(long = "allow-ip", value_name = "IP[/LEN]")]
    allow_ips: Vec<String>,
    /// Name that may be reached by TLS and HTTP (with --internet), such as *.example.com; may be repeated
    #[arg(long = "allow-domain", value_name = "NAME")]
    allow_domains: Vec<String>,
    /// Let the VM reach what --allow-ip and --allow-domain name
    #[arg(long)]
    internet: bool,
    /// Seconds after which the VM is removed
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u64>,
    /// Seconds without use after which the VM is paused, or what --idle-action says
    #[arg(long, value_name = "SECONDS")]
    idle: Option<u64>,
    /// What is done with an idle VM
    #[arg(long, value_name = "ACTION", value_parser = ["pause", "delete"], requires = "idle")]
    idle_action: Option<String>,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    secrets: SecretSource,
    /// Provider whose SDK the VM's code may call under this alias, and with :mounted see the files of; may be repeated
    #[arg(long = "peer", value_name = "ALIAS=VM[:mounted]", value_parser = pair)]
    peers: Vec<(String, String)>,
    /// File with the policy of a --peer as JSON, or - for standard input; may be repeated
    #[arg(long = "peer-policy", value_name = "ALIAS=FILE", value_parser = pair)]
    policies: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or("there is no =".to_owned())
}

impl Vm {
    /// Does it.
    pub(crate) async fn run(self, shared: &Shared) -> Result<u8, CliError> {
        let client = shared.client()?;
        match self {
            Self::Create(create) => create.run(&client, shared.json).await?,
            Self::Ls => list(&client, shared.json).await?,
            Self::Get { vm } => show(&client, &vm, shared.json).await?,
            Self::Rm { vms } => each(&client, shared.json, &vms, "", "removed").await?,
            Self::Stop { vms } => each(&client, shared.json, &vms, "stop", "stopped").await?,
            Self::Start { vms } => each(&client, shared.json, &vms, "start", "started").await?,
            Self::Pause { vms } => each(&client, shared.json, &vms, "pause", "paused").await?,
            Self::Resume { vms } => each(&client, shared.json, &vms, "resume", "resumed").await?,
            Self::Fork { vm, count, limits, secrets, peers } => {
                fork(&client, &vm, count, limits, secrets, &peers, shared.json).await?;
            }
            Self::Logs { vm, kind, tail } => logs(&client, &vm, &kind, tail, shared.json).await?,
        }
        Ok(0)
    }
}

impl Create {
    async fn run(self, client: &Client, json: bool) -> Result<(), CliError> {
        let image_id = match &self.image {
            Some(image) => Some(client.find_image(image).await?),
            None => None,
        };
        let peer_links = links(client, &self.peers, &self.policies).await?;
        let wish = CreateVm {
            cpu: self.cpu,
            mem_mb: self.mem,
            allow_ips: self.allow_ips,
            allow_domains: self.allow_domains,
            outbound_internet: self.internet,
            image_id,
            user_overlay_snapshot_id: self.snapshot,
            disk_size_mb: self.disk,
            name: self.name,
            labels: self.labels.into_iter().map(|(key, value)| (key, Value::String(value))).collect(),
            ttl_seconds: self.ttl,
            idle_timeout_seconds: self.idle,
            idle_action: self.idle_action,
            secret_env: self.secrets.read()?,
            peer_links,
            limits: self.limits,
        };
        let vm = progress::step("create the VM", client.create_vm(&wish)).await?;
        if json {
            output::json(&vm);
        } else {
            output::line(&vm.id);
        }
        Ok(())
    }
}

async fn fork(
    client: &Client,
    vm: &str,
    count: u32,
    limits: Limits,
    secrets: SecretSource,
    peers: &[(String, String)],
    json: bool,
) -> Result<(), CliError> {
    let id = client.find_vm(vm).await?;
    let peer_links = links(client, peers, &[]).await?;
    let body = json!({"count": count, "secretEnv": secrets.read()?, "peerLinks": peer_links, "limits": limits});
    let request = client.request(Method::POST, &["v1", "vms", &id, "fork"]).json(&body);
    let forks: Value = progress::step("copy the VM", client.make(request, "rds vm ls")).await?;
    if json {
        output::json(&forks);
        return Ok(());
    }
    let ids = forks.get("vms").and_then(Value::as_array).into_iter().flatten();
    ids.filter_map(|vm| vm.get("id")?.as_str()).for_each(output::line);
    Ok(())
}

/// The links that `--peer` and `--peer-policy` name.
async fn links(
    client: &Client,
    peers: &[(String, String)],
    policies: &[(String, String)],
) -> Result<Vec<PeerLink>, CliError> {
    let mut links = Vec::new();
    for (alias, vm) in peers {
        let (vm, source_mode) = vm.strip_suffix(":mounted").map_or((vm.as_str(), "hidden"), |vm| (vm, "mounted"));
        let (vm_id, source_mode) = (client.find_vm(vm).await?, source_mode.to_owned());
        links.push(PeerLink { alias: alias.clone(), vm_id, source_mode, policy: None });
    }
    for (alias, file) in policies {
        let link = links.iter_mut().find(|link| link.alias == *alias);
        let link = link.ok_or_else(|| CliError::Usage(format!("--peer-policy: there is no --peer {alias}=...")))?;
        link.policy = Some(read_policy(Path::new(file))?);
    }
    Ok(links)
}

async fn list(client: &Client, json: bool) -> Result<(), CliError> {
    let vms = client.vms().await?;
    if json {
        output::json(&vms);
        return Ok(());
    }
    let rows: Vec<Vec<String>> = vms.iter().map(row).collect();
    output::line(&output::table(&["ID", "NAME", "STATE", "CPU", "MEMORY", "IMAGE", "CREATED"], &rows));
    Ok(())
}

fn row(vm: &api::Vm) -> Vec<String> {
    vec![
        vm.id.clone(),
        output::printable(vm.name.as_deref().unwrap_or("-")),
        vm.state.clone(),
        vm.cpu.to_string(),
        format!("{} MiB", vm.mem_mb),
        vm.image_id.clone().unwrap_or_else(|| "-".into()),
        vm.created_at.clone(),
    ]
}

async fn show(client: &Client, vm: &str, json: bool) -> Result<(), CliError> {
    let vm = client.vm(&client.find_vm(vm).await?).await?;
    if json {
        output::json(&vm);
        return Ok(());
    }
    let Ok(Value::Object(fields)) = serde_json::to_value(&vm) else {
        return Err(CliError::Answer("a VM that is no object".into()));
    };
    let rows: Vec<Vec<String>> = fields.iter().map(|(name, value)| vec![name.clone(), plain(value)]).collect();
    output::line(&output::table(&["FIELD", "VALUE"], &rows));
    Ok(())
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => output::printable(text),
        other => output::printable(&other.to_string()),
    }
}

/// Does the same to each VM. The first failure ends it; what was done before is told.
async fn each(client: &Client, json: bool, vms: &[String], call: &str, done: &str) -> Result<(), CliError> {
    let (mut ids, mut outcome) = (Vec::new(), Ok(()));
    for vm in vms {
        match one(client, vm, call).await {
            Ok(id) if json => ids.push(id),
            Ok(id) => output::line(&id),
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
    }
    if json {
        output::json(&Map::from_iter([(done.to_owned(), json!(ids))]));
    }
    outcome
}

/// Does something to a VM and gives its id. No call is a removal.
async fn one(client: &Client, vm: &str, call: &str) -> Result<String, CliError> {
    let id = client.find_vm(vm).await?;
    if call.is_empty() {
        client.delete_vm(&id).await?;
    } else {
        client.send(client.request(Method::POST, &["v1", "vms", &id, call])).await?;
    }
    Ok(id)
}

async fn logs(client: &Client, vm: &str, kind: &str, tail: u32, json: bool) -> Result<(), CliError> {
    let id = client.find_vm(vm).await?;
    let request = client.request(Method::GET, &["v1", "vms", &id, "logs"]);
    let log: Log = client.json(request.query(&[("type", kind), ("tail", &tail.to_string())])).await?;
    if json {
        output::json(&log);
    } else {
        log.lines.iter().for_each(|line| output::line(&output::printable(line)));
    }
    Ok(())
}
