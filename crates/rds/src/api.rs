//! The parts of the API's bodies that this program reads and writes.
//!
//! Replies keep the fields that are not named here, so that `--json` shows all that the server said.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A VM.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Vm {
    /// Its identity.
    pub(crate) id: String,
    /// What it is doing.
    pub(crate) state: String,
    /// Virtual processors.
    pub(crate) cpu: u32,
    /// Memory in MiB.
    pub(crate) mem_mb: u32,
    /// When it was made (RFC 3339).
    pub(crate) created_at: String,
    /// Its name, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// The image it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) image_id: Option<String>,
    /// The providers it may call.
    #[serde(default)]
    pub(crate) peer_links: Vec<PeerLink>,
    /// Everything else.
    #[serde(flatten)]
    pub(crate) rest: Map<String, Value>,
}

/// A link to a provider.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PeerLink {
    /// The provider's name in the VM.
    pub(crate) alias: String,
    /// The provider.
    pub(crate) vm_id: String,
    /// `hidden` or `mounted`.
    pub(crate) source_mode: String,
    /// What the VM may do with it; everything that its manifest declares if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<Value>,
}

/// A call that waits for a person.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PendingCall {
    /// What an answer names.
    pub(crate) id: String,
    /// When it came (RFC 3339).
    pub(crate) requested_at: String,
    /// The VM that calls.
    pub(crate) consumer: String,
    /// The alias it calls.
    pub(crate) alias: String,
    /// The VM behind the alias.
    pub(crate) provider: String,
    /// The module, relative to `/workspace`.
    pub(crate) module: String,
    /// The export.
    pub(crate) export: String,
    /// The arguments.
    pub(crate) args: Vec<Value>,
}

/// What a new VM shall be.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CreateVm {
    /// Virtual processors.
    pub(crate) cpu: u32,
    /// Memory in MiB.
    pub(crate) mem_mb: u32,
    /// Addresses that may be reached.
    pub(crate) allow_ips: Vec<String>,
    /// Names that may be reached.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) allow_domains: Vec<String>,
    /// Whether anything may be reached.
    pub(crate) outbound_internet: bool,
    /// The image; the default one if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image_id: Option<String>,
    /// The snapshot to start from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user_overlay_snapshot_id: Option<String>,
    /// Size of the writable disk in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disk_size_mb: Option<u64>,
    /// A name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// Labels.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub(crate) labels: Map<String, Value>,
    /// Seconds that it lives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ttl_seconds: Option<u64>,
    /// Seconds without use after which it is idle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) idle_timeout_seconds: Option<u64>,
    /// What is done then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) idle_action: Option<String>,
    /// Secrets as `KEY=value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) secret_env: Vec<String>,
    /// Links to providers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) peer_links: Vec<PeerLink>,
    /// How fast it may use its disk and its network, and how much of its memory it is to keep to.
    pub(crate) limits: Limits,
}

/// How fast a VM may use its disk and its network, and how much of its memory it is to keep to.
#[derive(Debug, Clone, Copy, Default, Serialize, clap::Args)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Limits {
    /// Bytes a second that the VM may read from its disk and write to it [default: no limit]
    #[arg(long, value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disk_bytes_per_second: Option<u64>,
    /// Reads and writes of its disk a second [default: no limit]
    #[arg(long, value_name = "NUMBER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disk_ops_per_second: Option<u64>,
    /// Bytes a second that the VM may send, and as many that it may receive [default: no limit]
    #[arg(long, value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) network_bytes_per_second: Option<u64>,
    /// MiB of its memory that the VM is to keep to until a program needs more [default: all]
    #[arg(long = "keep-memory", value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_mb: Option<u64>,
}

/// What a finished program left.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunResult {
    /// Exit code; -1 at the time limit.
    pub(crate) exit_code: i32,
    /// Its standard output.
    pub(crate) stdout: String,
    /// Its standard error.
    pub(crate) stderr: String,
    /// Everything else: `result`, `error`, `truncated`.
    #[serde(flatten)]
    pub(crate) rest: Map<String, Value>,
}

/// The end of a streamed command.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Exit {
    /// Exit code; -1 at the time limit.
    pub(crate) exit_code: i32,
    /// Whether the time limit ended it.
    #[serde(default)]
    pub(crate) timed_out: bool,
    /// Whether output was dropped for its size.
    #[serde(default)]
    pub(crate) truncated: bool,
}

/// A guest image.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Image {
    /// Its identity.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// When it was made (RFC 3339).
    pub(crate) created_at: String,
    /// Whether VMs are made from it when none is named.
    #[serde(default)]
    pub(crate) is_default: bool,
    /// Size of its root filesystem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) base_rootfs_bytes: Option<u64>,
    /// When its kernel came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kernel_uploaded_at: Option<String>,
    /// When its root filesystem came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rootfs_uploaded_at: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub(crate) rest: Map<String, Value>,
}

impl Image {
    /// Whether VMs can be made from it.
    pub(crate) fn is_complete(&self) -> bool {
        self.kernel_uploaded_at.is_some() && self.rootfs_uploaded_at.is_some()
    }
}

/// Lines of a VM's log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Log {
    /// The lines, oldest first.
    pub(crate) lines: Vec<String>,
    /// Everything else.
    #[serde(flatten)]
    pub(crate) rest: Map<String, Value>,
}

/// A file or directory of a VM.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Stat {
    /// `file`, `directory`, `symlink` or `other`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Its permissions.
    pub(crate) mode: u32,
}

/// An error reply.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ErrorBody {
    /// What went wrong.
    pub(crate) message: Option<String>,
    /// The server's name for the request.
    pub(crate) request_id: Option<String>,
}
