//! The QEMU driver: the `microvm` machine under KVM where that works, under emulation elsewhere.
//!
//! It owns the names in a machine's directory and the process that runs it. A process gets everything that it uses as
//! open descriptors, runs as a user who owns nothing, and may neither start programs nor gain privileges. This module
//! must not know what a guest does.

mod arguments;
mod balloon;
mod catch_up;
mod clock;
mod files;
mod launch;
mod memory;
mod probe;
mod qmp;
mod snapshot;
mod stalled;
mod template;
mod throttle;
mod version;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::accelerator::{self, Accelerator, AcceleratorWish};
use crate::hypervisor::{
    ByteStream, Description, DiskLimits, Hypervisor, Log, MachineSpec, MemoryLimit, Port, SnapshotDir, VmId,
};
use crate::process;
use crate::{HypervisorError, Version};

use arguments::{Arguments, Descriptors, Memory};
use launch::{Credentials, Inheritance, Limits, OWN_THREADS, Role};
use probe::Probe;
use qmp::Qmp;
use template::{Template, Templates};

pub use arguments::EMULATED_PROCESSOR;
pub(crate) use files::MARKS;
pub use version::{OLDEST, version_of};

/// Name of the program in the distributions' packages.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// The driver.
#[derive(Debug)]
pub struct Qemu {
    program: PathBuf,
    version: Version,
    accelerator: Accelerator,
    tsc_khz: u64,
    description: Description,
    templates: Arc<Templates>,
}

/// How to make a [`Qemu`].
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The program; [`PROGRAM`] from `PATH` if absent.
    pub program: Option<PathBuf>,
    /// What is to execute guests' instructions.
    pub accelerator: AcceleratorWish,
    /// File in which the KVM probe keeps its answer, so that it runs once for each boot of the host.
    pub probe_cache: Option<PathBuf>,
    /// File in which the rate of the host's time stamp counter is kept. Emulated machines are told it, so without that file
    /// snapshots of them are of no use to the next driver.
    pub rate_cache: Option<PathBuf>,
    /// One of the users that machines will run as, for whom `/dev/kvm` is tried; the manager's own if absent.
    pub user: Option<u32>,
}

impl Qemu {
    /// A driver. Tries KVM if that is not yet known, which takes at most two seconds.
    pub async fn new(settings: Settings) -> Result<Self, HypervisorError> {
        let program = settings.program.unwrap_or_else(|| PROGRAM.into());
        let version = version_of(&program).await?;
        let cache = settings.probe_cache.as_deref();
        let kvm = match settings.accelerator {
            AcceleratorWish::Auto => Probe { program: &program, version, user: settings.user, cache }.run().await,
            AcceleratorWish::Exactly(_) => Ok(()),
        };
        let (accelerator, reason) = settings.accelerator.settle(kvm);
        let description =
            Description { name: "qemu", version: version.to_string(), accelerator: accelerator.name(), reason };
        let tsc_khz = clock::tsc_khz(settings.rate_cache.as_deref()).await;
        Ok(Self { program, version, accelerator, tsc_khz, description, templates: Arc::default() })
    }

    /// The program's version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The command line that every VM's kernel gets.
    pub fn kernel_command_line(&self) -> String {
        arguments::command_line(self.accelerator, self.version, self.tsc_khz, false)
    }

    /// Starts a process and records it. It has not necessarily come to life when this returns. After an error it is gone.
    async fn start(&self, spec: &MachineSpec, template: Option<Arc<Template>>) -> Result<(), HypervisorError> {
        process::announce(&spec.dir, &MARKS).map_err(HypervisorError::io("the process file"))?;
        let mut inheritance = Inheritance::open(spec)?;
        let incoming = template.is_some();
        let memory = template.as_ref().map(|template| template.memory.try_clone()).transpose();
        let memory = memory.map_err(HypervisorError::io("the snapshot's memory"))?;
        let memory = memory.map_or(Memory::Fresh, |memory| inheritance.start_from(memory));
        let arguments = Arguments {
            id: spec.id,
            vcpus: spec.vcpus,
            mem_mib: spec.mem_mib,
            accelerator: self.accelerator,
            version: self.version,
            tsc_khz: self.tsc_khz,
            descriptors: inheritance.descriptors(),
            memory,
            mac: spec.nic.as_ref().map(|nic| nic.mac),
            rehearse: spec.rehearse,
            incoming,
        };
        let credentials = spec.user.map(|user| Credentials::of(user, self.accelerator));
        let limits = Limits { largest_file: spec.largest_file(), threads: u64::from(spec.vcpus) + OWN_THREADS };
        let role = Role { credentials, limits, background: spec.background };
        let child = launch::start(&self.program, &arguments.render(), role, inheritance)?;
        // Without the file the process could hide from a search.
        if let Err(source) = process::record(&spec.dir, child.id(), &MARKS) {
            child.end().await.map_err(HypervisorError::io("ending the process"))?;
            return Err(HypervisorError::io("the process file")(source));
        }
        // Reaps it when it ends while this program lives; init does so afterwards.
        let ended = child.reap();
        tokio::spawn(async move {
            let ended = ended.await;
            drop(template);
            ended
        });
        Ok(())
    }

    /// Waits for `work` with a process that has just been started; ends the process if either fails.
    async fn bring_up(
        &self,
        dir: &Path,
        work: impl Future<Output = Result<(), HypervisorError>> + Send,
    ) -> Result<(), HypervisorError> {
        let done = tokio::select! {
            done = work => done,
            () = self.wait(dir) => Err(HypervisorError::NotRunning),
        };
        let Err(error) = done else { return Ok(()) };
        self.kill(dir).await?;
        Err(match error {
            HypervisorError::NotRunning => HypervisorError::exited(&self.last_words(dir)),
            other => other,
        })
    }
}

