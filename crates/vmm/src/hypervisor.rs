//! What every virtual machine monitor must be able to do.
//!
//! A driver keeps no state of its own about a machine: all its names (sockets, logs, process file) derive from
//! [`MachineSpec::dir`], so a manager that was killed finds a machine again from its directory alone, and can remove it
//! without remembering anything.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use async_trait::async_trait;
use rds_netif::Mac;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use uuid::Uuid;

/// Identity of a VM: a random (version 4) UUID, written in lower case with hyphens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VmId(Uuid);

impl VmId {
    /// Nobody's: no VM ever gets it.
    pub(crate) const NONE: Self = Self(Uuid::nil());

    /// A new identity.
    #[expect(clippy::new_without_default, reason = "two calls give two identities; a default would hide that")]
    pub fn new() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// Text that is no VM id.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("not a VM id")]
pub struct InvalidVmId;

impl FromStr for VmId {
    type Err = InvalidVmId;

    /// Accepts exactly the form that [`fmt::Display`] writes.
    fn from_str(text: &str) -> Result<Self, InvalidVmId> {
        let id = Uuid::try_parse(text).map(Self).map_err(|_| InvalidVmId)?;
        if id.to_string() == text { Ok(id) } else { Err(InvalidVmId) }
    }
}

/// The parts of one machine. All files exist; the driver owns none of them.
#[derive(Debug, Clone)]
pub struct MachineSpec {
    /// Whose machine it is.
    pub id: VmId,
    /// Number of virtual CPUs, at least 1.
    pub vcpus: u8,
    /// Guest memory in MiB.
    pub mem_mib: u32,
    /// An ELF `vmlinux` or a bzImage.
    pub kernel: PathBuf,
    /// The cpio archive with the agent and the kernel's modules.
    pub initramfs: PathBuf,
    /// The image's root filesystem; opened read-only. The guest's first block device.
    pub rootfs: PathBuf,
    /// The VM's own writable disk. The guest's second block device.
    pub disk: PathBuf,
    /// How much of the disk may ever be written to: the file may be larger.
    pub disk_bytes: u64,
    /// The VM's own directory, in which the driver makes its sockets, logs and process file. Only the manager needs
    /// access to it: the monitor gets what it uses as open descriptors.
    pub dir: PathBuf,
    /// The user and group that the monitor runs as, unlike those of every other VM; `None` for the manager's own.
    /// Needs root. It owns no file and needs to reach none but the monitor's own, the kernel and the initramfs, which
    /// it must have permission to read (whatever directories they are in).
    pub user: Option<u32>,
    /// Its network interface; `None` for a machine without one.
    pub nic: Option<Nic>,
    /// Whether the guest, when it is booted, does first what a VM's first start does, on its disk: a snapshot of it then has
    /// what its kernel learns by that.
    pub rehearse: bool,
    /// Whether it has time: other machines then come before it on the processors.
    pub background: bool,
}

impl MachineSpec {
    /// Bytes of the largest file that the monitor may write: the disk, or the guest's memory.
    pub(crate) fn largest_file(&self) -> u64 {
        self.disk_bytes.max(u64::from(self.mem_mib) << 20)
    }
}

/// A machine's network interface.
///
/// The tap is there before the machine is and stays after it; what may pass through it is not the driver's business. A
/// machine that is restored keeps the address that the snapshot's had until its agent sets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// Name of the tap device on the host: persistent, and owned by [`MachineSpec::user`] if that is set.
    pub tap: String,
    /// The guest's hardware address.
    pub mac: Mac,
}

/// How fast a guest may use its writable disk, reads and writes together. `None` is as fast as it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskLimits {
    /// Bytes a second, more than 0.
    pub bytes_per_second: Option<u64>,
    /// Requests a second, more than 0.
    pub ops_per_second: Option<u64>,
}

/// How much of its memory a guest is asked to keep to. Nobody makes it: what the host must have room for is all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimit {
    /// The machine's memory in MiB.
    pub of_mib: u32,
    /// What the guest may keep of it in MiB, more than 0.
    pub kept_mib: u32,
}

impl MemoryLimit {
    /// MiB that are to be in the balloon.
    pub(crate) fn balloon_mib(self) -> u32 {
        self.of_mib.saturating_sub(self.kept_mib)
    }
}

/// A snapshot of a machine's memory and devices, as files in a directory.
#[derive(Debug, Clone)]
pub struct SnapshotDir(pub PathBuf);

