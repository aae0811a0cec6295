//! What the manager itself spends on a peer call: from the consumer's request on its channel to the answer on it, with
//! everything that a call is held to, over machines that are nothing but their agents' ends of the channel.
//!
//! `cargo bench -p rds-manager`. The limits are those of the design: 150 µs at the middle, 1 ms for one in a hundred.
//! The figures hold the HTTP/2 work of both agents' ends too, so the manager's own part is smaller.

use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use clap::{Args as _, Command, FromArgMatches as _};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rds_manager::vms::request::CreateVm;
use rds_manager::{App, Config};
use rds_protocol::files::{FileKind, Stat};
use rds_protocol::guest::Configured;
use rds_protocol::peer::{Bridge, INVOKE, Offered, Outcome};
use rds_protocol::{link, routes};
use rds_vmm::VmId;
use rds_vmm::hypervisor::{ByteStream, Description, Hypervisor, HypervisorError, Log, MachineSpec, Port, SnapshotDir};
use serde_json::{Value, json};
use tokio::io::{DuplexStream, duplex};

/// Calls that are measured, after as many again that are not.
const CALLS: usize = 5_000;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let root = tempfile::tempdir()?;
    let machines = Arc::new(Agents::new());
    let app = App::start_with(config(root.path())?, Arc::clone(&machines) as Arc<dyn Hypervisor>).await?;
    let provider = app.vms.create(vm(&json!([]))?).await?.id;
    let consumer = app.vms.create(vm(&json!([{"alias": "mail", "vmId": provider}]))?).await?.id;
    let mut calls = machines.calls_out(&consumer).await?;
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

fn manifest() -> Value {
    let message = json!({
        "type": "object", "required": ["to", "subject", "body"], "additionalProperties": false,
        "properties": {
            "to": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "email"}},
            "subject": {"type": "string", "maxLength": 200}, "body": {"type": "string"},
            "options": {"type": "object", "properties": {"draft": {"type": "boolean"}, "priority": {"type": "integer"}}},
        },
    });
    let send = json!({
        "name": "send", "description": "Sends a message", "examples": [{"description": "One", "code": "send({})"}],
        "params": [{"name": "message", "description": "The message", "schema": message}],
        "returns": {"description": "Its id", "schema": {"type": "object", "properties": {"id": {"type": "string"}}}},
    });
    json!({"sdk": {"name": "Mail", "description": "Sends"}, "modules": [{"path": "sdk.ts", "exports": [send]}]})
}

fn vm(links: &Value) -> Result<CreateVm, Failure> {
    let secrets = ["KEY=a-secret-of-some-length", "TOKEN=another-secret-of-more-length-than-that"];
    Ok(serde_json::from_value(
        json!({"cpu": 1, "memMb": 128, "allowIps": [], "peerLinks": links, "secretEnv": secrets}),
    )?)
}

/// A server whose image is just enough of one to be accepted.
fn config(root: &Path) -> Result<Config, Failure> {
    let rootfs = root.join("rootfs");
    let mut superblock = vec![0; 8192];
    superblock[1024 + 4..1024 + 8].copy_from_slice(&8_u32.to_le_bytes());
    superblock[1024 + 0x38..1024 + 0x3a].copy_from_slice(&[0x53, 0xef]);
    std::fs::write(&rootfs, superblock)?;
    let agent = root.join("agent");
    std::fs::write(&agent, b"\x7fELF and no more")?;
    let kernel = std::env::current_exe()?;
    let mut args = vec!["bench".into(), "--api-key".into(), "key".into(), "--vm-secret-key".into(), "words".into()];
    args.extend(["--enable-snapshots".into(), "false".into()]);
    for (flag, path) in [
        ("--storage-root", &root.join("storage")),
        ("--kernel-path", &kernel),
        ("--base-rootfs-path", &rootfs),
        ("--rds-agent-path", &agent),
    ] {
        args.extend([flag.into(), path.clone().into_os_string()]);
    }
    args.push("--network=off".into());
    let matches = Config::augment_args(Command::new("bench")).try_get_matches_from(args)?;
    Ok(Config::from_arg_matches(&matches)?.validated()?)
}

