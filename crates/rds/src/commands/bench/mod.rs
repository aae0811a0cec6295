//! `rds bench`: what the server costs, each figure beside its floor from the same run.
//!
//! A floor is the same work without the server: a machine started by hand, a program timed inside the guest.

mod by_hand;
mod channel;
mod cold;
mod commands;
mod crowd;
mod figure;
mod files;
mod load;
mod memory;
mod names;
mod namespace;
mod peer_floor;
mod peers;
mod pool;
mod rules;
mod run;
mod server;
mod throughput;
mod warm;

use clap::{Args, ValueEnum};
use rds_vmm::firecracker;
use serde_json::json;

use self::figure::{Figure, table};
use self::server::BenchServer;
use crate::api::CreateVm;
use crate::cli::Shared;
use crate::client::Client;
use crate::error::CliError;
use crate::output;

/// How many times as often commands are run. With five rounds a p99 has ten samples above it, so that no single one
/// decides it.
const COMMANDS_A_ROUND: usize = 200;

/// Networks that are made for each round.
const NETWORKS_A_ROUND: usize = 20;

/// What to measure, and how often.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Measure these only
    #[arg(long, value_delimiter = ',', value_name = "GROUP")]
    only: Vec<Group>,
    /// Rounds of what takes seconds; commands are run two hundred times as often
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Measure the running server that --url names, without what can only be seen from beside it
    #[arg(long)]
    running: bool,
}

/// Figures that are measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Creating a VM
    Create,
    /// Creating a VM from a seed or a snapshot, and taking one
    Warm,
    /// A shell command
    Exec,
    /// A TypeScript program
    RunTs,
    /// Uploading and downloading
    Files,
    /// Calls from one VM's code to another's
    Peers,
    /// What VMs' networks cost, and looking an allowed name up
    Egress,
    /// Many at once, and memory
    Load,
    /// Fifty VMs at once, then a hundred: how long creates take, how many come a second, what they weigh
    Growth,
}

impl Bench {
    /// Measures; the exit code is 1 if a figure is over its limit.
    pub(crate) async fn run(self, shared: &Shared) -> Result<u8, CliError> {
        let mut server = None;
        let client = if self.running {
            shared.client()?
        } else {
            let own = BenchServer::start(false).await?;
            let client = own.client()?;
            server = Some(own);
            client
        };
        let measured = tokio::select! {
            measured = self.measure(&client, server.as_ref()) => measured,
            _ = tokio::signal::ctrl_c() => Err(CliError::Failed("interrupted".into())),
        };
        if let Some(server) = server {
            server.end().await;
        }
        let figures = measured?;
        if shared.json {
            output::json(&json!({"figures": figures}));
        } else {
            output::line(&table(&figures));
        }
        Ok(u8::from(!figures.iter().all(Figure::passes)))
    }

    fn wants(&self, group: Group) -> bool {
        self.only.is_empty() || self.only.contains(&group)
    }

    async fn measure(&self, client: &Client, server: Option<&BenchServer>) -> Result<Vec<Figure>, CliError> {
        let rounds = self.rounds as usize;
        let mut figures = Vec::new();
        if self.wants(Group::Create)
            && let Some(server) = server
        {
            figures.push(cold::measure(client, server, rounds).await?);
        }
        if self.wants(Group::Warm) && server.is_some() {
            figures.extend(warm::measure(client, rounds).await?);
            figures.extend(pool::measure(rounds).await?);
            figures.extend(memory::measure().await?);
        }
        if [Group::Exec, Group::RunTs, Group::Files].into_iter().any(|group| self.wants(group)) {
            let vm = client.create_vm(&vm(512)).await?.id;
            let measured = self.measure_in(client, &vm, rounds).await;
            client.delete_vm(&vm).await?;
            figures.extend(measured?);
        }
        if self.wants(Group::Peers)
            && let Some(server) = server
        {
            figures.extend(peers::measure(client, server, rounds).await?);
            if by_hand::driver().await?.description().name == firecracker::PROGRAM {
                figures.push(peers::beside_qemu(client, rounds).await?);
            }
        }
        if self.wants(Group::Egress) {
            figures.push(names::measure().await?);
            match namespace::missing() {
                Some(missing) => output::note(&format!("figures of VMs' networks are left out: {missing}")),
                None => {
                    figures.extend(namespace::apart(move || rules::measure(rounds * NETWORKS_A_ROUND)).await?);
                    figures.push(namespace::apart(move || throughput::measure(rounds)).await?);
                }
            }
        }
        if self.wants(Group::Load) {
            figures.extend(if server.is_some() {
                with_own_server().await?
            } else {
                load::measure(client, None).await?
            });
        }
        if self.wants(Group::Growth) && server.is_some() {
            figures.extend(crowd::measure().await?);
        }
        Ok(figures)
    }

    async fn measure_in(&self, client: &Client, vm: &str, rounds: usize) -> Result<Vec<Figure>, CliError> {
        let mut figures = Vec::new();
        if self.wants(Group::Exec) {
            figures.extend(run::exec(client, vm, rounds * COMMANDS_A_ROUND).await?);
        }
        if self.wants(Group::RunTs) {
            figures.push(run::run_ts(client, vm, rounds * 2).await?);
        }
        if self.wants(Group::Files) {
            figures.extend(files::measure(client, vm, rounds).await?);
        }
        Ok(figures)
    }
}

/// On a server that has done nothing else: its memory is to be that of ten VMs and a thousand commands.
async fn with_own_server() -> Result<Vec<Figure>, CliError> {
    let server = BenchServer::start(false).await?;
    let measured = load::measure(&server.client()?, Some(server.pid())).await;
    server.end().await;
    measured
}

/// A VM of one processor.
fn vm(mem_mb: u32) -> CreateVm {
    CreateVm { cpu: 1, mem_mb, ..CreateVm::default() }
}
