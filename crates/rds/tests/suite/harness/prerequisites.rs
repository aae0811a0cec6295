//! What must be on this machine for a VM to run.

use std::path::{Path, PathBuf};

/// What `needs` says of a test of what only Firecracker does.
pub(crate) const FIRECRACKER: &str = "Firecracker";

/// The monitor that runs the VMs.
pub(crate) fn monitor() -> &'static str {
    let on_firecracker = std::env::var("RDS_HYPERVISOR").is_ok_and(|wish| wish == "firecracker");
    if on_firecracker { "firecracker" } else { "qemu" }
}

/// The files that a server is given.
#[derive(Debug, Clone)]
pub(crate) struct Prerequisites {
    /// The image's kernel.
    pub(crate) kernel: PathBuf,
    /// The image's root filesystem.
    pub(crate) rootfs: PathBuf,
    /// The kernel's modules; absent if everything is built in.
    pub(crate) modules: Option<PathBuf>,
    /// The static guest agent.
    pub(crate) agent: PathBuf,
}

impl Prerequisites {
    /// Finds them, or says in one line what is missing and how to get it.
    pub(crate) fn find() -> Result<Self, String> {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
        let named = |setting: &str, default: &str| {
            let path = std::env::var_os(setting).map_or_else(|| target.join(default), PathBuf::from);
            path.canonicalize().map_err(|error| format!("{}: {error}; {setting} names another", path.display()))
        };
        if monitor() == "qemu" && !on_path("qemu-system-x86_64") {
            return Err("qemu-system-x86_64 is not installed (package qemu-system-x86)".into());
        }
        Ok(Self {
            kernel: named("KERNEL_PATH", "image/kernel")?,
            rootfs: named("BASE_ROOTFS_PATH", "image/rootfs")?,
            modules: named("MODULES_PATH", "image/modules").ok(),
            agent: named("RDS_AGENT_PATH", "x86_64-unknown-linux-gnu/agent/rds-agent")?,
        })
    }

    /// The files of the image by their names in the API.
    pub(crate) fn image_files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let both = [("kernel", self.kernel.as_path()), ("rootfs", self.rootfs.as_path())];
        both.into_iter().chain(self.modules.as_deref().map(|modules| ("modules", modules)))
    }

    /// The settings that make a server use the image in place.
    pub(crate) fn image_settings(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let setting = |kind| match kind {
            "kernel" => "KERNEL_PATH",
            "rootfs" => "BASE_ROOTFS_PATH",
            _ => "MODULES_PATH",
        };
        self.image_files().map(move |(kind, path)| (setting(kind), path))
    }
}

/// Whether there is such a program.
pub(crate) fn on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}