/// Machines without processors: their agents answer at once, from memory.
#[derive(Debug)]
struct Agents {
    description: Description,
    /// The guests' ends of the channels out.
    out: Mutex<HashMap<PathBuf, DuplexStream>>,
}

impl Agents {
    fn new() -> Self {
        let reason = "the benchmark runs no guest".to_owned();
        let description = Description { name: "none", version: "0".into(), accelerator: "none", reason };
        Self { description, out: Mutex::default() }
    }

    /// A consumer's end of its channel out, as its agent would use it.
    async fn calls_out(&self, consumer: &str) -> Result<SendRequest<Full<Bytes>>, Failure> {
        loop {
            let found = {
                let mut out = self.out.lock().map_err(|_| "poisoned")?;
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
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    // Whatever comes is read, as an agent would.
    let _ = body.collect().await;
    let reply = match (&head.method, head.uri.path()) {
        (&Method::POST, routes::CONFIGURE) => to_json(&Configured { mount_us: 0, total_us: 0, clock_us: 0 }),
        (&Method::POST, routes::BRIDGE) => to_json(&Bridge { port: 1 }),
        (&Method::GET, routes::CONTENT) => manifest().to_string().into(),
        (&Method::GET, routes::STAT) => {
            to_json(&Stat { name: "sdk.ts".into(), kind: FileKind::File, size: 1, mode: 0o644, modified_ms: 0 })
        }
        (&Method::POST, routes::OFFER) => to_json(&Offered { uncallable: Vec::new() }),
        (&Method::POST, routes::CALL) => to_json(&Outcome::Returned(json!({"id": "message-1"}))),
        _ => Bytes::new(),
    };
    Ok(Response::new(Full::new(reply)))
}

fn to_json(value: &impl serde::Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

#[async_trait]
impl Hypervisor for Agents {
    fn description(&self) -> &Description {
        &self.description
    }

    async fn boot(&self, _: &MachineSpec) -> Result<(), HypervisorError> {
        Ok(())
    }

    async fn restore(&self, _: &MachineSpec, _: &SnapshotDir) -> Result<(), HypervisorError> {
        Err(HypervisorError::NotRunning)
    }

    async fn disk_changed(&self, _: &Path, _: u64) -> Result<(), HypervisorError> {
        Ok(())
    }

    async fn pause(&self, _: &Path) -> Result<(), HypervisorError> {
        Ok(())
    }

    async fn resume(&self, _: &Path) -> Result<(), HypervisorError> {
        Ok(())
    }

    async fn snapshot(&self, _: &Path, _: &SnapshotDir) -> Result<(), HypervisorError> {
        Err(HypervisorError::NotRunning)
    }

    async fn connect(&self, dir: &Path, port: Port) -> Result<Box<dyn ByteStream>, HypervisorError> {
        let (host, mut guest) = duplex(64 * 1024);
        match port {
            Port::Out => {
                self.out.lock().map_err(|_| HypervisorError::NotRunning)?.insert(dir.to_owned(), guest);
            }
            Port::In => {
                tokio::spawn(async move {
                    link::accept(&mut guest).await?;
                    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    server.serve_connection(TokioIo::new(guest), service_fn(answer)).await?;
                    Ok::<_, Failure>(())
                });
            }
        }
        Ok(Box::new(host))
    }

    fn fingerprint(&self) -> String {
        String::new()
    }

    async fn is_listening(&self, _: &Path) -> Result<bool, HypervisorError> {
        Ok(true)
    }

    async fn is_running(&self, _: &Path) -> bool {
        true
    }

    async fn wait(&self, _: &Path) {
        std::future::pending::<()>().await;
    }

    async fn kill(&self, _: &Path) -> Result<(), HypervisorError> {
        Ok(())
    }

    async fn find(&self, _: &Path) -> Vec<VmId> {
        Vec::new()
    }

    fn trim_logs(&self, _: &Path) {}

    fn log_file(&self, dir: &Path, _: Log) -> PathBuf {
        dir.join("log")
    }
}