#[async_trait]
impl Hypervisor for Qemu {
    fn description(&self) -> &Description {
        &self.description
    }

    fn fingerprint(&self) -> String {
        let processor = match self.accelerator {
            Accelerator::Kvm => accelerator::processor(),
            Accelerator::Tcg => String::new(),
        };
        let arguments = Arguments {
            id: VmId::NONE,
            vcpus: 1,
            mem_mib: 128,
            accelerator: self.accelerator,
            version: self.version,
            tsc_khz: self.tsc_khz,
            descriptors: Descriptors::default(),
            memory: Memory::Fresh,
            mac: None,
            rehearse: false,
            incoming: false,
        };
        format!("{}\n{}\n{processor}", self.version, arguments.render().join(" "))
    }

    async fn boot(&self, spec: &MachineSpec) -> Result<(), HypervisorError> {
        self.start(spec, None).await?;
        self.bring_up(&spec.dir, async { Qmp::open(&spec.dir).await.map(drop) }).await
    }

    async fn restore(&self, spec: &MachineSpec, snapshot: &SnapshotDir) -> Result<(), HypervisorError> {
        let disk = tokio::fs::metadata(&spec.disk).await.map_err(HypervisorError::io("the disk"))?;
        let (templates, memory) = (Arc::clone(&self.templates), snapshot::memory(snapshot));
        let version = self.version;
        let opened = tokio::task::spawn_blocking(move || templates.open(&memory, version)).await;
        let bytes = u64::from(spec.mem_mib) << 20;
        let whole = |template: Arc<Template>| match template.memory.metadata()?.len() {
            length if length == bytes => Ok(template),
            length => Err(std::io::Error::other(format!("it has {length} bytes, not {bytes}"))),
        };
        let template = opened.map_err(std::io::Error::other).flatten().and_then(whole);
        let template = template.map_err(HypervisorError::io("the snapshot's memory"))?;
        self.start(spec, Some(template)).await?;
        self.bring_up(&spec.dir, snapshot::load(&spec.dir, snapshot, disk.len())).await
    }

    fn keep(&self, snapshot: &SnapshotDir) {
        self.templates.keep(&snapshot::memory(snapshot));
    }

    fn forget(&self, snapshot: &SnapshotDir) {
        self.templates.forget(&snapshot::memory(snapshot));
    }

    async fn pause(&self, dir: &Path) -> Result<(), HypervisorError> {
        Qmp::open(dir).await?.execute("stop", Value::Null).await.map(drop)
    }

    async fn resume(&self, dir: &Path) -> Result<(), HypervisorError> {
        Qmp::open(dir).await?.execute("cont", Value::Null).await.map(drop)
    }

    async fn retry_writes(&self, dir: &Path) -> Result<(), HypervisorError> {
        stalled::retry(dir).await
    }

    async fn prepare_snapshot(&self, dir: &Path, to: &SnapshotDir) -> Result<(), HypervisorError> {
        let process = process::running(dir, &MARKS)?;
        snapshot::prepare(&process, to).await
    }

    async fn snapshot(&self, dir: &Path, to: &SnapshotDir) -> Result<(), HypervisorError> {
        let process = process::running(dir, &MARKS)?;
        snapshot::save(dir, &process, to).await
    }

    async fn watch_disk(&self, dir: &Path) -> Result<bool, HypervisorError> {
        catch_up::watch(dir).await.map(|()| true)
    }

    async fn catch_up(&self, dir: &Path, copy: &Path) -> Result<(), HypervisorError> {
        catch_up::copy(dir, copy).await
    }

    async fn unwatch_disk(&self, dir: &Path) -> Result<(), HypervisorError> {
        catch_up::unwatch(dir).await
    }

    async fn disk_changed(&self, dir: &Path, bytes: u64) -> Result<(), HypervisorError> {
        snapshot::resize_disk(&mut Qmp::open(dir).await?, bytes).await
    }

    async fn limit_disk(&self, dir: &Path, limits: DiskLimits) -> Result<(), HypervisorError> {
        throttle::set(dir, limits).await
    }

    async fn limit_memory(&self, dir: &Path, limit: MemoryLimit) -> Result<(), HypervisorError> {
        balloon::set(dir, limit).await
    }

    async fn is_listening(&self, dir: &Path) -> Result<bool, HypervisorError> {
        let devices = Qmp::open(dir).await?.execute("query-chardev", Value::Null).await?;
        let open = |name: &str| {
            let mut devices = devices.as_array().into_iter().flatten();
            devices.any(|device| device["label"] == name && device["frontend-open"] == true)
        };
        Ok(open("in") && open("out"))
    }

    async fn connect(&self, dir: &Path, port: Port) -> Result<Box<dyn ByteStream>, HypervisorError> {
        let stream = UnixStream::connect(files::port(dir, port)).await.map_err(HypervisorError::unconnected)?;
        Ok(Box::new(stream))
    }

    async fn is_running(&self, dir: &Path) -> bool {
        process::is_running(dir, &MARKS)
    }

    async fn wait(&self, dir: &Path) {
        process::wait(dir, &MARKS).await;
    }

    async fn kill(&self, dir: &Path) -> Result<(), HypervisorError> {
        process::kill(dir).await
    }

    async fn find(&self, parent: &Path) -> Vec<VmId> {
        process::find(parent)
    }

    fn log_file(&self, dir: &Path, log: Log) -> PathBuf {
        files::log(dir, log)
    }
}
