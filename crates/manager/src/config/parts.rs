//! The settings by concern.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::builder::{BoolishValueParser, NonEmptyStringValueParser};
use clap::{ArgAction, Args, ValueEnum, value_parser};
use ipnet::IpNet;
use rds_egress::Subnet;
use rds_image::disk;
use secrecy::SecretString;

use crate::seeds::Size;

fn secret(text: &str) -> Result<SecretString, &'static str> {
    if text.trim().is_empty() { Err("it is blank") } else { Ok(SecretString::from(text)) }
}

/// An address stands for the network of itself alone.
fn network(text: &str) -> Result<IpNet, String> {
    text.parse()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| "not an address or network such as 10.0.0.0/8".to_owned())
}

/// Where and for whom the server listens.
#[derive(Debug, Clone, Args)]
pub struct HttpConfig {
    /// Port to listen on; 0 takes any free one
    #[arg(long, env = "PORT", default_value_t = 3000)]
    pub port: u16,
    /// Address to listen on; 0.0.0.0 for all (put a TLS proxy in front then)
    #[arg(long, env = "BIND_ADDRESS", default_value = "127.0.0.1")]
    pub bind_address: IpAddr,
    /// Addresses or networks of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed
    #[arg(long, env = "TRUSTED_PROXIES", value_delimiter = ',', value_parser = network, value_name = "NETWORK")]
    pub trusted_proxies: Vec<IpNet>,
    /// Address on which /metrics alone is served, to whoever asks, such as 127.0.0.1:9100
    #[arg(long, env = "METRICS_ADDR", value_name = "ADDRESS:PORT")]
    pub metrics_addr: Option<SocketAddr>,
    /// Bearer token for /metrics on the server's own port; without it there are none there
    #[arg(long, env = "METRICS_TOKEN", hide_env_values = true, value_parser = secret, value_name = "SECRET")]
    pub metrics_token: Option<SecretString>,
}

/// Who may do what.
#[derive(Debug, Clone, Args)]
pub struct AuthConfig {
    /// Key that is accepted in X-API-Key; better set in the environment than as a flag, which others on the host can see
    #[arg(long, env = "API_KEY", hide_env_values = true, value_parser = secret, value_name = "SECRET")]
    pub api_key: Option<SecretString>,
    /// Who may sign in
    #[arg(long, env = "ADMIN_EMAIL", value_parser = NonEmptyStringValueParser::new(), value_name = "EMAIL")]
    pub admin_email: Option<String>,
    /// With which password
    #[arg(long, env = "ADMIN_PASSWORD", hide_env_values = true, value_parser = secret, value_name = "SECRET")]
    pub admin_password: Option<SecretString>,
    /// Seals secrets of VMs and webhooks at rest; without it no VM can have any
    #[arg(long, env = "VM_SECRET_KEY", hide_env_values = true, value_parser = secret, value_name = "SECRET")]
    pub vm_secret_key: Option<SecretString>,
    /// Seconds until somebody who signed in has to do so again
    #[arg(long, env = "SESSION_TTL_SECONDS", default_value_t = 12 * 60 * 60,
          value_parser = value_parser!(u32).range(60..=31_536_000))]
    pub session_ttl_seconds: u32,
}

/// How a VM's disk is cloned from its template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CloneMode {
    /// Share blocks where the file system can, copy otherwise.
    Auto,
    /// Share blocks, or fail.
    Reflink,
    /// Copy.
    Copy,
}

/// Where things lie on the host.
#[derive(Debug, Clone, Args)]
pub struct StorageConfig {
    /// Directory of everything that the server keeps
    #[arg(long, env = "STORAGE_ROOT", default_value = "/var/lib/run-dat-sheesh", value_name = "DIR")]
    pub storage_root: PathBuf,
    /// Directory of the images [default: images in STORAGE_ROOT]
    #[arg(long, env = "IMAGES_DIR", value_name = "DIR")]
    pub images_dir: Option<PathBuf>,
    /// Kernel of an image that is used in place
    #[arg(long, env = "KERNEL_PATH", value_name = "FILE")]
    pub kernel_path: Option<PathBuf>,
    /// Root filesystem of an image that is used in place
    #[arg(long, env = "BASE_ROOTFS_PATH", value_name = "FILE")]
    pub base_rootfs_path: Option<PathBuf>,
    /// cpio archive of the kernel modules of an image that is used in place
    #[arg(long, env = "MODULES_PATH", value_name = "FILE")]
    pub modules_path: Option<PathBuf>,
    /// The guest agent [default: rds-agent beside this program]
    #[arg(long, env = "RDS_AGENT_PATH", value_name = "FILE")]
    pub rds_agent_path: Option<PathBuf>,
    /// How a VM's disk is cloned
    #[arg(long, env = "ROOTFS_CLONE_MODE", default_value = "auto")]
    pub rootfs_clone_mode: CloneMode,
    /// Size of a VM's writable disk when the request names none, in bytes; rounded up to a multiple of 4096
    #[arg(long, env = "OVERLAY_SIZE_BYTES", default_value_t = 536_870_912,
          value_parser = value_parser!(u64).range(16_777_216..=1_099_511_627_776))]
    pub overlay_size_bytes: u64,
}

