//! Many VMs: fifty asked for at once, then one after the other up to a hundred.

use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use rds_vmm::hypervisor::SnapshotDir;

use super::by_hand::{ByHand, MEM_MIB};
use super::figure::{Figure, Limit, median, milliseconds, percentile};
use super::memory::weight;
use super::run::{command, sample};
use super::server::{BenchServer, resident_mb};
use super::warm::seeded;
use crate::client::Client;
use crate::error::CliError;

/// VMs that are asked for at once.
const AT_ONCE: usize = 50;

/// How many VMs there are when creates are measured.
const LEVELS: [usize; 4] = [1, 10, 50, 100];

/// Creates that are measured at each level. The slowest of so many stands for the p99.
const CREATES: usize = 20;

/// VMs that are asked for at once on the way to the next level.
const LANES: usize = 4;

/// Measures with a server of its own.
pub(super) async fn measure() -> Result<Vec<Figure>, CliError> {
    let server = BenchServer::start_with(&[("MAX_VMS", "200")]).await?;
    let measured = measure_with(&server).await;
    server.end().await;
    measured
}

async fn measure_with(server: &BenchServer) -> Result<Vec<Figure>, CliError> {
    let client = server.client()?;
    let seed = seeded(server, &client).await?;
    let mut figures = at_once(server, &client, &seed).await?;
    let mut vms = Vec::new();
    for level in LEVELS {
        figures.extend(grow(server, &client, &mut vms, level).await?);
    }
    delete(&client, &vms).await?;
    Ok(figures)
}

/// Fifty creates, and fifty machines by hand.
async fn at_once(server: &BenchServer, client: &Client, seed: &SnapshotDir) -> Result<Vec<Figure>, CliError> {
    // The first of each finds nothing in the caches.
    client.delete_vm(&client.create_vm(&super::vm(MEM_MIB)).await?.id).await?;
    let by_hand = ByHand::new(server).await?;
    by_hand.end(by_hand.start(Some(seed)).await?).await?;
    let begun = Instant::now();
    let machines = try_join_all((0..AT_ONCE).map(|_| by_hand.start(Some(seed)))).await?;
    let floor = milliseconds(begun);
    for machine in machines {
        by_hand.end(machine).await?;
    }
    let wish = super::vm(MEM_MIB);
    let begun = Instant::now();
    let created = join_all((0..AT_ONCE).map(|_| client.create_vm(&wish))).await;
    let measured = milliseconds(begun);
    let vms: Vec<String> = created.into_iter().flatten().map(|vm| vm.id).collect();
    delete(client, &vms).await?;
    Ok(vec![
        Figure::beside(
            format!("{AT_ONCE} creates asked for at once, all there"),
            measured,
            floor,
            "as many restored by hand at once, all having answered",
            Limit::Times(1.5),
        ),
        Figure::alone(
            format!("{AT_ONCE} creates asked for at once, failed"),
            "",
            count(AT_ONCE - vms.len()),
            Limit::AtMost(0.0),
        ),
    ])
}

/// Makes VMs until there are so many, then measures.
async fn grow(
    server: &BenchServer,
    client: &Client,
    vms: &mut Vec<String>,
    level: usize,
) -> Result<Vec<Figure>, CliError> {
    let wish = super::vm(MEM_MIB);
    let (begun, made_before) = (Instant::now(), vms.len());
    while vms.len() < level {
        let lanes = LANES.min(level - vms.len());
        vms.extend(try_join_all((0..lanes).map(|_| client.create_vm(&wish))).await?.into_iter().map(|vm| vm.id));
    }
    let rate = count(level - made_before) / begun.elapsed().as_secs_f64();
    let mut silent = 0;
    for vm in vms.iter() {
        silent += usize::from(sample(client, command(client, vm, "true")).await.is_err());
    }
    let mut created = Vec::new();
    for _ in 0..CREATES {
        let begun = Instant::now();
        let vm = client.create_vm(&wish).await?;
        created.push(milliseconds(begun));
        client.delete_vm(&vm.id).await?;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let memory = weight(server, vms);
    let name = |what: &str| format!("with {level} VMs: {what}");
    let known = |what: &str, unit, measured| Figure::alone(name(what), unit, measured, Limit::Any);
    Ok(vec![
        Figure::alone(name("VMs that do not answer"), "", count(silent), Limit::AtMost(0.0)),
        known("create, p50", "ms", median(&created)),
        known("create, p99", "ms", percentile(&created, 0.99)),
        known("creates a second on the way, 4 at once", "", rate),
        known("memory of the monitors", "MB", memory.all),
        known("of which guests", "MB", memory.guest),
        known("memory of the server", "MB", resident_mb(server.pid()).unwrap_or(f64::NAN)),
    ])
}

async fn delete(client: &Client, vms: &[String]) -> Result<(), CliError> {
    for vm in vms {
        client.delete_vm(vm).await?;
    }
    Ok(())
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}
