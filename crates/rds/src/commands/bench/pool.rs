//! Creating VMs from the warm pool, beside one shell command in them.

use std::time::{Duration, Instant};

use super::figure::{Figure, Limit, median, milliseconds};
use super::run::{command, sample};
use super::server::BenchServer;
use crate::error::CliError;

/// How long the pool may take to have a machine.
const LIMIT: Duration = Duration::from_secs(180);

/// Left to the server after the pool is full, so that it has nothing else to do.
const SETTLE: Duration = Duration::from_millis(500);

/// Creates for each round, and commands in each VM.
const CREATES_A_ROUND: usize = 4;
const COMMANDS: usize = 8;

/// Measures with a server of its own.
pub(super) async fn measure(rounds: usize) -> Result<Vec<Figure>, CliError> {
    let server = BenchServer::start_with(&[("ENABLE_WARM_POOL", "true")]).await?;
    let measured = measure_with(&server, rounds).await;
    server.end().await;
    Ok(vec![measured?])
}

async fn measure_with(server: &BenchServer, rounds: usize) -> Result<Figure, CliError> {
    let client = server.client()?;
    let (mut created, mut ran) = (Vec::new(), Vec::new());
    for round in 0..=rounds * CREATES_A_ROUND {
        full(server).await?;
        let begun = Instant::now();
        let vm = client.create_vm(&super::vm(256)).await?;
        let took = milliseconds(begun);
        if vm.rest.get("startedFrom").is_none_or(|from| from != "pool") {
            return Err(CliError::Failed("a VM did not come from the pool".into()));
        }
        for number in 0..COMMANDS {
            let sample = sample(&client, command(&client, &vm.id, "true")).await?;
            // The first finds nothing in the caches.
            if number > 0 && round > 0 {
                ran.push(sample.wall);
            }
        }
        if round > 0 {
            created.push(took);
        }
        client.delete_vm(&vm.id).await?;
    }
    Ok(Figure::beside(
        "create from the pool to 201, p50",
        median(&created),
        median(&ran),
        "one exec of true in these VMs",
        Limit::Times(3.0),
    ))
}

async fn full(server: &BenchServer) -> Result<(), CliError> {
    let begun = Instant::now();
    while server.pooled() == 0 {
        if begun.elapsed() > LIMIT {
            return Err(CliError::Failed("the pool was not filled in time".into()));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(SETTLE).await;
    Ok(())
}