impl StorageConfig {
    /// Directory of the images.
    pub fn images_dir(&self) -> PathBuf {
        self.images_dir.clone().unwrap_or_else(|| self.storage_root.join("images"))
    }

    /// Directory for images' files that are not finished yet; on the same file system as the images.
    pub fn image_drafts_dir(&self) -> PathBuf {
        self.images_dir().join(".tmp")
    }

    /// Directory for files that are not finished yet; on the same file system as all but images.
    pub fn tmp_dir(&self) -> PathBuf {
        self.storage_root.join("tmp")
    }

    /// Directory of the seeds.
    pub fn seeds_dir(&self) -> PathBuf {
        self.storage_root.join("seeds")
    }

    /// Directory of the snapshots that users made.
    pub fn snapshots_dir(&self) -> PathBuf {
        self.storage_root.join("snapshots")
    }

    /// Directory of the VMs' own directories.
    pub fn vms_dir(&self) -> PathBuf {
        self.storage_root.join("vms")
    }

    /// Directory of the empty disks that VMs' disks are cloned from.
    pub fn templates_dir(&self) -> PathBuf {
        self.storage_root.join("templates")
    }

    /// Directory of the initramfs files.
    pub fn initramfs_dir(&self) -> PathBuf {
        self.storage_root.join("initramfs")
    }

    /// The guest agent's program.
    pub fn agent_path(&self) -> PathBuf {
        let beside = || Some(std::env::current_exe().ok()?.parent()?.join("rds-agent"));
        self.rds_agent_path.clone().or_else(beside).unwrap_or_else(|| PathBuf::from("rds-agent"))
    }

    /// How disks are cloned.
    pub(crate) fn clone_mode(&self) -> disk::CloneMode {
        match self.rootfs_clone_mode {
            CloneMode::Auto => disk::CloneMode::Auto,
            CloneMode::Reflink => disk::CloneMode::Reflink,
            CloneMode::Copy => disk::CloneMode::Copy,
        }
    }

    /// The files that were given in place, by the name of their setting.
    pub(super) fn given_files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        [
            ("KERNEL_PATH", &self.kernel_path),
            ("BASE_ROOTFS_PATH", &self.base_rootfs_path),
            ("MODULES_PATH", &self.modules_path),
        ]
        .into_iter()
        .filter_map(|(name, path)| Some((name, path.as_deref()?)))
    }
}

/// Kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dialect {
    /// A file; nothing to set up.
    Sqlite,
    /// A server.
    Postgres,
}

/// Which database.
#[derive(Debug, Clone, Args)]
pub struct DatabaseConfig {
    /// Kind of database
    #[arg(long, env = "DB_DIALECT", default_value = "sqlite")]
    pub db_dialect: Dialect,
    /// The SQLite file [default: manager.db in STORAGE_ROOT]
    #[arg(long, env = "SQLITE_PATH", value_name = "FILE")]
    pub sqlite_path: Option<PathBuf>,
    /// URL of the Postgres database; may hold a password
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_parser = secret, value_name = "URL")]
    pub database_url: Option<SecretString>,
}

/// Which virtual machine monitor to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HypervisorChoice {
    /// Firecracker where all that it needs is there and KVM works, QEMU elsewhere.
    Auto,
    /// Firecracker in its jailer.
    Firecracker,
    /// QEMU's microvm machine.
    Qemu,
}

/// How a processor is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AcceleratorChoice {
    /// KVM where a probe shows that it works, emulation otherwise.
    Auto,
    /// KVM, or fail.
    Kvm,
    /// Emulation.
    Tcg,
}

/// The highest uid and gid: the number after it stands for none (`chown(2)`).
const MAX_ID: i64 = 4_294_967_294;

/// The lowest uid of a VM: those below have 16 bits, and are users', nobody's or services'.
const MIN_VM_UID: i64 = 65_537;

