//! A cold create, beside QEMU started by hand with the same kernel, initramfs and disks.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rds_image::disk;
use rds_manager::hypervisor;
use rds_vmm::Hypervisor;
use rds_vmm::qemu::Qemu;
use tokio::process::Command;

use super::figure::{Figure, Limit, median};
use super::server::{BenchServer, ImageFiles, settings_from_environment};
use super::{channel, vm};
use crate::client::Client;
use crate::error::CliError;

const MEM_MIB: u32 = 256;

/// How long a machine started by hand may take.
const BOOT_LIMIT: Duration = Duration::from_secs(60);

/// Everything that a machine started by hand is made of.
struct ByHand<'a> {
    accelerator: String,
    kernel_command_line: String,
    image: &'a ImageFiles,
    initramfs: PathBuf,
    disk: PathBuf,
    socket: PathBuf,
}

/// Measures both by turns.
pub(super) async fn measure(client: &Client, server: &BenchServer, rounds: usize) -> Result<Figure, CliError> {
    // The first create makes the template, the initramfs and the caches that all later ones find.
    create(client).await?;
    let qemu = Qemu::new(hypervisor::settings(&settings_from_environment()?)).await;
    let qemu = qemu.map_err(|error| CliError::Failed(error.to_string()))?;
    let accelerator = match qemu.description().accelerator {
        "tcg" => "tcg,tb-size=256".to_owned(),
        other => other.to_owned(),
    };
    let template = only_file(&server.root().join("templates"))?;
    let scratch = tempfile::tempdir().map_err(CliError::file("temporary directory"))?;
    let (mut created, mut by_hand) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        created.push(create(client).await?);
        let machine = ByHand {
            accelerator: accelerator.clone(),
            kernel_command_line: qemu.kernel_command_line(),
            image: server.image(),
            initramfs: only_file(&server.root().join("initramfs"))?,
            disk: scratch.path().join("disk"),
            socket: scratch.path().join("in.sock"),
        };
        let _ = std::fs::remove_file(&machine.disk);
        let _ = std::fs::remove_file(&machine.socket);
        disk::clone_sparse(&template, &machine.disk, disk::CloneMode::Auto)
            .map_err(|error| CliError::Failed(error.to_string()))?;
        by_hand.push(machine.boot().await?);
    }
    Ok(Figure {
        name: "create, cold".into(),
        unit: "ms",
        measured: median(&created),
        floor: Some(median(&by_hand)),
        floor_is: "QEMU by hand to the agent's first byte",
        limit: Limit::Times(1.15),
    })
}

/// Milliseconds from the request to the 201.
async fn create(client: &Client) -> Result<f64, CliError> {
    let begun = Instant::now();
    let vm = client.create_vm(&vm(MEM_MIB)).await?;
    let took = begun.elapsed().as_secs_f64() * 1000.0;
    client.delete_vm(&vm.id).await?;
    Ok(took)
}

/// The one file of a directory that the server filled.
pub(super) fn only_file(dir: &Path) -> Result<PathBuf, CliError> {
    let mut entries = std::fs::read_dir(dir).map_err(CliError::file(dir))?.flatten();
    entries.next().map(|entry| entry.path()).ok_or_else(|| CliError::Failed(format!("{} is empty", dir.display())))
}

impl ByHand<'_> {
    /// Milliseconds from the start of the process to the first byte of the agent.
    async fn boot(&self) -> Result<f64, CliError> {
        let begun = Instant::now();
        let mut command = Command::new("qemu-system-x86_64");
        command.args(self.arguments()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().map_err(CliError::file("qemu-system-x86_64"))?;
        let answered = tokio::select! {
            answered = tokio::time::timeout(BOOT_LIMIT, channel::first_byte(&self.socket)) => answered,
            status = child.wait() => return Err(CliError::Failed(format!("QEMU by hand ended: {status:?}"))),
        };
        let took = begun.elapsed().as_secs_f64() * 1000.0;
        let _ = child.kill().await;
        match answered {
            Ok(Ok(())) => Ok(took),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(CliError::Failed("the agent of the machine started by hand did not answer".into())),
        }
    }

    /// The machine that the driver makes, with paths where that has descriptors.
    fn arguments(&self) -> Vec<String> {
        let memory = format!("memory-backend-memfd,id=ram,size={MEM_MIB}M,share=on");
        let machine = "microvm,x-option-roms=off,rtc=on,pit=on,pic=on,memory-backend=ram,dump-guest-core=off";
        let (kernel, initramfs) = (self.image.kernel.display().to_string(), self.initramfs.display().to_string());
        let drive = |id: &str, path: &Path, read_only: &str| {
            format!("driver=raw,node-name={id},read-only={read_only},file.driver=file,file.filename={}", path.display())
        };
        let socket = format!("socket,id=in,path={},server=on,wait=off", self.socket.display());
        let words: [&str; 45] = [
            "-bios",
            "qboot.rom",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-machine",
            machine,
            "-accel",
            &self.accelerator,
            "-cpu",
            "max",
            "-smp",
            "1",
            "-m",
            "256",
            "-object",
            &memory,
            "-kernel",
            &kernel,
            "-initrd",
            &initramfs,
            "-append",
            &self.kernel_command_line,
            "-device",
            "virtio-serial-device,max_ports=3",
            "-chardev",
            &socket,
            "-device",
            "virtserialport,chardev=in,name=rds.in,nr=1",
            "-chardev",
            "null,id=out",
            "-device",
            "virtserialport,chardev=out,name=rds.out,nr=2",
            "-blockdev",
            &drive("root", &self.image.rootfs, "on"),
            "-device",
            "virtio-blk-device,drive=root",
            "-blockdev",
            &drive("disk", &self.disk, "off"),
            "-device",
            "virtio-blk-device,drive=disk",
            "-serial",
            "null",
        ];
        words.map(str::to_owned).to_vec()
    }
}
