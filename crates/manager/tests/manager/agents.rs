//! Machines without processors: their agents answer at once, from memory.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use clap::{Args as _, Command, FromArgMatches as _};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rds_manager::Config;
use rds_manager::vms::request::CreateVm;
use rds_protocol::files::{FileKind, Stat};
use rds_protocol::guest::{Clock, Configure, Health};
use rds_protocol::peer::{Bridge, Offered, Outcome};
use rds_protocol::{GENERATION, MISTIMED, link, routes};
use rds_vmm::VmId;
use rds_vmm::hypervisor::{
    ByteStream, Description, DiskLimits, Hypervisor, HypervisorError, Log, MachineSpec, MemoryLimit, Port, SnapshotDir,
};
use serde_json::{Value, json};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::Notify;

/// How late the time is told by agents that are slow.
pub(crate) const SLOW: Duration = Duration::from_millis(2500);

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

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

pub(crate) fn vm(links: &Value) -> Result<CreateVm, Failure> {
    let secrets = ["KEY=a-secret-of-some-length", "TOKEN=another-secret-of-more-length-than-that"];
    Ok(serde_json::from_value(
        json!({"cpu": 1, "memMb": 128, "allowIps": [], "peerLinks": links, "secretEnv": secrets}),
    )?)
}

/// A server whose image is just enough of one to be accepted.
pub(crate) fn config(root: &Path) -> Result<Config, Failure> {
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

/// The monitor, and what the agents of all its machines know.
#[derive(Debug)]
pub(crate) struct Agents {
    description: Description,
    /// The guests' ends of the channels out.
    pub(crate) out: Mutex<HashMap<PathBuf, DuplexStream>>,
    pub(crate) known: Arc<Known>,
}

/// What the agents know, and how they behave.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Secrets by VM.
    secrets: Mutex<HashMap<String, BTreeMap<String, String>>>,
    /// New secrets are answered with an error, and not taken.
    pub(crate) refuses: AtomicBool,
    /// A machine has ended by itself.
    pub(crate) ended: Notify,
    /// No machine can be ended.
    pub(crate) endless: AtomicBool,
    /// No machine can be paused.
    pub(crate) restless: AtomicBool,
    /// No machine can be resumed.
    pub(crate) stuck: AtomicBool,
    /// Calls return the secret `KEY`.
    pub(crate) tells: AtomicBool,
    /// Calls are not answered.
    pub(crate) hangs: AtomicBool,
    /// The time is told late.
    pub(crate) slow: AtomicBool,
    /// So many machines that are booted from now on have a kernel that measured its timer wrong.
    pub(crate) mistimed: AtomicU32,
    /// So often was a machine booted.
    pub(crate) boots: AtomicU32,
    /// The memory of a machine is being saved.
    pub(crate) saving: Notify,
    /// It may come to its end.
    pub(crate) save: Notify,
    /// A driver would keep something of what it saved last.
    pub(crate) keeps: AtomicBool,
}

impl Known {
    /// The agent of a VM has these secrets from now on.
    pub(crate) fn take(&self, vm: &str, secrets: BTreeMap<String, String>) {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).insert(vm.to_owned(), secrets);
    }

    /// The secret `KEY` of a VM.
    pub(crate) fn key(&self, vm: &str) -> String {
        let secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.get(vm).and_then(|secrets| secrets.get("KEY")).cloned().unwrap_or_default()
    }

    fn returned(&self, vm: &str) -> Value {
        json!({"id": if self.tells.load(Ordering::Relaxed) { self.key(vm) } else { "message-1".to_owned() }})
    }
}

impl Agents {
    pub(crate) fn new() -> Self {
        let reason = "no guest is run".to_owned();
        let description = Description { name: "none", version: "0".into(), accelerator: "none", reason };
        Self { description, out: Mutex::default(), known: Arc::default() }
    }
}

