//! Calls between two VMs, beside the same bytes passed between the same two agents by hand.

use std::time::Instant;

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::figure::{Figure, Limit, median, milliseconds, percentile};
use super::peer_floor::Pair;
use super::run::sample;
use super::server::{BenchServer, PROGRAM_LIMIT_MS, resident_mb};
use super::vm;
use crate::api::{CreateVm, PeerLink};
use crate::archive;
use crate::client::Client;
use crate::error::CliError;

/// Memory of each VM in MiB.
const MEM_MB: u32 = 256;

/// Calls at once, and calls of the burst.
const AT_ONCE: usize = 50;
const BURST: usize = 1000;

/// Calls of one caller before the measured ones: the consumer's runtime translates the code that makes them again and
/// again until then. Calls from the first to the second number are what a short program sees.
const YOUNG: (usize, usize) = (100, 300);
const WARM: usize = 1500;
const MEASURED: usize = 300;

/// Starts of an interpreter a round, and creates a round.
const STARTS_A_ROUND: usize = 2;

const SDK: &str = "export function add(a: number, b: number): number {\n  return a + b;\n}\n";

/// What the consumer's code measured, in milliseconds.
#[derive(Debug, Deserialize)]
struct Calls {
    young: Vec<f64>,
    one: Vec<f64>,
    many: Vec<f64>,
    lost: f64,
}

/// Measures calls by one caller and by many, and what being linked adds to a create.
pub(super) async fn measure(client: &Client, server: &BenchServer, rounds: usize) -> Result<Vec<Figure>, CliError> {
    let (provider, consumer) = pair(client).await?;
    let mut figures = calls(client, server, &provider, &consumer, rounds).await?;
    client.delete_vm(&consumer).await?;
    figures.push(creates(client, &provider, rounds).await?);
    client.delete_vm(&provider).await?;
    Ok(figures)
}

/// Calls on this server beside calls on one whose VMs run in QEMU.
pub(super) async fn beside_qemu(client: &Client, rounds: usize) -> Result<Figure, CliError> {
    let server = BenchServer::start_with(&[("RDS_HYPERVISOR", "qemu"), ("RDS_ACCELERATOR", "kvm")]).await?;
    let measured = both(client, &server.client()?, rounds).await;
    server.end().await;
    let (ours, qemu) = measured?;
    Ok(Figure::beside(
        "peer call, warm, p50",
        median(&ours),
        median(&qemu),
        "the same in VMs of QEMU with KVM",
        Limit::Times(1.2),
    ))
}

/// Milliseconds of calls on two servers, measured by turns.
async fn both(one: &Client, other: &Client, rounds: usize) -> Result<(Vec<f64>, Vec<f64>), CliError> {
    let ((provider, consumer), (other_provider, other_consumer)) = (pair(one).await?, pair(other).await?);
    let (mut on_one, mut on_other) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        on_one.extend(run_calls(one, &consumer).await?.one);
        on_other.extend(run_calls(other, &other_consumer).await?.one);
    }
    for (client, vms) in [(one, [consumer, provider]), (other, [other_consumer, other_provider])] {
        for vm in vms {
            client.delete_vm(&vm).await?;
        }
    }
    Ok((on_one, on_other))
}

/// A provider, and a consumer that is linked to it.
async fn pair(client: &Client) -> Result<(String, String), CliError> {
    let provider = client.create_vm(&vm(MEM_MB)).await?.id;
    let manifest = manifest().to_string();
    let files = [("sdk.ts", SDK.as_bytes()), (".rds-peer/manifest.json", manifest.as_bytes())];
    let packed = archive::pack_files(&files).map_err(CliError::file("archive"))?;
    client.upload(&provider, "/workspace", packed).await?;
    let consumer = client.create_vm(&linked(&provider, 1)).await?.id;
    Ok((provider, consumer))
}

fn linked(provider: &str, links: usize) -> CreateVm {
    let link =
        |n| PeerLink { alias: format!("bench{n}"), vm_id: provider.into(), source_mode: "hidden".into(), policy: None };
    CreateVm { peer_links: (0..links).map(link).collect(), ..vm(MEM_MB) }
}

fn manifest() -> Value {
    let number = |name: &str| json!({"name": name, "description": "A number", "schema": {"type": "number"}});
    let add = json!({
        "name": "add", "description": "Adds", "params": [number("a"), number("b")],
        "returns": {"description": "The sum", "schema": {"type": "number"}},
        "examples": [{"description": "A sum", "code": "await add(1, 2)"}],
    });
    json!({"sdk": {"name": "Bench", "description": "Adds"}, "modules": [{"path": "sdk.ts", "exports": [add]}]})
}

