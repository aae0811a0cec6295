//! Firecracker's API: the requests that this driver makes, typed, over its Unix socket.
//!
//! The names are those of its `firecracker.yaml`. What comes back is bounded in size and time: the process at the other
//! end may be anybody's by now.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::HypervisorError;
use crate::hypervisor::DiskLimits;

/// Bytes of a reply; the longest has some hundred.
const REPLY_BYTES: usize = 64 * 1024;

/// Time for a request; most take a millisecond.
const LIMIT: Duration = Duration::from_secs(30);

/// Bytes that a guest may write to its console in a second.
const CONSOLE_BYTES: u64 = 256 * 1024;

/// Time for all of a guest's memory to be written.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(300);

/// A connection to one monitor.
pub(super) struct Api(http1::SendRequest<Full<Bytes>>);

/// `PUT /machine-config`.
#[derive(Debug, Serialize)]
pub(super) struct MachineConfig {
    pub(super) vcpu_count: u8,
    pub(super) mem_size_mib: u32,
}

/// `PUT /boot-source`.
#[derive(Debug, Serialize)]
pub(super) struct BootSource<'a> {
    pub(super) kernel_image_path: &'a str,
    pub(super) initrd_path: &'a str,
    pub(super) boot_args: &'a str,
}

/// `PUT /drives/{drive_id}`.
#[derive(Debug, Serialize)]
pub(super) struct Drive<'a> {
    pub(super) drive_id: &'a str,
    pub(super) path_on_host: &'a str,
    pub(super) is_root_device: bool,
    pub(super) is_read_only: bool,
    /// `Writeback` makes a guest's flush an `fsync`; with `Unsafe` it is nothing.
    pub(super) cache_type: &'static str,
}

impl<'a> Drive<'a> {
    pub(super) fn new(drive_id: &'a str, path_on_host: &'a str, is_read_only: bool) -> Self {
        Self { drive_id, path_on_host, is_root_device: false, is_read_only, cache_type: "Writeback" }
    }
}

/// `PATCH /drives/{drive_id}`.
#[derive(Debug, Serialize)]
pub(super) struct ChangedDrive<'a> {
    pub(super) drive_id: &'a str,
    pub(super) path_on_host: &'a str,
}

/// `PATCH /drives/{drive_id}`, too.
#[derive(Debug, Serialize)]
pub(super) struct LimitedDrive<'a> {
    pub(super) drive_id: &'a str,
    pub(super) rate_limiter: RateLimiter,
}

/// What a device may do in a second.
#[derive(Debug, Serialize)]
pub(super) struct RateLimiter {
    bandwidth: TokenBucket,
    ops: TokenBucket,
}

impl From<DiskLimits> for RateLimiter {
    fn from(limits: DiskLimits) -> Self {
        let bucket = |rate: Option<u64>| match rate {
            // What may come at once is what a bucket holds: a tenth of a second's.
            Some(rate) => TokenBucket { size: rate / 10, refill_time: 100 },
            // Takes away the limit that there may be. One that is not named stays.
            None => TokenBucket { size: 0, refill_time: 0 },
        };
        Self { bandwidth: bucket(limits.bytes_per_second), ops: bucket(limits.ops_per_second) }
    }
}

/// `PUT /balloon`.
#[derive(Debug, Serialize)]
pub(super) struct Balloon {
    amount_mib: u32,
    /// Whether programs get back what they need of it.
    deflate_on_oom: bool,
    /// Whether the guest tells what it has freed, which the host then gets at once.
    free_page_reporting: bool,
}

impl Balloon {
    /// One with nothing in it.
    pub(super) fn empty() -> Self {
        Self { amount_mib: 0, deflate_on_oom: true, free_page_reporting: true }
    }
}

/// `PATCH /balloon`.
#[derive(Debug, Serialize)]
pub(super) struct ChangedBalloon {
    pub(super) amount_mib: u32,
}

/// `PUT /vsock`.
#[derive(Debug, Serialize)]
pub(super) struct Vsock<'a> {
    pub(super) guest_cid: u32,
    pub(super) uds_path: &'a str,
}

/// `PUT /network-interfaces/{iface_id}`.
#[derive(Debug, Serialize)]
pub(super) struct NetworkInterface<'a> {
    pub(super) iface_id: &'a str,
    pub(super) guest_mac: String,
    pub(super) host_dev_name: &'a str,
}

/// `PUT /entropy`.
#[derive(Debug, Serialize)]
pub(super) struct Entropy {}

/// `PUT /serial`.
#[derive(Debug, Serialize)]
pub(super) struct Serial {
    pub(super) rate_limiter: TokenBucket,
}

impl Serial {
    /// A console that takes no more than [`CONSOLE_BYTES`] a second; the rest is dropped.
    pub(super) fn bounded() -> Self {
        Self { rate_limiter: TokenBucket { size: CONSOLE_BYTES, refill_time: 1000 } }
    }
}

