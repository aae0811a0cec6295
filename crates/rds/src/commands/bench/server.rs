//! A server of the benchmark's own, in a process of its own: what is measured shares nothing with what measures.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use rds_manager::config::Config;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::by_hand;
use crate::client::Client;
use crate::error::CliError;
use crate::settings;

/// Milliseconds that a program of a measurement may take in a VM. In an emulated host some thousand calls take minutes.
pub(super) const PROGRAM_LIMIT_MS: u32 = 900_000;

/// How long the server may take to listen; the first start may try KVM out.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The limits on requests, which would measure themselves.
const RATE_LIMITS: [&str; 8] = [
    "RATE_LIMIT_DEFAULT",
    "RATE_LIMIT_CREATE_VM",
    "RATE_LIMIT_EXEC",
    "RATE_LIMIT_RUN_TS",
    "RATE_LIMIT_RUN_JS",
    "RATE_LIMIT_UPLOAD",
    "RATE_LIMIT_DOWNLOAD",
    "RATE_LIMIT_LOGIN",
];

/// Files in a VM's directory that begin with its monitor's process, one for each driver.
const MONITORS: [&str; 2] = ["qemu.pid", "firecracker.pid"];

/// The files of an image.
#[derive(Debug, Clone)]
pub(super) struct ImageFiles {
    pub(super) kernel: PathBuf,
    pub(super) rootfs: PathBuf,
    pub(super) modules: Option<PathBuf>,
}

/// A server with an empty storage root and an image in place.
pub(super) struct BenchServer {
    child: Child,
    root: TempDir,
    image: ImageFiles,
    url: String,
    key: String,
}

impl BenchServer {
    /// Starts this same program as a server and waits until it listens. Making seeds would disturb what is measured
    /// meanwhile.
    pub(super) async fn start(seeds: bool) -> Result<Self, CliError> {
        Self::start_with(&[("ENABLE_SNAPSHOTS", if seeds { "true" } else { "false" })]).await
    }

    /// The same with these settings.
    pub(super) async fn start_with(settings: &[(&str, &str)]) -> Result<Self, CliError> {
        let image = ImageFiles::find()?;
        let root =
            tempfile::Builder::new().prefix("rds-bench").tempdir().map_err(CliError::file("temporary directory"))?;
        let program = std::env::current_exe().map_err(CliError::file("this program"))?;
        let key = settings::new_api_key();
        let mut command = Command::new(program);
        command.arg("serve").env("PORT", "0").env("STORAGE_ROOT", root.path()).env("API_KEY", &key);
        command.env("KERNEL_PATH", &image.kernel).env("BASE_ROOTFS_PATH", &image.rootfs);
        for name in ["IMAGES_DIR", "SQLITE_PATH", "DB_DIALECT", "RDS_CONFIG", "MODULES_PATH", "BIND_ADDRESS", "MAX_VMS"]
        {
            command.env_remove(name);
        }
        command.envs(image.modules.as_ref().map(|modules| ("MODULES_PATH", modules)));
        command.envs(RATE_LIMITS.map(|name| (name, "0")));
        command.env("NETWORK", "off").env("MAX_RUNTS_TIMEOUT_MS", PROGRAM_LIMIT_MS.to_string());
        for name in ["SNAPSHOT_TEMPLATE_CPU", "SNAPSHOT_TEMPLATE_MEM_MB", "ENABLE_WARM_POOL", "WARM_POOL_TARGET"] {
            command.env_remove(name);
        }
        command.envs(settings.iter().copied());
        command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(CliError::file("this program"))?;
        let url = tokio::time::timeout(START_LIMIT, address(&mut child)).await;
        let url = url.map_err(|_| CliError::Failed("the server did not start in time".into()))??;
        Ok(Self { child, root, image, url, key })
    }