async fn answer(request: Request<Incoming>, vm: Arc<str>, known: Arc<Known>) -> Result<Response<Full<Bytes>>, Failure> {
    let (head, body) = request.into_parts();
    // Whatever comes is read, as an agent would.
    let body = body.collect().await?.to_bytes();
    let reply = match (&head.method, head.uri.path()) {
        (&Method::GET, routes::HEALTH) => {
            to_json(&Health { generation: GENERATION, configured: true, uptime_ms: 1, resident_bytes: 1 })
        }
        (&Method::POST, routes::CONFIGURE) => {
            known.take(&vm, serde_json::from_slice::<Configure>(&body)?.secret_env);
            to_json(&Clock { clock_us: now_us() })
        }
        (&Method::PUT, routes::SECRETS) if known.refuses.load(Ordering::Relaxed) => {
            let mut refused = Response::new(Full::default());
            *refused.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            return Ok(refused);
        }
        (&Method::PUT, routes::SECRETS) => {
            known.take(&vm, serde_json::from_slice(&body)?);
            Bytes::new()
        }
        (_, routes::CLOCK) => {
            if known.slow.load(Ordering::Relaxed) {
                tokio::time::sleep(SLOW).await;
            }
            to_json(&Clock { clock_us: now_us() })
        }
        (&Method::POST, routes::BRIDGE) => to_json(&Bridge { port: 1 }),
        (&Method::GET, routes::CONTENT) => manifest().to_string().into(),
        (&Method::GET, routes::STAT) => {
            to_json(&Stat { name: "sdk.ts".into(), kind: FileKind::File, size: 1, mode: 0o644, modified_ms: 0 })
        }
        (&Method::POST, routes::OFFER) => to_json(&Offered { uncallable: Vec::new() }),
        (&Method::POST, routes::CALL) if known.hangs.load(Ordering::Relaxed) => std::future::pending().await,
        (&Method::POST, routes::CALL) => to_json(&Outcome::Returned(known.returned(&vm))),
        _ => Bytes::new(),
    };
    Ok(Response::new(Full::new(reply)))
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

fn to_json(value: &impl serde::Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

#[async_trait]
impl Hypervisor for Agents {
    fn description(&self) -> &Description {
        &self.description
    }

    async fn boot(&self, spec: &MachineSpec) -> Result<(), HypervisorError> {
        self.known.boots.fetch_add(1, Ordering::Relaxed);
        if self.known.mistimed.load(Ordering::Relaxed) > 0 {
            std::fs::write(self.log_file(&spec.dir, Log::Serial), MISTIMED).expect("room for a line");
        }
        Ok(())
    }

    async fn restore(&self, _: &MachineSpec, _: &SnapshotDir) -> Result<(), HypervisorError> {
        Err(HypervisorError::NotRunning)
    }

    async fn disk_changed(&self, _: &Path, _: u64) -> Result<(), HypervisorError> {
        Ok(())
    }

    async fn limit_disk(&self, _: &Path, _: DiskLimits) -> Result<(), HypervisorError> {
        Ok(())
    }

    async fn limit_memory(&self, _: &Path, _: MemoryLimit) -> Result<(), HypervisorError> {
        Ok(())
    }

    async fn pause(&self, _: &Path) -> Result<(), HypervisorError> {
        let restless = self.known.restless.load(Ordering::Relaxed);
        if restless { Err(HypervisorError::Timeout("stop")) } else { Ok(()) }
    }

    async fn resume(&self, _: &Path) -> Result<(), HypervisorError> {
        let stuck = self.known.stuck.load(Ordering::Relaxed);
        if stuck { Err(HypervisorError::Timeout("cont")) } else { Ok(()) }
    }

    async fn snapshot(&self, _: &Path, to: &SnapshotDir) -> Result<(), HypervisorError> {
        self.known.saving.notify_one();
        self.known.save.notified().await;
        self.known.keeps.store(true, Ordering::Relaxed);
        std::fs::write(to.0.join("memory"), "m").expect("room for a letter");
        Ok(())
    }

    fn forget_saved(&self, _: &Path) {
        self.known.keeps.store(false, Ordering::Relaxed);
    }

    async fn connect(&self, dir: &Path, port: Port) -> Result<Box<dyn ByteStream>, HypervisorError> {
        let mistimed = self.known.mistimed.load(Ordering::Relaxed);
        if mistimed > 0 {
            self.known.mistimed.store(mistimed - 1, Ordering::Relaxed);
            return Err(HypervisorError::NotRunning);
        }
        let (host, mut guest) = duplex(64 * 1024);
        match port {
            Port::Out => {
                self.out.lock().map_err(|_| HypervisorError::NotRunning)?.insert(dir.to_owned(), guest);
            }
            Port::In => {
                let vm: Arc<str> = dir.file_name().unwrap_or_default().to_string_lossy().into();
                let known = Arc::clone(&self.known);
                tokio::spawn(async move {
                    link::accept(&mut guest).await?;
                    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let answer = move |request| answer(request, Arc::clone(&vm), Arc::clone(&known));
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
        self.known.ended.notified().await;
    }

    async fn kill(&self, _: &Path) -> Result<(), HypervisorError> {
        let endless = self.known.endless.load(Ordering::Relaxed);
        if endless { Err(HypervisorError::Timeout("ending the process")) } else { Ok(()) }
    }

    async fn find(&self, _: &Path) -> Vec<VmId> {
        Vec::new()
    }

    fn trim_logs(&self, _: &Path) {}

    fn log_file(&self, dir: &Path, _: Log) -> PathBuf {
        dir.join("log")
    }
}
