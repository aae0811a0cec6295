//! Creating VMs from seeds and snapshots, beside machines that are restored by hand from the same files.

use std::time::{Duration, Instant};

use rds_vmm::hypervisor::SnapshotDir;
use reqwest::Method;
use serde_json::{Value, json};

use super::by_hand::{ByHand, MEM_MIB};
use super::cold::only_file;
use super::figure::{Figure, Limit, median, milliseconds, percentile};
use super::server::BenchServer;
use crate::api::{CreateVm, RunResult};
use crate::client::Client;
use crate::error::CliError;

/// How long a seed may take to be made.
const SEED_LIMIT: Duration = Duration::from_secs(180);

/// Warm creates for each round.
const CREATES_A_ROUND: usize = 10;

/// Megabytes that are written before a snapshot is taken.
const WRITTEN_MB: u32 = 100;

/// Measures with a server of its own, which has seeds; `unseeded` has none.
pub(super) async fn measure(unseeded: &Client, rounds: usize) -> Result<Vec<Figure>, CliError> {
    let server = BenchServer::start(true).await?;
    let measured = measure_with(&server, unseeded, rounds).await;
    server.end().await;
    measured
}

async fn measure_with(server: &BenchServer, unseeded: &Client, rounds: usize) -> Result<Vec<Figure>, CliError> {
    let client = server.client()?;
    let seed = seeded(server, &client).await?;
    // The first of each finds nothing in the caches.
    create(&client, None).await?;
    create(unseeded, None).await?;
    let by_hand = ByHand::new(server).await?;
    by_hand.end(by_hand.start(Some(&seed)).await?).await?;
    let mut driver = Vec::new();
    let (mut created, mut used, mut restored, mut cold) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        cold.push(create(unseeded, None).await?.to_201);
        for _ in 0..CREATES_A_ROUND {
            let times = create(&client, None).await?;
            created.push(times.to_201);
            used.push(times.to_exec);
            let machine = by_hand.start(Some(&seed)).await?;
            restored.push(machine.took);
            driver.push(machine.driver);
            by_hand.end(machine).await?;
        }
    }
    let kept = Kept::measure(&client, rounds).await?;
    let forked = forks(&client, rounds).await?;
    let to_exec = |name: &str, share: f64, times: f64| {
        let name = format!("create from a seed to the first exec, {name}");
        let by_hand_is = "the seed restored by hand to the agent's first answer";
        Figure::beside(name, percentile(&used, share), percentile(&restored, share), by_hand_is, Limit::Times(times))
    };
    let of_vm = |name: &str, measured, limit| Figure::alone(name, "ms", measured, Limit::AtMost(limit));
    Ok(vec![
        to_exec("p50", 0.5, 1.25),
        to_exec("p99", 0.99, 2.0),
        Figure::beside("create from a seed", median(&created), median(&cold), "a cold create", Limit::Times(0.1)),
        Figure::beside(
            format!("create from a snapshot of {WRITTEN_MB} MB"),
            median(&kept.created),
            median(&created),
            "a create from a seed",
            Limit::Times(1.2),
        ),
        Figure::beside(
            "fork of a running VM to the first exec in the fork",
            median(&forked),
            median(&used),
            "a create from a seed to the first exec",
            Limit::Times(1.5),
        ),
        of_vm(&format!("snapshot of {WRITTEN_MB} MB, guest frozen"), median(&kept.frozen), 50.0),
        of_vm(&format!("snapshot of {WRITTEN_MB} MB, total"), median(&kept.total), 400.0),
        of_vm("processor time of the driver itself in a restore", median(&driver), 10.0),
    ])
}

/// Waits for the image's seed and gives its directory.
pub(super) async fn seeded(server: &BenchServer, client: &Client) -> Result<SnapshotDir, CliError> {
    let begun = Instant::now();
    loop {
        let seeds = client.request(Method::GET, &["v1", "snapshots"]).query(&[("scope", "internal")]);
        let seeds: Vec<Value> = client.json(seeds).await?;
        if seeds.iter().any(|seed| seed["status"] == "ready") {
            return only_file(&server.root().join("seeds")).map(SnapshotDir);
        }
        if begun.elapsed() > SEED_LIMIT {
            return Err(CliError::Failed("the image's seed was not made in time".into()));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Milliseconds from the request.
struct Times {
    to_201: f64,
    to_exec: f64,
}

async fn create(client: &Client, snapshot: Option<&str>) -> Result<Times, CliError> {
    let wish = CreateVm { user_overlay_snapshot_id: snapshot.map(str::to_owned), ..super::vm(MEM_MIB) };
    let begun = Instant::now();
    let vm = client.create_vm(&wish).await?;
    let to_201 = milliseconds(begun);
    let ran: RunResult = client.post_vm(&vm.id, "exec", &json!({"cmd": "true"})).await?;
    let to_exec = milliseconds(begun);
    client.delete_vm(&vm.id).await?;
    if ran.exit_code != 0 {
        return Err(CliError::Failed(format!("`true` ended with {}", ran.exit_code)));
    }
    Ok(Times { to_201, to_exec })
}

/// Milliseconds from the request for a fork to the first command in it.
async fn forks(client: &Client, rounds: usize) -> Result<Vec<f64>, CliError> {
    let source = client.create_vm(&super::vm(MEM_MIB)).await?.id;
    let mut times = Vec::new();
    for _ in 0..rounds {
        let begun = Instant::now();
        let forks: Value = client.post_vm(&source, "fork", &json!({"count": 1})).await?;
        for fork in forks["vms"].as_array().into_iter().flatten() {
            let id = fork["id"].as_str().unwrap_or_default();
            let _: RunResult = client.post_vm(id, "exec", &json!({"cmd": "true"})).await?;
            times.push(milliseconds(begun));
            client.delete_vm(id).await?;
        }
    }
    client.delete_vm(&source).await?;
    Ok(times)
}

/// Milliseconds of what concerns snapshots.
struct Kept {
    frozen: Vec<f64>,
    total: Vec<f64>,
    created: Vec<f64>,
}

impl Kept {
    async fn measure(client: &Client, rounds: usize) -> Result<Self, CliError> {
        let vm = client.create_vm(&super::vm(MEM_MIB)).await?.id;
        let cmd = format!("head -c {WRITTEN_MB}000000 /dev/urandom > written && sync");
        let _: RunResult = client.post_vm(&vm, "exec", &json!({"cmd": cmd, "timeoutMs": 60_000})).await?;
        let mut kept = Self { frozen: Vec::new(), total: Vec::new(), created: Vec::new() };
        for _ in 0..rounds {
            let begun = Instant::now();
            let request = client.request(Method::POST, &["v1", "vms", &vm, "snapshots"]);
            let snapshot: Value = client.json(request).await?;
            kept.total.push(milliseconds(begun));
            kept.frozen.push(snapshot.get("frozenMs").and_then(Value::as_f64).unwrap_or(f64::NAN));
            let id = snapshot.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
            kept.created.push(create(client, Some(&id)).await?.to_201);
            client.send(client.request(Method::DELETE, &["v1", "snapshots", &id])).await?;
        }
        client.delete_vm(&vm).await?;
        Ok(kept)
    }
}
