//! From the body of a create request to a VM that makes sense, without touching anything.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::idle::{Idle, IdleAction};
use super::limits::{LimitVm, Limits};
use crate::config::LimitsConfig;
use crate::egress::NetworkPolicy;
use crate::error::{Error, Result};
use crate::peers::PeerLink;
use crate::peers::link::Link;
use crate::secrets::SecretEnv;

/// Smallest memory of a VM in MiB (section 2 of the wire contract).
pub(super) const MIN_MEM_MIB: u32 = 128;

/// Smallest writable disk in MiB: less leaves no room for a file system and its journal. A smaller wish is given this.
const MIN_DISK_MIB: u64 = 32;

/// Largest writable disk in MiB. Disks are sparse; this only bounds what one guest may fill.
const MAX_DISK_MIB: u64 = 64 * 1024;

/// Longest life and longest idleness: a leap year.
const MAX_SECONDS: u64 = 366 * 24 * 3600;

const MAX_NAME: usize = 64;
const MAX_LABELS: usize = 32;
const MAX_LABEL: usize = 256;

/// Body of `POST /v1/vms`. Unknown fields are ignored, as the public API does.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateVm {
    /// Number of virtual CPUs, an integer from 1 to `MAX_CPU`.
    #[schema(example = 1)]
    pub cpu: f64,
    /// Memory in MiB, an integer from 128 to `MAX_MEM_MB`.
    #[schema(example = 256)]
    pub mem_mb: f64,
    /// What the VM may reach: IPv4 addresses or CIDR ranges, at most `MAX_ALLOW_IPS`.
    pub allow_ips: Vec<String>,
    /// Whether anything may leave the VM at all.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub outbound_internet: bool,
    /// Names that the VM may reach besides, such as `api.github.com` or `*.googleapis.com`.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub allow_domains: Vec<String>,
    /// The image to start from; the default image if absent.
    pub image_id: Option<String>,
    /// Size of the writable disk in MiB, rounded up, at least 32; `OVERLAY_SIZE_BYTES` if absent.
    pub disk_size_mb: Option<f64>,
    /// Environment of the VM's secrets, each `NAME=value`. Needs `VM_SECRET_KEY`. They are sealed at rest and given only
    /// to what runs in this VM.
    #[serde(default, deserialize_with = "null_is_absent", serialize_with = "count_secrets")]
    pub secret_env: Vec<String>,
    /// Links to provider VMs, whose SDKs the code in this VM may call. At most 32; aliases are unique.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub peer_links: Vec<PeerLink>,
    /// A snapshot to start from: the disk is as that VM's was, and memory too if the snapshot has it.
    pub user_overlay_snapshot_id: Option<String>,
    /// An older name of `userOverlaySnapshotId`, which goes before it.
    pub snapshot_id: Option<String>,
    /// A name for people: 1 to 64 letters, digits, `.`, `_`, `-`; unique among live VMs.
    pub name: Option<String>,
    /// Free labels, at most 32, keys and values of at most 256 bytes.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub labels: BTreeMap<String, String>,
    /// Seconds after which the VM is deleted, from its creation.
    pub ttl_seconds: Option<f64>,
    /// Seconds without a call into the VM or out of it after which `idleAction` is done.
    pub idle_timeout_seconds: Option<f64>,
    /// What is done with an idle VM: `pause` (default) or `delete`.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub idle_action: IdleAction,
    /// How fast it may use its disk and its network, and how much of its memory it is to keep to.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub limits: LimitVm,
}

/// A create request that obeys every rule that can be checked without looking anything up.
#[derive(Debug, Clone, PartialEq)]
pub struct NewVm {
    /// Number of virtual CPUs.
    pub vcpus: u8,
    /// Memory in MiB.
    pub mem_mib: u32,
    /// Size of the writable disk in bytes.
    pub disk_bytes: u64,
    /// The image asked for.
    pub image_id: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// How long it lives.
    pub ttl: Option<Duration>,
    /// When it is idle, and what is done then.
    pub idle: Option<Idle>,
    /// How fast it may use its disk and its network, and how much of its memory it is to keep to.
    pub limits: Limits,
}