/// The two directions of the guest channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// The manager's calls into the guest.
    In,
    /// The guest's calls out to the manager.
    Out,
}

/// Characters of a monitor's own words that an error has.
pub const WORDS_CHARS: usize = 300;

/// Bytes of a monitor's own words, of each of its logs, that are repeated.
const WORDS: u64 = 1000;

/// A byte stream to a guest.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// A log that a driver keeps for a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// The guest's console.
    Serial,
    /// What the virtual machine monitor wrote to its standard output.
    Stdout,
    /// What the virtual machine monitor wrote to its standard error.
    Stderr,
}

/// What a machine's monitor has counted since it was last asked, as it says itself: a guest that has taken its monitor over
/// can make these numbers up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes that the guest read from its disks.
    pub disk_read: u64,
    /// Bytes that it wrote to them.
    pub disk_written: u64,
    /// Bytes of the guest channel into the guest.
    pub channel_in: u64,
    /// Bytes of the guest channel out of it.
    pub channel_out: u64,
    /// Requests of the guest's, or events, that its disks could not handle.
    pub disk_faults: u64,
    /// The same of its network interface, and packets with another's hardware address.
    pub network_faults: u64,
    /// The same of its guest channel.
    pub channel_faults: u64,
    /// Times that a processor could not go on.
    pub processor_faults: u64,
    /// System calls that the monitor tried and must not make.
    pub forbidden_calls: u64,
}

impl Counts {
    /// Both together. Saturates.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            disk_read: self.disk_read.saturating_add(other.disk_read),
            disk_written: self.disk_written.saturating_add(other.disk_written),
            channel_in: self.channel_in.saturating_add(other.channel_in),
            channel_out: self.channel_out.saturating_add(other.channel_out),
            disk_faults: self.disk_faults.saturating_add(other.disk_faults),
            network_faults: self.network_faults.saturating_add(other.network_faults),
            channel_faults: self.channel_faults.saturating_add(other.channel_faults),
            processor_faults: self.processor_faults.saturating_add(other.processor_faults),
            forbidden_calls: self.forbidden_calls.saturating_add(other.forbidden_calls),
        }
    }
}

/// Which monitor runs the machines, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Description {
    /// `qemu` or `firecracker`.
    pub name: &'static str,
    /// Its version as it reports it.
    pub version: String,
    /// `kvm`, or `tcg` for emulation.
    pub accelerator: &'static str,
    /// Why this accelerator was chosen.
    pub reason: String,
}

/// A failure of a virtual machine monitor. A monitor's own words are cut to [`WORDS_CHARS`] characters of one line: a guest that
/// has taken it over chooses them, and they are logged.
#[derive(Debug, Error)]
pub enum HypervisorError {
    /// The program could not be started.
    #[error("cannot start {program}: {source}")]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The program ended by itself, with these words.
    #[error("the virtual machine monitor ended: {0}")]
    Exited(String),
    /// The program refused a command.
    #[error("the virtual machine monitor refused `{command}`: {message}")]
    Refused {
        /// The command.
        command: String,
        /// Its words.
        message: String,
    },
    /// The program did not answer in time.
    #[error("the virtual machine monitor did not answer in time ({0})")]
    Timeout(&'static str),
    /// The machine is not running.
    #[error("the machine is not running")]
    NotRunning,
    /// The machine has no balloon that its guest uses.
    #[error("the guest has no balloon")]
    NoBalloon,
    /// A file or socket failed.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl HypervisorError {
    /// Says what was attempted when a file or socket failed.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { what: what.into(), source }
    }

    /// Says why there is no connection to a guest: a monitor that has ended listens no more.
    pub(crate) fn unconnected(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => Self::NotRunning,
            _ => Self::io("the guest channel")(error),
        }
    }

    /// A monitor ended with these words, of which the last ones tell most.
    pub(crate) fn exited(words: &str) -> Self {
        let surplus = words.chars().count().saturating_sub(WORDS_CHARS);
        Self::Exited(legible(words.chars().skip(surplus), WORDS_CHARS))
    }

    /// A monitor refused a command with these words.
    pub(crate) fn refused(command: impl Into<String>, words: &str) -> Self {
        Self::Refused { command: command.into(), message: legible(words.chars(), WORDS_CHARS) }
    }
}

