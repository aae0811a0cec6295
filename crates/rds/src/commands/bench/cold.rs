//! A cold create, beside a monitor started by hand with the same kernel, initramfs and disks.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rds_image::disk;
use rds_manager::config::Config;
use rds_manager::hypervisor;
use rds_vmm::Hypervisor as _;
use rds_vmm::firecracker::{self, Firecracker};
use rds_vmm::qemu::{self, Qemu};
use tokio::process::Command;

use super::channel::Channel;
use super::commands::{self, Parts};
use super::figure::{Figure, Limit, median, milliseconds};
use super::server::{BenchServer, settings_from_environment};
use super::{by_hand, vm};
use crate::client::Client;
use crate::error::CliError;

/// How long a machine started by hand may take.
const BOOT_LIMIT: Duration = Duration::from_secs(60);

/// How a monitor is started by hand.
struct ByHand {
    program: PathBuf,
    arguments: Vec<String>,
    channel: Channel,
    floor_is: &'static str,
    /// What a create may be at most, of this floor.
    times: f64,
}

/// Measures both by turns.
pub(super) async fn measure(client: &Client, server: &BenchServer, rounds: usize) -> Result<Figure, CliError> {
    // The first create makes the template, the initramfs and the caches that all later ones find.
    create(client).await?;
    let scratch = tempfile::tempdir().map_err(CliError::file("temporary directory"))?;
    let parts = Parts {
        image: server.image(),
        initramfs: only_file(&server.root().join("initramfs"))?,
        disk: scratch.path().join("disk"),
        socket: scratch.path().join("in.sock"),
    };
    let by_hand = ByHand::new(&parts, scratch.path()).await?;
    let template = only_file(&server.root().join("templates"))?;
    let (mut created, mut booted) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        created.push(create(client).await?);
        for left in [&parts.disk, &parts.socket] {
            let _ = std::fs::remove_file(left);
        }
        disk::clone_sparse(&template, &parts.disk, disk::CloneMode::Auto)
            .map_err(|error| CliError::Failed(error.to_string()))?;
        booted.push(by_hand.boot().await?);
    }
    Ok(Figure::beside("create, cold", median(&created), median(&booted), by_hand.floor_is, Limit::Times(by_hand.times)))
}

/// Milliseconds from the request to the 201.
async fn create(client: &Client) -> Result<f64, CliError> {
    let begun = Instant::now();
    let vm = client.create_vm(&vm(by_hand::MEM_MIB)).await?;
    let took = milliseconds(begun);
    client.delete_vm(&vm.id).await?;
    Ok(took)
}

/// The one file of a directory that the server filled.
pub(super) fn only_file(dir: &Path) -> Result<PathBuf, CliError> {
    let mut entries = std::fs::read_dir(dir).map_err(CliError::file(dir))?.flatten();
    entries.next().map(|entry| entry.path()).ok_or_else(|| CliError::Failed(format!("{} is empty", dir.display())))
}

impl ByHand {
    /// The monitor that the server uses.
    async fn new(parts: &Parts<'_>, scratch: &Path) -> Result<Self, CliError> {
        let config = settings_from_environment()?;
        if by_hand::driver().await?.description().name == firecracker::PROGRAM {
            Self::firecracker(&config, parts, scratch).await
        } else {
            Self::qemu(&config, parts).await
        }
    }

    async fn qemu(config: &Config, parts: &Parts<'_>) -> Result<Self, CliError> {
        let driver =
            Qemu::new(hypervisor::settings(config)).await.map_err(|error| CliError::Failed(error.to_string()))?;
        Ok(Self {
            program: qemu::PROGRAM.into(),
            arguments: commands::qemu(parts, driver.description().accelerator, &driver.kernel_command_line()),
            channel: Channel::Port(parts.socket.clone()),
            floor_is: "QEMU by hand to the agent's first byte",
            times: 1.15,
        })
    }

    /// Without a jail.
    async fn firecracker(config: &Config, parts: &Parts<'_>, scratch: &Path) -> Result<Self, CliError> {
        let settings = hypervisor::candidates(config).firecracker.map_err(CliError::Failed)?;
        let (program, port) = (settings.program.clone(), settings.agent_port);
        let driver = Firecracker::new(settings).await.map_err(|error| CliError::Failed(error.to_string()))?;
        let machine = scratch.join("machine.json");
        let content = commands::firecracker(parts, &driver.kernel_command_line()).to_string();
        std::fs::write(&machine, content).map_err(CliError::file(&machine))?;
        Ok(Self {
            program,
            arguments: vec!["--no-api".into(), "--config-file".into(), machine.display().to_string()],
            channel: Channel::Vsock(parts.socket.clone(), port),
            floor_is: "Firecracker by hand to the agent's first byte",
            times: 1.2,
        })
    }

    /// Milliseconds from the start of the process to the first byte of the agent.
    async fn boot(&self) -> Result<f64, CliError> {
        let begun = Instant::now();
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.kill_on_drop(true).spawn().map_err(CliError::file(&self.program))?;
        let answered = tokio::select! {
            answered = tokio::time::timeout(BOOT_LIMIT, self.channel.first_byte()) => answered,
            status = child.wait() => return Err(CliError::Failed(format!("a monitor by hand ended: {status:?}"))),
        };
        let took = milliseconds(begun);
        let _ = child.kill().await;
        match answered {
            Ok(Ok(())) => Ok(took),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(CliError::Failed("the agent of the machine started by hand did not answer".into())),
        }
    }
}
