//! What a person would type to start a machine as the driver makes it. Pure.

use std::path::{Path, PathBuf};

use rds_vmm::qemu::EMULATED_PROCESSOR;
use serde_json::{Value, json};

use super::by_hand::MEM_MIB;
use super::server::ImageFiles;

/// Everything that a machine started by hand is made of.
pub(super) struct Parts<'a> {
    pub(super) image: &'a ImageFiles,
    pub(super) initramfs: PathBuf,
    pub(super) disk: PathBuf,
    /// Where its guest channel is to be.
    pub(super) socket: PathBuf,
}

/// QEMU's arguments: the machine that the driver makes, with paths where that has descriptors.
pub(super) fn qemu(parts: &Parts<'_>, accelerator: &str, kernel_command_line: &str) -> Vec<String> {
    let (accelerator, processor) = match accelerator {
        "tcg" => ("tcg,tb-size=256", EMULATED_PROCESSOR),
        other => (other, "max"),
    };
    let megabytes = MEM_MIB.to_string();
    let memory = format!("memory-backend-memfd,id=ram,size={MEM_MIB}M,share=on");
    let machine = "microvm,x-option-roms=off,rtc=on,pit=off,pic=on,memory-backend=ram,dump-guest-core=off";
    let (kernel, initramfs) = (parts.image.kernel.display().to_string(), parts.initramfs.display().to_string());
    let drive = |id: &str, path: &Path, read_only: &str| {
        format!("driver=raw,node-name={id},read-only={read_only},file.driver=file,file.filename={}", path.display())
    };
    let socket = format!("socket,id=in,path={},server=on,wait=off", parts.socket.display());
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
        accelerator,
        "-cpu",
        processor,
        "-smp",
        "1",
        "-m",
        &megabytes,
        "-object",
        &memory,
        "-kernel",
        &kernel,
        "-initrd",
        &initramfs,
        "-append",
        kernel_command_line,
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
        &drive("root", &parts.image.rootfs, "on"),
        "-device",
        "virtio-blk-device,drive=root",
        "-blockdev",
        &drive("disk", &parts.disk, "off"),
        "-device",
        "virtio-blk-device,drive=disk",
        "-serial",
        "null",
    ];
    words.map(str::to_owned).to_vec()
}

/// Firecracker's configuration file.
pub(super) fn firecracker(parts: &Parts<'_>, kernel_command_line: &str) -> Value {
    let drive = |id: &str, path: &Path, read_only: bool| {
        json!({"drive_id": id, "path_on_host": path, "is_root_device": false, "is_read_only": read_only,
               "cache_type": "Writeback"})
    };
    json!({
        "boot-source": {
            "kernel_image_path": parts.image.kernel,
            "initrd_path": parts.initramfs,
            "boot_args": kernel_command_line,
        },
        "machine-config": {"vcpu_count": 1, "mem_size_mib": MEM_MIB},
        "drives": [drive("rootfs", &parts.image.rootfs, true), drive("disk", &parts.disk, false)],
        "vsock": {"guest_cid": 3, "uds_path": parts.socket},
        "entropy": {},
    })
}