/// The beginning of words that neither end a line nor turn what is around them about.
pub(crate) fn legible(words: impl Iterator<Item = char>, longest: usize) -> String {
    let misleads = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    words.map(|c| if misleads(c) { ' ' } else { c }).take(longest).collect()
}

/// How often a machine is booted at most while [`Hypervisor::was_mistimed`]. On a host with 45 programs for each processor,
/// half of all boots were.
pub const MAX_BOOTS: u32 = 8;

/// A virtual machine monitor. Cheap to share; all methods may be called at once for different machines.
#[async_trait]
pub trait Hypervisor: Send + Sync + fmt::Debug {
    /// Which one this is.
    fn description(&self) -> &Description;

    /// What a snapshot depends on besides its machine's spec: two drivers with the same text can restore each other's
    /// snapshots.
    fn fingerprint(&self) -> String;

    /// Starts a machine from its kernel. Returns when its processor runs; the guest is still booting.
    ///
    /// The process outlives the caller. On an error nothing is left running.
    async fn boot(&self, spec: &MachineSpec) -> Result<(), HypervisorError>;

    /// Whether the machine that was booted in `dir` has ended because its kernel was wrong about its timer, as happens where the
    /// host emulates and is busy. The next boot may be better. Of an earlier machine in the same directory it may be true, too.
    fn was_mistimed(&self, dir: &Path) -> bool {
        // A panic's report is behind it.
        let end = crate::log_end(&self.log_file(dir, Log::Serial), 8192).unwrap_or_default();
        String::from_utf8_lossy(&end).contains(rds_protocol::MISTIMED)
    }

    /// Starts a machine from a snapshot, running. Memory is mapped copy-on-write from the snapshot's files, which must
    /// stay in place while the machine lives.
    ///
    /// `spec` must have the snapshot's processors, memory size, kernel and image; its disk may have another size.
    /// Device state that is not as it was written is refused. On an error nothing is left running.
    async fn restore(&self, spec: &MachineSpec, snapshot: &SnapshotDir) -> Result<(), HypervisorError>;

    /// Says, of a snapshot that a machine was just started from, that others will be: what the driver has of it in the host's
    /// memory stays there until [`Self::forget`]. Of any other snapshot it is given back with the end of the machines that were
    /// started from it.
    fn keep(&self, _snapshot: &SnapshotDir) {}

    /// Ends what [`Self::keep`] began. A machine that is started from the snapshot nevertheless only takes longer.
    fn forget(&self, _snapshot: &SnapshotDir) {}

    /// Stops the processors. Does nothing to a machine that is paused.
    async fn pause(&self, dir: &Path) -> Result<(), HypervisorError>;

    /// Lets the processors go on. Does nothing to a machine that runs.
    async fn resume(&self, dir: &Path) -> Result<(), HypervisorError>;

    /// Does ahead of [`Self::snapshot`] into the same directory what can be done while the machine runs, so that it is
    /// paused for a shorter time. May be left out.
    async fn prepare_snapshot(&self, _dir: &Path, _to: &SnapshotDir) -> Result<(), HypervisorError> {
        Ok(())
    }

    /// A machine stands still when the host's disk is too full for one of its writes; nothing is lost. This has it try that
    /// write again. Does nothing to any other machine, in particular to one that was paused.
    async fn retry_writes(&self, _dir: &Path) -> Result<(), HypervisorError> {
        Ok(())
    }

    /// Saves memory and devices of a paused machine into a directory that is empty or was prepared. The machine stays
    /// paused, and can go on.
    async fn snapshot(&self, dir: &Path, to: &SnapshotDir) -> Result<(), HypervisorError>;

    /// Removes what the driver keeps on the host's disk of the memory that [`Self::snapshot`] saved last, since that is not to be
    /// there. The next snapshot only takes longer.
    fn forget_saved(&self, _dir: &Path) {}

    /// Notes from now on where the machine writes to its disk, so that a copy of it that is begun after this, while the
    /// machine runs, can be made whole by [`Self::catch_up`]. `false`: this driver cannot, and a disk must be copied
    /// while nothing is written to it. [`Self::unwatch_disk`] must follow; it does so by itself before the next time.
    async fn watch_disk(&self, _dir: &Path) -> Result<bool, HypervisorError> {
        Ok(false)
    }