/// What runs the VMs.
#[derive(Debug, Clone, Args)]
pub struct HypervisorConfig {
    /// Virtual machine monitor
    #[arg(long = "hypervisor", id = "rds_hypervisor", env = "RDS_HYPERVISOR", default_value = "auto")]
    pub hypervisor: HypervisorChoice,
    /// Accelerator of the virtual machine monitor
    #[arg(long = "accelerator", id = "rds_accelerator", env = "RDS_ACCELERATOR", default_value = "auto")]
    pub accelerator: AcceleratorChoice,
    /// Firecracker's program [default: the one on PATH]
    #[arg(long, env = "FIRECRACKER_BIN", value_name = "FILE")]
    pub firecracker_bin: Option<PathBuf>,
    /// Its jailer, of the same release [default: the one on PATH]
    #[arg(long, env = "JAILER_BIN", value_name = "FILE")]
    pub jailer_bin: Option<PathBuf>,
    /// Where jails are made [default: in each VM's directory]
    #[arg(long, env = "JAILER_CHROOT_BASE_DIR", value_name = "DIR")]
    pub jailer_chroot_base_dir: Option<PathBuf>,
    /// Taken for compatibility and not used: the process of each VM has a uid of its own
    #[arg(long, env = "JAILER_UID", value_parser = value_parser!(u32).range(1..=MAX_ID), value_name = "UID")]
    pub jailer_uid: Option<u32>,
    /// Taken for compatibility and not used: it has a gid of its own, too
    #[arg(long, env = "JAILER_GID", value_parser = value_parser!(u32).range(1..=MAX_ID), value_name = "GID")]
    pub jailer_gid: Option<u32>,
    /// uid and gid of the first VM's process, where the server may start programs as other users; 65535 more and the one before
    /// it belong to VMs, too. To be changed while no VM runs
    #[arg(long, env = "VM_FIRST_UID", default_value_t = 200_000,
          value_parser = value_parser!(u32).range(MIN_VM_UID..=MAX_ID - 65_535), value_name = "UID")]
    pub vm_first_uid: u32,
    /// How much Firecracker tells in its log
    #[arg(long, env = "FIRECRACKER_LOG_LEVEL", default_value = "Error", ignore_case = true,
          value_parser = ["Off", "Error", "Warning", "Info", "Debug", "Trace"])]
    pub firecracker_log_level: String,
    /// Port of the guest's agent where the guest channel is a vsock; it uses the next one, too
    #[arg(long, env = "AGENT_VSOCK_PORT", default_value_t = 8080, value_parser = value_parser!(u16).range(1..=65_534))]
    pub agent_vsock_port: u16,
}

/// How VMs start in the time of a function call.
#[derive(Debug, Clone, Args)]
pub struct SnapshotsConfig {
    /// Whether VMs start from seeds: the memory of a booted, idle VM with nothing of any user in it
    #[arg(long, env = "ENABLE_SNAPSHOTS", default_value_t = true, action = ArgAction::Set,
          value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub enable_snapshots: bool,
    /// Virtual CPUs of the seed that is made as soon as an image is complete; other sizes are made after their first use
    #[arg(long, env = "SNAPSHOT_TEMPLATE_CPU", default_value_t = 1, value_parser = value_parser!(u8).range(1..=32))]
    pub snapshot_template_cpu: u8,
    /// Its memory in MiB
    #[arg(long, env = "SNAPSHOT_TEMPLATE_MEM_MB", default_value_t = 256,
          value_parser = value_parser!(u32).range(128..=1_048_576))]
    pub snapshot_template_mem_mb: u32,
    /// Whether machines that run already wait for VMs to be created; they count in no quota
    #[arg(long, env = "ENABLE_WARM_POOL", default_value_t = false, action = ArgAction::Set,
          value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub enable_warm_pool: bool,
    /// Machines that wait for each image and size in use
    #[arg(long, env = "WARM_POOL_TARGET", default_value_t = 1, value_parser = value_parser!(u32).range(0..=1000))]
    pub warm_pool_target: u32,
    /// Machines that wait, of all images and sizes together
    #[arg(long, env = "WARM_POOL_MAX_VMS", default_value_t = 4, value_parser = value_parser!(u32).range(0..=1000))]
    pub warm_pool_max_vms: u32,
}

impl SnapshotsConfig {
    /// The size that every image gets a seed of, and that the warm pool has by itself.
    pub(crate) fn template(&self) -> Size {
        Size { vcpus: self.snapshot_template_cpu, mem_mib: self.snapshot_template_mem_mb }
    }
}

/// Whether VMs have a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NetworkChoice {
    /// Where this host has what it takes: root, nftables and taps.
    Auto,
    /// Yes, or fail.
    On,
    /// No.
    Off,
}