/// How much may come in which time.
#[derive(Debug, Serialize)]
pub(super) struct TokenBucket {
    /// Bytes or requests, of which a full bucket is refilled in the time below.
    pub(super) size: u64,
    /// Milliseconds.
    pub(super) refill_time: u64,
}

/// `PUT /actions`.
#[derive(Debug, Serialize)]
#[serde(tag = "action_type")]
pub(super) enum Action {
    InstanceStart,
}

/// `PATCH /vm`.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(tag = "state")]
pub(super) enum VmState {
    Paused,
    Resumed,
}

/// `PUT /snapshot/create`.
#[derive(Debug, Serialize)]
pub(super) struct CreateSnapshot<'a> {
    pub(super) snapshot_type: SnapshotType,
    pub(super) snapshot_path: &'a str,
    pub(super) mem_file_path: &'a str,
}

/// Which pages of the memory a snapshot has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum SnapshotType {
    /// All.
    Full,
    /// Those that were written since the machine was restored, or since its last snapshot.
    Diff,
}

/// `PUT /snapshot/load`.
#[derive(Debug, Serialize)]
pub(super) struct LoadSnapshot<'a> {
    pub(super) snapshot_path: &'a str,
    pub(super) mem_backend: MemoryBackend<'a>,
    pub(super) network_overrides: Vec<NetworkOverride<'a>>,
    /// Whether the monitor counts the pages that are written from now on, for a `Diff` snapshot.
    pub(super) track_dirty_pages: bool,
    pub(super) resume_vm: bool,
}

/// Another tap for an interface that a snapshot has.
#[derive(Debug, Serialize)]
pub(super) struct NetworkOverride<'a> {
    pub(super) iface_id: &'a str,
    pub(super) host_dev_name: &'a str,
}

/// What memory is loaded from.
#[derive(Debug, Serialize)]
pub(super) struct MemoryBackend<'a> {
    pub(super) backend_type: &'static str,
    pub(super) backend_path: &'a str,
}

/// `GET /`.
#[derive(Debug, Deserialize)]
struct Instance {
    state: String,
}

/// A refusal.
#[derive(Debug, Deserialize)]
struct Fault {
    fault_message: String,
}

impl Api {
    pub(super) async fn over(stream: UnixStream) -> Result<Self, HypervisorError> {
        let made = timeout(LIMIT, http1::handshake(TokioIo::new(stream))).await;
        let made = made.map_err(|_| HypervisorError::Timeout("its API"))?;
        let (sender, connection) = made.map_err(|error| broken("its API", error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to Firecracker's API broke");
            }
        });
        Ok(Self(sender))
    }

    pub(super) async fn put(&mut self, path: &'static str, body: &impl Serialize) -> Result<(), HypervisorError> {
        self.request(Method::PUT, path, to_json(body), LIMIT).await.map(drop)
    }

    pub(super) async fn patch(&mut self, path: &'static str, body: &impl Serialize) -> Result<(), HypervisorError> {
        self.request(Method::PATCH, path, to_json(body), LIMIT).await.map(drop)
    }

    pub(super) async fn create_snapshot(&mut self, order: &CreateSnapshot<'_>) -> Result<(), HypervisorError> {
        self.request(Method::PUT, "/snapshot/create", to_json(order), SNAPSHOT_LIMIT).await.map(drop)
    }

    /// Whether the processors stand still.
    pub(super) async fn is_paused(&mut self) -> Result<bool, HypervisorError> {
        let reply = self.request(Method::GET, "/", Bytes::new(), LIMIT).await?;
        // What the parser would say has parts of the answer in it.
        let instance = serde_json::from_slice::<Instance>(&reply).ok();
        let instance = instance.ok_or_else(|| broken("GET /", "its answer says nothing of its state"))?;
        Ok(instance.state == "Paused")
    }

    async fn request(
        &mut self,
        method: Method,
        path: &'static str,
        body: Bytes,
        limit: Duration,
    ) -> Result<Bytes, HypervisorError> {
        let request = Request::builder()
            .method(&method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| broken(path, error))?;
        let exchange = async {
            // The connection may still be putting the last exchange away.
            self.0.ready().await.map_err(|error| broken(path, error))?;
            let reply = self.0.send_request(request).await.map_err(|error| broken(path, error))?;
            let (head, body) = reply.into_parts();
            let body = Limited::new(body, REPLY_BYTES).collect().await.map_err(|error| broken(path, error))?.to_bytes();
            if head.status.is_success() {
                return Ok(body);
            }
            let fault = serde_json::from_slice(&body).map(|fault: Fault| fault.fault_message);
            let message = fault.unwrap_or_else(|_| head.status.to_string());
            Err(HypervisorError::refused(format!("{method} {path}"), &message))
        };
        timeout(limit, exchange).await.map_err(|_| HypervisorError::Timeout(path))?
    }
}

