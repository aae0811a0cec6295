//! Commands and programs, beside the same timed inside the guest.

use std::time::Instant;

use reqwest::{Method, RequestBuilder};
use serde_json::json;

use super::figure::{Figure, Limit, median, milliseconds, percentile};
use crate::client::Client;
use crate::error::CliError;

/// Header with the guest's own measure.
const GUEST_TIME: &str = "x-rds-guest-duration-us";

/// One call in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// As the caller sees it.
    pub(super) wall: f64,
    /// As the guest measured it.
    pub(super) guest: f64,
}

/// Sends a run and measures it; one that fails is an error.
pub(super) async fn sample(client: &Client, request: RequestBuilder) -> Result<Sample, CliError> {
    let begun = Instant::now();
    let reply = client.send(request).await?;
    let guest = reply.headers().get(GUEST_TIME).and_then(|time| time.to_str().ok()?.parse::<f64>().ok());
    let guest = guest.ok_or_else(|| CliError::Answer(format!("no header {GUEST_TIME}")))? / 1000.0;
    let result: crate::api::RunResult = reply.json().await.map_err(|error| client.transport(&error))?;
    let wall = milliseconds(begun);
    if result.exit_code != 0 {
        return Err(CliError::Failed(format!("a measured program failed: {}", result.stderr)));
    }
    Ok(Sample { wall, guest })
}

/// A request to run a shell command.
pub(super) fn command(client: &Client, vm: &str, cmd: &str) -> RequestBuilder {
    let body = json!({"cmd": cmd, "timeoutMs": 120_000});
    client.request(Method::POST, &["v1", "vms", vm, "exec"]).json(&body)
}

/// `true`, over the API and by the guest's clock: a percentile of all calls beside the same one of the same calls.
pub(super) async fn exec(client: &Client, vm: &str, count: usize) -> Result<Vec<Figure>, CliError> {
    let (mut wall, mut guest) = (Vec::new(), Vec::new());
    for round in 0..count + 5 {
        let sample = sample(client, command(client, vm, "true")).await?;
        if round >= 5 {
            wall.push(sample.wall);
            guest.push(sample.guest);
        }
    }
    let figure = |name: &str, share: f64, more: f64| {
        Figure::beside(
            format!("exec true, {name}"),
            percentile(&wall, share),
            percentile(&guest, share),
            "the same command timed in the guest",
            Limit::Plus(more),
        )
    };
    Ok(vec![figure("p50", 0.5, 4.0), figure("p99", 0.99, 20.0)])
}

/// `console.log(1)` by run-ts, beside `deno run` of the same file.
pub(super) async fn run_ts(client: &Client, vm: &str, count: usize) -> Result<Figure, CliError> {
    const CODE: &str = "console.log(1)";
    sample(client, command(client, vm, &format!("echo '{CODE}' > bench.ts"))).await?;
    let (mut api, mut floor) = (Vec::new(), Vec::new());
    for round in 0..=count {
        let program = client.request(Method::POST, &["v1", "vms", vm, "run-ts"]).json(&json!({ "code": CODE }));
        let (program, plain) =
            (sample(client, program).await?, sample(client, command(client, vm, "deno run bench.ts")).await?);
        if round > 0 {
            api.push(program.wall);
            floor.push(plain.guest);
        }
    }
    Ok(Figure::beside(
        "run-ts console.log(1), p50",
        median(&api),
        median(&floor),
        "deno run of the same file, timed in the guest",
        Limit::Times(1.1),
    ))
}