/// The parts of a create request that obeys the rules.
pub(super) struct Asked {
    /// What never changes.
    pub vm: NewVm,
    /// What may be replaced later.
    pub secrets: SecretEnv,
    /// What may be changed later.
    pub links: Vec<Link>,
    /// What it may reach, for now.
    pub network: NetworkPolicy,
    /// What its disk is to be made from.
    pub snapshot: Option<String>,
    /// Size of its disk, if one was named.
    pub wanted_bytes: Option<u64>,
}

impl CreateVm {
    /// Checks the request against the limits; the first fault is the error. A disk of no given size has
    /// `default_disk_bytes`.
    pub(super) fn validate(self, limits: &LimitsConfig, default_disk_bytes: u64) -> Result<Asked> {
        let secrets = SecretEnv::parse(self.secret_env)?;
        let links = Link::parse_all(&self.peer_links)?;
        let vcpus = integer("cpu", self.cpu, 1, u64::from(limits.max_cpu))?;
        let mem_mib = integer("memMb", self.mem_mb, u64::from(MIN_MEM_MIB), u64::from(limits.max_mem_mb))?;
        let wanted_bytes = match self.disk_size_mb {
            Some(mib) => Some(integer("diskSizeMb", mib.ceil(), 1, MAX_DISK_MIB)?.max(MIN_DISK_MIB) << 20),
            None => None,
        };
        let network = NetworkPolicy {
            outbound_internet: self.outbound_internet,
            allow_ips: self.allow_ips,
            allow_domains: self.allow_domains,
        };
        let network = network.checked(limits.max_allow_ips)?;
        if let Some(name) = &self.name {
            check_name(name)?;
        }
        if self.labels.len() > MAX_LABELS {
            return invalid(format!("labels: at most {MAX_LABELS}"));
        }
        if self.labels.iter().any(|(key, value)| key.is_empty() || key.len() > MAX_LABEL || value.len() > MAX_LABEL) {
            return invalid(format!("labels: keys and values have 1 to {MAX_LABEL} bytes"));
        }
        let seconds = |field: &str, value: Option<f64>| {
            value.map(|value| integer(field, value, 1, MAX_SECONDS).map(Duration::from_secs)).transpose()
        };
        let ttl = seconds("ttlSeconds", self.ttl_seconds)?;
        let idle = seconds("idleTimeoutSeconds", self.idle_timeout_seconds)?;
        let idle = idle.map(|after| Idle { after, action: self.idle_action });
        let vm = NewVm {
            vcpus: u8::try_from(vcpus).map_err(|_| Error::Invalid("cpu is too large".into()))?,
            mem_mib: u32::try_from(mem_mib).map_err(|_| Error::Invalid("memMb is too large".into()))?,
            disk_bytes: wanted_bytes.unwrap_or(default_disk_bytes),
            image_id: self.image_id,
            name: self.name,
            labels: self.labels,
            ttl,
            idle,
            limits: self.limits.checked(mem_mib)?,
        };
        let snapshot = self.user_overlay_snapshot_id.or(self.snapshot_id);
        Ok(Asked { vm, secrets, links, network, snapshot, wanted_bytes })
    }
}

/// Stands for secrets where a request is written down or hashed: how many they are, and nothing of them.
pub(super) fn count_secrets<S: serde::Serializer>(secrets: &[String], to: S) -> std::result::Result<S::Ok, S::Error> {
    to.collect_seq(secrets.iter().map(|_| ""))
}

/// Clients that write every field say `null` for what they leave out.
pub(crate) fn null_is_absent<'de, D, T>(from: D) -> std::result::Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::deserialize(from).map(Option::unwrap_or_default)
}

fn invalid<T>(message: String) -> Result<T> {
    Err(Error::Invalid(message))
}

/// JSON has one kind of number; `1.0` is as good as `1`, and `1.5` deserves a clear word.
pub(super) fn integer(field: &str, value: f64, min: u64, max: u64) -> Result<u64> {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        clippy::cast_possible_truncation,
        reason = "limits are far below 2^53, and the range is checked first"
    )]
    if value.fract() == 0.0 && value >= min as f64 && value <= max as f64 {
        return Ok(value as u64);
    }
    invalid(format!("{field} must be an integer from {min} to {max}"))
}