    /// A client of it.
    pub(super) fn client(&self) -> Result<Client, CliError> {
        Client::new(&self.url, Some(self.key.clone()))
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// Its storage root.
    pub(super) fn root(&self) -> &Path {
        self.root.path()
    }

    /// Where machines by hand are: beside its VMs, on the same filesystem.
    pub(super) fn by_hand_dir(&self) -> PathBuf {
        self.root().join("by-hand")
    }

    /// What its VMs are made of.
    pub(super) fn image(&self) -> &ImageFiles {
        &self.image
    }

    /// The machines that wait in its warm pool.
    pub(super) fn pooled(&self) -> usize {
        let dirs = std::fs::read_dir(self.root().join("vms")).into_iter().flatten().flatten();
        dirs.filter(|dir| dir.path().join("pool.json").exists()).count()
    }

    /// The process of a VM's monitor.
    pub(super) fn monitor_of(&self, vm: &str) -> Option<u32> {
        let dir = self.root().join("vms").join(vm);
        let file = MONITORS.iter().find_map(|name| std::fs::read_to_string(dir.join(name)).ok())?;
        file.split_whitespace().next()?.parse().ok()
    }

    /// Removes the VMs that are left, then ends the server.
    pub(super) async fn end(mut self) {
        if let Ok(client) = self.client() {
            for vm in client.vms().await.unwrap_or_default() {
                let _ = client.delete_vm(&vm.id).await;
            }
        }
        let _ = self.child.kill().await;
        // What waits in a pool outlives its server, and so does a machine by hand when a measurement fails.
        if let Ok(driver) = by_hand::driver().await {
            for parent in [self.root().join("vms"), self.by_hand_dir()] {
                for id in driver.find(&parent).await {
                    let _ = driver.kill(&parent.join(id.to_string())).await;
                }
            }
        }
    }
}

/// Reads the server's log up to its address; errors in the rest of it go to where this program's go.
async fn address(child: &mut Child) -> Result<String, CliError> {
    let stderr = child.stderr.take().ok_or_else(|| CliError::Failed("the server has no log".into()))?;
    let mut lines = BufReader::new(stderr).lines();
    let mut said = String::new();
    while let Some(line) = lines.next_line().await.map_err(CliError::file("log"))? {
        if let Some(url) = line.strip_prefix("listening on ") {
            let url = url.trim().to_owned();
            tokio::spawn(async move {
                while let Ok(Some(line)) = lines.next_line().await {
                    if line.contains("ERROR") {
                        eprintln!("{line}");
                    }
                }
            });
            return Ok(url);
        }
        said.push_str(&line);
        said.push('\n');
    }
    Err(CliError::Failed(format!("the server did not start:\n{said}")))
}

impl ImageFiles {
    /// The image that the environment names, or the newest one that `rds up` keeps on this machine.
    fn find() -> Result<Self, CliError> {
        let named = |name: &str| std::env::var_os(name).map(PathBuf::from);
        if let (Some(kernel), Some(rootfs)) = (named("KERNEL_PATH"), named("BASE_ROOTFS_PATH")) {
            return Ok(Self { kernel, rootfs, modules: named("MODULES_PATH") });
        }
        let root = named("STORAGE_ROOT").unwrap_or_else(settings::default_storage_root);
        let dirs = std::fs::read_dir(root.join("images")).into_iter().flatten().flatten().map(|entry| entry.path());
        let images = dirs.filter_map(|dir| {
            let (kernel, rootfs) = (newest(&dir, "kernel")?, newest(&dir, "rootfs")?);
            Some((modified(&dir), Self { kernel, rootfs, modules: newest(&dir, "modules") }))
        });
        let image = images.max_by_key(|(modified, _)| *modified).map(|(_, image)| image);
        image.ok_or_else(|| {
            CliError::Usage("there is no guest image to measure with; `rds up` makes one, or name one with KERNEL_PATH and BASE_ROOTFS_PATH".into())
        })
    }
}

/// The file of a kind in an image's directory, where one may lie still whose place another has taken.
fn newest(image: &Path, kind: &str) -> Option<PathBuf> {
    let is_kind = |name: &str| name.strip_prefix(kind).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    let entries = std::fs::read_dir(image).ok()?.flatten();
    let files = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_kind)).map(|entry| entry.path());
    files.filter(|file| file.is_file()).max_by_key(|file| modified(file))
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|metadata| metadata.modified()).ok()
}

/// The server's settings that this program's own environment makes, for the choice of the accelerator.
pub(super) fn settings_from_environment() -> Result<Config, CliError> {
    use clap::{Args, FromArgMatches};
    let command = Config::augment_args(clap::Command::new("serve"));
    let matches = command.try_get_matches_from(["serve"]);
    let config = matches.and_then(|matches| Config::from_arg_matches(&matches));
    config.map_err(|error| CliError::Usage(error.to_string()))
}

/// Resident memory of a process, in MB.
pub(super) fn resident_mb(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}
