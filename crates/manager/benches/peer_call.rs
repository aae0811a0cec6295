//! What the manager itself spends on a peer call: from the consumer's request on its channel to the answer on it, with
//! everything that a call is held to, over machines that are nothing but their agents' ends of the channel.
//!
//! `cargo bench -p rds-manager`. The limits are those of the design: 150 µs at the middle, 1 ms for one in a hundred.
//! The figures hold the HTTP/2 work of both agents' ends too, so the manager's own part is smaller.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rds_manager::App;
use rds_protocol::link;
use rds_protocol::peer::INVOKE;
use rds_vmm::Hypervisor;
use serde_json::json;

#[path = "../tests/manager/agents.rs"]
mod agents;
use agents::{Agents, Failure, config, vm};

/// Calls that are measured, after as many again that are not.
const CALLS: usize = 5_000;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let root = tempfile::tempdir()?;
    let machines = Arc::new(Agents::new());
    let app = App::start_with(config(root.path())?, Arc::clone(&machines) as Arc<dyn Hypervisor>).await?;
    let provider = app.vms.create(vm(&json!([]))?).await?.id;
    let consumer = app.vms.create(vm(&json!([{"alias": "mail", "vmId": provider}]))?).await?.id;
    let mut calls = calls_out(&machines, &consumer).await?;
    let mut times = Vec::with_capacity(CALLS);
    for round in 0..2 * CALLS {
        let took = call(&mut calls).await?;
        if round >= CALLS {
            times.push(took);
        }
    }
    times.sort();
    let (p50, p99) = (times[CALLS / 2], times[CALLS * 99 / 100]);
    println!("a peer call in the manager, of {CALLS}: p50 {p50:?} (at most 150 µs), p99 {p99:?} (at most 1 ms)");
    if p50 > Duration::from_micros(150) || p99 > Duration::from_millis(1) {
        return Err("over the limit".into());
    }
    Ok(())
}

/// A call as a proxy sends it, with arguments of some size and depth.
async fn call(calls: &mut SendRequest<Full<Bytes>>) -> Result<Duration, Failure> {
    let message = json!({
        "to": ["ann@example.com", "bob@example.com"], "subject": "Minutes", "body": "The meeting began. ".repeat(20),
        "options": {"draft": false, "priority": 3},
    });
    let body = json!({"alias": "mail", "modulePath": "/workspace/sdk.ts", "exportName": "send", "args": [message]});
    let request = Request::post(format!("http://manager{INVOKE}")).body(Full::new(body.to_string().into()))?;
    let begun = Instant::now();
    let reply = calls.send_request(request).await?;
    let status = reply.status();
    let body = reply.into_body().collect().await?.to_bytes();
    let took = begun.elapsed();
    if status != StatusCode::OK {
        return Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into());
    }
    Ok(took)
}

/// A consumer's end of its channel out, as its agent would use it.
async fn calls_out(machines: &Agents, consumer: &str) -> Result<SendRequest<Full<Bytes>>, Failure> {
    loop {
        let found = {
            let mut out = machines.out.lock().map_err(|_| "poisoned")?;
            let dir = out.keys().find(|dir| dir.ends_with(consumer)).cloned();
            dir.and_then(|dir| out.remove(&dir))
        };
        if let Some(mut stream) = found {
            link::accept(&mut stream).await?;
            let io = TokioIo::new(stream);
            let (calls, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            return Ok(calls);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