    /// Copies what was written to the disk since [`Self::watch_disk`] to a copy of the same size. Nothing may be written
    /// meanwhile. The monitor may keep the copy open, and write to it at any time: nobody else is to rely on that file.
    async fn catch_up(&self, _dir: &Path, _copy: &Path) -> Result<(), HypervisorError> {
        Err(HypervisorError::NotRunning)
    }

    /// Ends what [`Self::watch_disk`] began.
    async fn unwatch_disk(&self, _dir: &Path) -> Result<(), HypervisorError> {
        Ok(())
    }

    /// Tells a guest the size of its disk, whose file got another content and size in place. A guest that has not yet
    /// opened the disk sees the new content; it learns of the size a moment later.
    async fn disk_changed(&self, dir: &Path, bytes: u64) -> Result<(), HypervisorError>;

    /// Lets a guest use its disk only so fast from now on, until its machine ends or this is called again. A snapshot may have
    /// the limits in it: a machine that is restored from one of a machine that had some is to be given its own.
    async fn limit_disk(&self, dir: &Path, limits: DiskLimits) -> Result<(), HypervisorError>;

    /// Asks a guest to keep to so much of its memory from now on, until its machine ends or this is called again. It puts the
    /// rest into its balloon when it gets to it, and takes of that what its programs need and do not find elsewhere. A guest
    /// that does neither is not found out. A machine that is booted, or restored from a snapshot of one that nobody asked, may
    /// keep all; any other snapshot has in it what was asked.
    ///
    /// [`HypervisorError::NoBalloon`] from a driver that can tell that the guest has none.
    async fn limit_memory(&self, dir: &Path, limit: MemoryLimit) -> Result<(), HypervisorError>;

    /// Whether the guest has opened its side of both directions of the channel. To be asked of a machine that is to be
    /// snapshotted and not used otherwise: those that start from the snapshot can be connected to as if nobody had asked.
    async fn is_listening(&self, dir: &Path) -> Result<bool, HypervisorError>;

    /// Opens one direction of the guest channel. At most one stream per direction is open at a time.
    async fn connect(&self, dir: &Path, port: Port) -> Result<Box<dyn ByteStream>, HypervisorError>;

    /// Whether the machine's process is there. `true`, too, if that cannot be told for now.
    async fn is_running(&self, dir: &Path) -> bool;

    /// Waits until the machine's process has ended.
    async fn wait(&self, dir: &Path);

    /// Ends the machine's process at once, though another driver has started it, and waits until it is gone. Does nothing if
    /// there is none.
    async fn kill(&self, dir: &Path) -> Result<(), HypervisorError>;

    /// Every machine under `parent`, running or not known to be: directories' VM ids of processes that this driver or
    /// another one started, found without the help of any store.
    async fn find(&self, parent: &Path) -> Vec<VmId>;

    /// Bounds the machine's logs: one that has grown too large keeps its end. To be called every few seconds while the
    /// machine runs, since a guest can write without end.
    fn trim_logs(&self, dir: &Path) {
        for log in [Log::Serial, Log::Stdout, Log::Stderr] {
            match crate::log::trim(&self.log_file(dir, log)) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    tracing::warn!(%error, ?log, dir = %dir.display(), "cannot trim a log");
                }
                _ => {}
            }
        }
    }

    /// Empties what the machine's monitor can write to for the sake of its snapshots, while none is made. To be called every
    /// few seconds while the machine runs: a guest that has taken its monitor over can write there at any time.
    fn tidy(&self, _dir: &Path) {}

    /// Takes what the machine's monitor has counted since the last time; nothing from a driver whose monitor does not count.
    fn take_counts(&self, _dir: &Path) -> Counts {
        Counts::default()
    }

    /// What the monitor itself said at last: to be read once it has ended. A guest that has taken its monitor over can make
    /// this up.
    fn last_words(&self, dir: &Path) -> String {
        let said = [Log::Stdout, Log::Stderr].map(|log| crate::log::end(&self.log_file(dir, log), WORDS));
        let said = said.map(|said| String::from_utf8_lossy(&said.unwrap_or_default()).trim().to_owned());
        let words: Vec<String> = said.into_iter().filter(|words| !words.is_empty()).collect();
        if words.is_empty() { "it gave no reason".into() } else { words.join("; ") }
    }

    /// Where a machine's log is. The file may not exist, and the guest decides what is in it.
    fn log_file(&self, dir: &Path, log: Log) -> PathBuf;
}
