//! Many at once, and the server's memory afterwards.

use futures_util::future::join_all;

use super::figure::{Figure, Limit};
use super::run::{command, sample};
use super::server::resident_mb;
use super::vm;
use crate::client::Client;
use crate::error::CliError;

const VMS: usize = 10;
const COMMANDS_AT_ONCE: usize = 50;
const COMMANDS: usize = 1000;

/// Ten VMs made at once, fifty commands at once on one of them, then a thousand over all.
pub(super) async fn measure(client: &Client, server: Option<u32>) -> Result<Vec<Figure>, CliError> {
    let wish = vm(128);
    let made = join_all((0..VMS).map(|_| client.create_vm(&wish))).await;
    let vms: Vec<String> = made.into_iter().flatten().map(|vm| vm.id).collect();
    let measured = measure_in(client, &vms, server).await;
    for vm in &vms {
        client.delete_vm(vm).await?;
    }
    let mut figures = vec![failures("10 VMs made at once, failed", VMS - vms.len())];
    figures.extend(measured?);
    Ok(figures)
}

async fn measure_in(client: &Client, vms: &[String], server: Option<u32>) -> Result<Vec<Figure>, CliError> {
    let first = vms.first().ok_or_else(|| CliError::Failed("no VM could be made".into()))?;
    let burst =
        join_all((0..COMMANDS_AT_ONCE).map(|_| sample(client, command(client, first, "echo x; sleep 0.1")))).await;
    let mut figures =
        vec![failures("50 commands at once, failed", burst.iter().filter(|reply| reply.is_err()).count())];
    let mut failed = 0;
    for round in 0..COMMANDS / vms.len() {
        let replies = join_all(vms.iter().map(|vm| sample(client, command(client, vm, "true")))).await;
        failed += replies.iter().filter(|reply| reply.is_err()).count();
        if round == 0 && failed == vms.len() {
            return Err(CliError::Failed("no VM answers".into()));
        }
    }
    figures.push(failures("1,000 commands over 10 VMs, failed", failed));
    if let Some(resident) = server.and_then(resident_mb) {
        figures.push(Figure::alone(
            "server's memory with 10 VMs, after 1,000 commands",
            "MB",
            resident,
            Limit::AtMost(40.0),
        ));
    }
    Ok(figures)
}

fn failures(name: &str, count: usize) -> Figure {
    let measured = u32::try_from(count).map_or(f64::INFINITY, f64::from);
    Figure::alone(name, "", measured, Limit::AtMost(0.0))
}