/// What VMs' networks are like.
#[derive(Debug, Clone, Args)]
pub struct NetworkConfig {
    /// Whether VMs have a network interface
    #[arg(long, env = "NETWORK", default_value = "auto")]
    pub network: NetworkChoice,
    /// Private network that VMs' addresses are from; its first address is the gateway's
    #[arg(long, env = "VM_SUBNET", default_value = "172.16.0.0/24", value_name = "NETWORK")]
    pub vm_subnet: Subnet,
    /// Resolver that VMs ask for names [default: 1.1.1.1]
    #[arg(long, env = "DNS_SERVER_IP", value_name = "ADDRESS")]
    pub dns_server_ip: Option<Ipv4Addr>,
}

/// Where events are sent.
#[derive(Debug, Clone, Args)]
pub struct WebhooksConfig {
    /// Addresses or networks that webhooks may lead to though they are no part of the Internet, such as 127.0.0.1 or 10.0.0.0/8
    #[arg(long, env = "WEBHOOK_ALLOW_NETWORKS", value_delimiter = ',', value_parser = network, value_name = "NETWORK")]
    pub webhook_allow_networks: Vec<IpNet>,
}

/// How much callers may have.
#[derive(Debug, Clone, Args)]
pub struct LimitsConfig {
    /// VMs that may exist at once
    #[arg(long, env = "MAX_VMS", default_value_t = 20, value_parser = value_parser!(u32).range(1..=16_000))]
    pub max_vms: u32,
    /// Virtual CPUs of one VM
    #[arg(long, env = "MAX_CPU", default_value_t = 4, value_parser = value_parser!(u32).range(1..=32))]
    pub max_cpu: u32,
    /// Memory of one VM in MiB
    #[arg(long, env = "MAX_MEM_MB", default_value_t = 2048, value_parser = value_parser!(u32).range(128..=1_048_576))]
    pub max_mem_mb: u32,
    /// Entries of one VM's allowIps
    #[arg(long, env = "MAX_ALLOW_IPS", default_value_t = 64, value_parser = value_parser!(u32).range(0..=4096))]
    pub max_allow_ips: u32,
    /// Longest time limit of exec in milliseconds
    #[arg(long, env = "MAX_EXEC_TIMEOUT_MS", default_value_t = 120_000,
          value_parser = value_parser!(u64).range(1000..=86_400_000))]
    pub max_exec_timeout_ms: u64,
    /// Longest time limit of run-ts and run-js in milliseconds
    #[arg(long, env = "MAX_RUNTS_TIMEOUT_MS", default_value_t = 120_000,
          value_parser = value_parser!(u64).range(1000..=86_400_000))]
    pub max_runts_timeout_ms: u64,
}

/// How often a caller may ask, a minute; 0 is as often as he likes.
#[derive(Debug, Clone, Args)]
pub struct RateLimitsConfig {
    /// Requests a minute that have no limit of their own; 0 for no limit
    #[arg(long, env = "RATE_LIMIT_DEFAULT", default_value_t = 120)]
    pub rate_limit_default: u32,
    /// VMs made a minute; 0 for no limit
    #[arg(long, env = "RATE_LIMIT_CREATE_VM", default_value_t = 30)]
    pub rate_limit_create_vm: u32,
    /// exec calls a minute; 0 for no limit
    #[arg(long, env = "RATE_LIMIT_EXEC", default_value_t = 300)]
    pub rate_limit_exec: u32,
    /// run-ts calls a minute; 0 for no limit
    #[arg(long, env = "RATE_LIMIT_RUN_TS", default_value_t = 60)]
    pub rate_limit_run_ts: u32,
    /// run-js calls a minute; 0 for no limit
    #[arg(long, env = "RATE_LIMIT_RUN_JS", default_value_t = 60)]
    pub rate_limit_run_js: u32,
    /// File uploads a minute; 0 for no limit
    #[arg(long, env = "RATE_LIMIT_UPLOAD", default_value_t = 30)]
    pub rate_limit_upload: u32,
    /// File downloads a minute; 0 for no limit
    #[arg(long, env = "RATE_LIMIT_DOWNLOAD", default_value_t = 60)]
    pub rate_limit_download: u32,
    /// Attempts to sign in a minute; 0 for no limit
    #[arg(long, env = "RATE_LIMIT_LOGIN", default_value_t = 10)]
    pub rate_limit_login: u32,
}

/// What the server tells of its work.
#[derive(Debug, Clone, Args)]
pub struct LogConfig {
    /// Log as JSON, one object a line
    #[arg(long, env = "LOG_JSON", value_parser = BoolishValueParser::new())]
    pub log_json: bool,
}