async fn calls(
    client: &Client,
    server: &BenchServer,
    provider: &str,
    consumer: &str,
    rounds: usize,
) -> Result<Vec<Figure>, CliError> {
    let by_hand = Pair::boot(server).await?;
    let (mut one, mut many, mut floor, mut lost) = (Vec::new(), Vec::new(), Vec::new(), 0.0);
    let mut young = Vec::new();
    let mut starts = Vec::new();
    let mut memory = Vec::new();
    for _ in 0..rounds {
        let calls = run_calls(client, consumer).await?;
        young.extend(calls.young);
        one.extend(calls.one);
        many.extend(calls.many);
        lost += calls.lost;
        memory.push(resident_mb(server.pid()).unwrap_or(f64::NAN));
        floor.extend(by_hand.round_trips().await?);
        for _ in 0..STARTS_A_ROUND {
            let code = "import { add } from \"file:///workspace/sdk.ts\"; result.set(add(1, 2));";
            let request = client.request(Method::POST, &["v1", "vms", provider, "run-ts"]).json(&json!({"code": code}));
            starts.push(sample(client, request).await?.wall);
        }
    }
    by_hand.end().await?;
    let (p50, p99) = (percentile(&one, 0.5), percentile(&one, 0.99));
    let hand = "the same bytes to both agents and back, by hand";
    let times = |name: &str, measured, floor, floor_is, limit| {
        Figure::beside(name, measured, floor, floor_is, Limit::Times(limit))
    };
    let (first, last) = YOUNG;
    let young_name = format!("peer call, a program's {first}th to {last}th, p50");
    // The first rounds fill caches and the allocator's pools.
    let grown = memory.last().zip(memory.get(memory.len() / 2)).map_or(f64::NAN, |(last, middle)| last - middle);
    Ok(vec![
        times("peer call, warm, p50", p50, percentile(&floor, 0.5), hand, 2.0),
        times("peer call, warm, p99", p99, percentile(&floor, 0.99), hand, 4.0),
        Figure::beside(young_name, median(&young), percentile(&floor, 0.5), hand, Limit::Any),
        times("peer call, warm, p50", p50, median(&starts), "starting the interpreter for the call", 1.0 / 30.0),
        Figure::alone("calls lost of 1,000, 50 at once, each round", "", lost, Limit::AtMost(0.0)),
        times("peer call, 50 at once, p99", percentile(&many, 0.99), median(&many), "their own p50", 5.0),
        Figure::alone("server's memory grown by the later calls", "MB", grown, Limit::AtMost(4.0)),
    ])
}

/// One caller, then many at once.
fn program() -> String {
    let (first, last) = YOUNG;
    format!(
        "import {{ add }} from \"file:///workspace/peers/bench0/proxy/sdk.ts\";
async function timed(list) {{
  const begun = performance.now();
  const sum = await add(1, 2).catch(() => undefined);
  list.push(performance.now() - begun);
  return sum === 3 ? 0 : 1;
}}
const [other, young, one, many] = [[], [], [], []];
let lost = 0;
for (let n = 0; n < {WARM} + {MEASURED}; n++) {{
  lost += await timed(n >= {WARM} ? one : n >= {first} && n < {last} ? young : other);
}}
const caller = async () => {{ for (let n = 0; n < {BURST} / {AT_ONCE}; n++) lost += await timed(many); }};
await Promise.all(Array.from({{ length: {AT_ONCE} }}, caller));
result.set({{ young, one, many, lost }});"
    )
}

/// Runs the program in a consumer.
async fn run_calls(client: &Client, consumer: &str) -> Result<Calls, CliError> {
    let body = json!({"code": program(), "timeoutMs": PROGRAM_LIMIT_MS});
    let run: crate::api::RunResult = client.post_vm(consumer, "run-ts", &body).await?;
    match run.rest.get("result") {
        Some(result) if run.exit_code == 0 => {
            serde_json::from_value(result.clone()).map_err(|error| CliError::Answer(error.to_string()))
        }
        _ => Err(CliError::Failed(format!("the measuring program failed: {} {:?}", run.stderr, run.rest.get("error")))),
    }
}

/// Creates with two links beside creates without, by turns.
async fn creates(client: &Client, provider: &str, rounds: usize) -> Result<Figure, CliError> {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        for (wish, times) in [(linked(provider, 2), &mut with), (vm(MEM_MB), &mut without)] {
            let begun = Instant::now();
            let made = client.create_vm(&wish).await?;
            if round > 0 {
                times.push(milliseconds(begun));
            }
            client.delete_vm(&made.id).await?;
        }
    }
    let limit = Limit::Plus((median(&without) * 0.15).max(300.0));
    Ok(Figure::beside("create with 2 links", median(&with), median(&without), "a plain create", limit))
}
