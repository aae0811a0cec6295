//! Whether KVM can run guests: found out by running one.
//!
//! A device node that opens is no proof. In some containers and nested clouds it answers every query and creates
//! processors, and yet a distribution's kernel dies at its first instruction of a kind.

mod payload;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::time::timeout;

use super::launch::{Credentials, Limits, OWN_THREADS, Role, confine};
use crate::Version;
use crate::accelerator::Accelerator;

/// Time for the payload, which takes 0.1 s; a guest that hangs is as useless as one that dies.
const LIMIT: Duration = Duration::from_secs(2);

/// The payload has one processor, and files for nothing.
const LIMITS: Limits = Limits { largest_file: 1 << 20, threads: 1 + OWN_THREADS };

/// What is asked of KVM.
#[derive(Debug, Clone)]
pub(super) struct Probe<'a> {
    pub(super) program: &'a Path,
    pub(super) version: Version,
    /// Whom machines run as; `None` for this process's user.
    pub(super) user: Option<u32>,
    /// Where the answer is kept; it is found out anew every time if there is no such place.
    pub(super) cache: Option<&'a Path>,
}

/// A kept answer and what it was found out with.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Kept {
    key: String,
    kvm: Result<(), String>,
}

impl Probe<'_> {
    /// Whether guests run under KVM; `Err` says why not.
    pub(super) async fn run(&self) -> Result<(), String> {
        let key = self.key()?;
        let kept = self.cache.and_then(|path| fs::read(path).ok());
        let kept = kept.and_then(|text| serde_json::from_slice::<Kept>(&text).ok());
        if let Some(kept) = kept.filter(|kept| kept.key == key) {
            return kept.kvm;
        }
        let kvm = self.boot(Accelerator::Kvm).await?;
        if let Some(path) = self.cache {
            let kept = Kept { key, kvm: kvm.clone() };
            if let Err(error) = keep(path, &kept) {
                tracing::warn!(%error, path = %path.display(), "cannot keep the answer of the KVM probe");
            }
        }
        kvm
    }

    /// Everything that the answer depends on: the host and its boot, the program, the user's right to the device.
    fn key(&self) -> Result<String, String> {
        let device = fs::metadata("/dev/kvm").map_err(|error| format!("/dev/kvm: {error}"))?;
        if self.user.is_none() {
            let opened = OpenOptions::new().read(true).write(true).open("/dev/kvm");
            opened.map_err(|error| format!("/dev/kvm: {error}; is this user in its group?"))?;
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = processor.lines().find(|line| line.starts_with("model name")).unwrap_or_default();
        let rights = format!("{:o} {}:{}", device.mode(), device.uid(), device.gid());
        Ok(format!("{}|{processor}|{}|{rights}|{:?}", boot.trim(), self.version, self.user))
    }

    /// Runs the payload. The outer error is of this attempt and says nothing lasting about KVM.
    async fn boot(&self, accelerator: Accelerator) -> Result<Result<(), String>, String> {
        let payload = memory_file(payload::elf()).map_err(|error| format!("the KVM probe: {error}"))?;
        let mut command = std::process::Command::new(self.program);
        command.args(arguments(accelerator)).current_dir("/").env_clear();
        command.stdin(payload).stdout(Stdio::null()).stderr(Stdio::piped());
        let credentials = self.user.map(|user| Credentials::of(user, accelerator));
        confine(&mut command, Vec::new(), Role { credentials, limits: LIMITS, background: false });
        let mut command = Command::from(command);
        let output = timeout(LIMIT, command.kill_on_drop(true).output()).await;
        let Ok(output) = output else { return Ok(Err("/dev/kvm is there, but a guest hangs in it".into())) };
        let output = output.map_err(|error| format!("the KVM probe: {error}"))?;
        let words = String::from_utf8_lossy(&output.stderr);
        Ok(payload::verdict(output.status.code()).map_err(|why| match words.lines().next() {
            Some(words) => format!("{why} ({words})"),
            None => why,
        }))
    }
}

/// The machine of real guests, with a way to end it from inside. The payload is standard input.
fn arguments(accelerator: Accelerator) -> Vec<String> {
    let port = format!("isa-debug-exit,iobase={:#x},iosize=1", payload::PORT);
    let machine = "microvm,x-option-roms=off,rtc=on,pit=off,pic=on";
    let fixed = [
        "-bios",
        "qboot.rom",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-m",
        "16",
        "-cpu",
        "max",
    ];
    let chosen = ["-machine", machine, "-accel", accelerator.name(), "-device", &port, "-kernel", "/dev/fd/0"];
    fixed.into_iter().chain(chosen).map(str::to_owned).collect()
}

fn memory_file(content: &[u8]) -> std::io::Result<Stdio> {
    let mut file = File::from(memfd_create("rds-probe", MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    Ok(file.into())
}

fn keep(path: &Path, kept: &Kept) -> std::io::Result<()> {
    let mut draft = PathBuf::from(path);
    draft.add_extension("new");
    fs::write(&draft, serde_json::to_vec(kept)?)?;
    fs::rename(draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn probe<'a>(cache: Option<&'a Path>) -> Probe<'a> {
        let program = Path::new("qemu-system-x86_64");
        let version = crate::qemu::version_of(program).await.expect("qemu-system-x86_64 is installed");
        Probe { program, version, user: None, cache }
    }

    /// An emulated processor has everything, so what remains to fail is the payload itself.
    #[tokio::test]
    #[ignore = "needs qemu-system-x86_64"]
    async fn the_payload_passes_under_emulation() {
        let probe = probe(None).await;
        assert_eq!(probe.boot(Accelerator::Tcg).await, Ok(Ok(())));
    }

    #[tokio::test]
    #[ignore = "needs qemu-system-x86_64 and /dev/kvm"]
    async fn an_answer_is_kept_for_the_same_circumstances() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("kvm.json");
        let probe = probe(Some(&cache)).await;
        let key = probe.key().expect("the circumstances can be told");
        let kept = |key: &str| Kept { key: key.into(), kvm: Err("kept".into()) };
        keep(&cache, &kept(&key)).unwrap();
        assert_eq!(probe.run().await, Err("kept".into()));
        keep(&cache, &kept("another boot")).unwrap();
        assert_ne!(probe.run().await, Err("kept".into()));
        fs::write(&cache, b"garbage").unwrap();
        assert_ne!(probe.run().await, Err("kept".into()));
    }
}