fn to_json(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).expect("a structure of strings and numbers is JSON").into()
}

fn broken<E: Into<Box<dyn std::error::Error + Send + Sync>>>(what: &str, error: E) -> HypervisorError {
    HypervisorError::Io { what: what.to_owned(), source: std::io::Error::other(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// An API whose socket answers `reply`, whatever it is asked.
    async fn answering(reply: Vec<u8>) -> Api {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        tokio::spawn(async move {
            let mut request = [0; 1024];
            while theirs.read(&mut request).await.is_ok_and(|length| length > 0) {
                if reply.is_empty() || theirs.write_all(&reply).await.is_err() {
                    break;
                }
            }
        });
        Api::over(ours).await.unwrap()
    }

    fn reply(status: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    #[tokio::test]
    async fn replies_are_understood() {
        assert!(answering(reply("204", "")).await.put("/actions", &Action::InstanceStart).await.is_ok());
        assert!(answering(reply("200", r#"{"state":"Paused","id":"x"}"#)).await.is_paused().await.unwrap());
        let refused = answering(reply("400", r#"{"fault_message":"no"}"#)).await.patch("/vm", &VmState::Paused).await;
        assert_eq!(refused.unwrap_err().to_string(), "the virtual machine monitor refused `PATCH /vm`: no");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn requests_may_follow_each_other_at_once() {
        for answer in [reply("204", ""), reply("200", "{}")] {
            let mut api = answering(answer).await;
            for _ in 0..1000 {
                api.put("/actions", &Action::InstanceStart).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_refusal_is_a_short_line() {
        let fault = format!(r#"{{"fault_message":"no\n2026-01-01 INFO forged\u001b[2J\u202e{}"}}"#, "x".repeat(60_000));
        let mut api = answering(reply("400", &fault)).await;
        let refused = api.patch("/vm", &VmState::Paused).await.unwrap_err().to_string();
        assert!(refused.ends_with('x') && refused.len() < 400, "{refused}");
        assert!(refused.contains("`PATCH /vm`: no 2026-01-01 INFO forged [2J x"), "{refused}");
        let mut api = answering(reply("200", &format!(r#""{}""#, "y".repeat(60_000)))).await;
        let nonsense = api.is_paused().await.unwrap_err().to_string();
        assert!(nonsense.len() < 100, "{nonsense}");
    }

    #[tokio::test]
    async fn what_a_hostile_monitor_says_is_bounded() {
        let endless = format!("HTTP/1.1 200\r\n\r\n{}", "x".repeat(REPLY_BYTES * 2));
        assert!(answering(endless.into_bytes()).await.is_paused().await.is_err());
        assert!(answering(reply("200", "[1]")).await.is_paused().await.is_err());
        assert!(answering(b"nonsense\r\n\r\n".to_vec()).await.is_paused().await.is_err());
        assert!(answering(Vec::new()).await.is_paused().await.is_err());
    }

    #[test]
    fn requests_are_as_the_api_wants_them() {
        let json = |body: &dyn erased::Json| body.json();
        insta::assert_snapshot!(
            [
                json(&MachineConfig { vcpu_count: 2, mem_size_mib: 256 }),
                json(&Action::InstanceStart),
                json(&VmState::Resumed),
                json(&Entropy {}),
                json(&Balloon::empty()),
                json(&ChangedBalloon { amount_mib: 128 }),
                json(&LimitedDrive {
                    drive_id: "disk",
                    rate_limiter: DiskLimits { bytes_per_second: Some(2_000_000), ops_per_second: None }.into(),
                }),
                json(&LoadSnapshot {
                    snapshot_path: "/state",
                    mem_backend: MemoryBackend { backend_type: "File", backend_path: "/memory" },
                    network_overrides: vec![NetworkOverride { iface_id: "eth0", host_dev_name: "rds7" }],
                    track_dirty_pages: true,
                    resume_vm: true,
                }),
            ]
            .join("\n"),
            @r#"
        {"vcpu_count":2,"mem_size_mib":256}
        {"action_type":"InstanceStart"}
        {"state":"Resumed"}
        {}
        {"amount_mib":0,"deflate_on_oom":true,"free_page_reporting":true}
        {"amount_mib":128}
        {"drive_id":"disk","rate_limiter":{"bandwidth":{"size":200000,"refill_time":100},"ops":{"size":0,"refill_time":0}}}
        {"snapshot_path":"/state","mem_backend":{"backend_type":"File","backend_path":"/memory"},"network_overrides":[{"iface_id":"eth0","host_dev_name":"rds7"}],"track_dirty_pages":true,"resume_vm":true}
        "#
        );
    }

    mod erased {
        pub(super) trait Json {
            fn json(&self) -> String;
        }
        impl<T: serde::Serialize> Json for T {
            fn json(&self) -> String {
                serde_json::to_string(self).unwrap()
            }
        }
    }
}