fn check_name(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(allowed) {
        return invalid(format!("name must be 1 to {MAX_NAME} letters, digits, '.', '_' or '-'"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn validate(change: &Value) -> Result<NewVm> {
        asked(change).map(|asked| asked.vm)
    }

    fn asked(change: &Value) -> Result<Asked> {
        let mut body = json!({"cpu": 1, "memMb": 256, "allowIps": []});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let limits = LimitsConfig {
            max_vms: 20,
            max_cpu: 4,
            max_mem_mb: 2048,
            max_allow_ips: 64,
            max_exec_timeout_ms: 120_000,
            max_runts_timeout_ms: 120_000,
        };
        serde_json::from_value::<CreateVm>(body).unwrap().validate(&limits, 536_870_912)
    }

    #[test]
    fn the_least_request_gets_the_defaults() {
        let vm = validate(&json!({"unknown": 1})).unwrap();
        assert_eq!((vm.vcpus, vm.mem_mib, vm.disk_bytes), (1, 256, 536_870_912));
    }

    #[test]
    fn null_is_as_good_as_absent() {
        let fields =
            ["outboundInternet", "allowDomains", "imageId", "diskSizeMb", "secretEnv", "peerLinks", "snapshotId"];
        let others =
            ["userOverlaySnapshotId", "name", "labels", "ttlSeconds", "idleTimeoutSeconds", "idleAction", "limits"];
        let nulls: Value = fields.iter().chain(&others).map(|field| (*field, Value::Null)).collect();
        assert_eq!(validate(&nulls).unwrap(), validate(&json!({})).unwrap());
    }

    #[test]
    fn a_small_disk_has_room_for_a_file_system() {
        for (wish, mib) in [(1.0, 32), (31.5, 32), (32.0, 32), (32.5, 33), (512.0, 512)] {
            assert_eq!(validate(&json!({"diskSizeMb": wish})).unwrap().disk_bytes, mib << 20, "{wish}");
        }
    }

    #[test]
    fn a_snapshot_has_two_names() {
        for (fields, wanted) in [
            (json!({"snapshotId": "snap-a"}), "snap-a"),
            (json!({"userOverlaySnapshotId": "snap-b"}), "snap-b"),
            (json!({"snapshotId": "snap-a", "userOverlaySnapshotId": "snap-b"}), "snap-b"),
        ] {
            assert_eq!(asked(&fields).unwrap().snapshot.as_deref(), Some(wanted));
        }
    }

    #[test]
    fn senseless_values_are_refused() {
        for bad in [
            json!({"cpu": 0}),
            json!({"cpu": 1.5}),
            json!({"cpu": 5}),
            json!({"cpu": -1}),
            json!({"memMb": 127}),
            json!({"memMb": 1e300}),
            json!({"diskSizeMb": 0}),
            json!({"diskSizeMb": 1e9}),
            json!({"allowIps": ["example.com"]}),
            json!({"allowIps": ["1.2.3.4/33"]}),
            json!({"allowIps": ["1.2.3.4/+8"]}),
            json!({"allowIps": ["1.2.3.4/"]}),
            json!({"allowIps": ["::1"]}),
            json!({"allowIps": vec!["1.1.1.1"; 65]}),
            json!({"name": "a/b"}),
            json!({"name": ""}),
            json!({"labels": {"": "x"}}),
            json!({"ttlSeconds": 0}),
            json!({"idleTimeoutSeconds": 0}),
            json!({"idleTimeoutSeconds": 1.5}),
            json!({"limits": {"diskBytesPerSecond": 1}}),
            json!({"secretEnv": ["A"]}),
            json!({"peerLinks": [{"alias": "a", "vmId": "x"}]}),
        ] {
            assert!(matches!(validate(&bad), Err(Error::Invalid(_))), "{bad}");
        }
    }

    #[test]
    fn what_is_hashed_for_idempotency_holds_no_secret() {
        let body = json!({"cpu": 1, "memMb": 256, "allowIps": [], "secretEnv": ["TOKEN=hunter2"]});
        let request = serde_json::from_value::<CreateVm>(body).unwrap();
        assert!(!serde_json::to_string(&request).unwrap().contains("hunter2"));
    }

    #[test]
    fn addresses_and_ranges_are_accepted() {
        assert!(validate(&json!({"allowIps": ["1.2.3.4", "10.0.0.0/8", "0.0.0.0/0"]})).is_ok());
    }
}
