//! Saving a machine and starting others from it.
//!
//! A snapshot is two files: `memory`, the guest's memory byte for byte, and `state`, a digest and its devices. A restore
//! maps memory instead of reading it. State goes through descriptors that the manager copies from and to, and the manager
//! decides how large a snapshot gets.
//!
//! A migration would have memory in its stream, but for memory that is shared, which that of a restored machine is not.
//! So device state comes from `xen-save-devices-state`, which leaves out all memory, leaves the machine as it is, and has
//! nothing to do with Xen but its name. What it writes lacks the section that begins a migration; it is put in here, and
//! a restore is an ordinary incoming migration. The firmware, which is memory too, is not restored: a guest of ours does
//! not use it after it has started, and a machine that is reset ends.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::memory::GuestMemory;
use super::qmp::Qmp;
use super::stalled::is_stalled;
use crate::HypervisorError;
use crate::hypervisor::SnapshotDir;
use crate::process::Process;

/// Bytes of device state; a machine of ours has some 30 KB.
const STATE_BYTES: u64 = 16 * 1024 * 1024;

/// Time for device state to go in or out; it takes 10 ms.
const STATE_LIMIT: Duration = Duration::from_secs(30);

/// Pause between two looks at a migration.
const POLL: Duration = Duration::from_millis(2);

/// Type of the section that names the machine, and the machine's name: `QEMU_VM_CONFIGURATION` of QEMU's migration.
const CONFIGURATION: u8 = 0x07;
const MACHINE: &[u8] = b"microvm";

/// Name of a descriptor in QEMU.
const NAME: &str = "state";

/// The guest's memory.
pub(super) fn memory(snapshot: &SnapshotDir) -> PathBuf {
    snapshot.0.join("memory")
}

fn state(snapshot: &SnapshotDir) -> PathBuf {
    snapshot.0.join("state")
}

/// Writes what a machine started from, while it runs.
pub(super) async fn prepare(process: &Process, to: &SnapshotDir) -> Result<(), HypervisorError> {
    let (saved_memory, path) = (GuestMemory::of(process.pid()), memory(to));
    blocking(move || saved_memory?.copy_base(&File::create_new(path)?)).await
}

async fn blocking(copy: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<(), HypervisorError> {
    let copied = tokio::task::spawn_blocking(copy).await;
    copied.map_err(io::Error::other).flatten().map_err(HypervisorError::io("copying the guest's memory"))
}

/// Writes a paused machine's memory and devices.
pub(super) async fn save(dir: &Path, process: &Process, to: &SnapshotDir) -> Result<(), HypervisorError> {
    // Not kept open meanwhile: others would have to wait for as long as it takes to copy the memory.
    let status = Qmp::open(dir).await?.execute("query-status", Value::Null).await?;
    if status["running"] != false {
        return Err(HypervisorError::refused("snapshot", "the machine runs"));
    }
    // It was not paused, and may go on at any time.
    if is_stalled(&status) {
        return Err(HypervisorError::io("the machine's last write")(io::ErrorKind::StorageFull.into()));
    }
    if !memory(to).exists() {
        prepare(process, to).await?;
    }
    let (saved_memory, path) = (GuestMemory::of(process.pid()), memory(to));
    blocking(move || saved_memory?.copy_own(&File::options().write(true).open(path)?)).await?;

    let data = devices(&mut Qmp::open(dir).await?).await?;
    let stream = migration(&data).ok_or_else(|| HypervisorError::io("device state")(io::Error::other("it is none")))?;
    tokio::fs::write(state(to), sealed(&stream)).await.map_err(HypervisorError::io("writing device state"))
}

/// What `xen-save-devices-state` writes.
async fn devices(qmp: &mut Qmp) -> Result<Vec<u8>, HypervisorError> {
    let failed = |source| HypervisorError::io("a file for device state")(source);
    let file = File::from(memfd_create("rds-state", MemfdFlags::CLOEXEC).map_err(|error| failed(error.into()))?);
    // It takes a descriptor that can be written alone, of something that can be cut to length.
    let writable = File::options().write(true).open(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(failed)?;
    let set = qmp.execute_with("add-fd", Value::Null, writable.as_fd()).await?["fdset-id"].clone();
    // Without `live`, the machine's disks stay its own.
    let arguments = json!({"filename": format!("/dev/fdset/{set}"), "live": false});
    qmp.execute("xen-save-devices-state", arguments).await?;
    qmp.execute("remove-fd", json!({"fdset-id": set})).await?;
    let length = file.metadata().map_err(failed)?.len();
    if length > STATE_BYTES {
        return Err(HypervisorError::io("device state")(io::Error::other("it is too large")));
    }
    let mut data = vec![0; usize::try_from(length).unwrap_or_default()];
    file.read_exact_at(&mut data, 0).map_err(failed)?;
    Ok(data)
}

/// Device state as an incoming migration has it: magic and version, then the machine's name in a section of its own.
fn migration(devices: &[u8]) -> Option<Vec<u8>> {
    let (head, sections) = devices.split_at_checked(8)?;
    let length = u32::try_from(MACHINE.len()).ok()?.to_be_bytes();
    let well = head == b"QEVM\0\0\0\x03";
    well.then(|| [head, &[CONFIGURATION], &length, MACHINE, sections].concat())
}

/// Gives a machine that waits for it a snapshot's devices, and lets it run.
///
/// The disk may have another size than the snapshot's: the guest is told the one it really has.
pub(super) async fn load(dir: &Path, from: &SnapshotDir, disk_bytes: u64) -> Result<(), HypervisorError> {
    let sealed = tokio::fs::read(state(from)).await;
    let sealed = sealed.map_err(HypervisorError::io("reading device state"))?;
    let data =
        unsealed(&sealed).ok_or_else(|| HypervisorError::io("device state")(io::Error::other("it is damaged")))?;
    let mut qmp = Qmp::open(dir).await?;
    let (mut ours, theirs) = pair()?;
    qmp.give(NAME, theirs.as_fd()).await?;
    drop(theirs);
    qmp.execute("migrate-incoming", json!({"uri": format!("fd:{NAME}")})).await?;
    let write = timeout(STATE_LIMIT, tokio::io::AsyncWriteExt::write_all(&mut ours, data)).await;
    write
        .map_err(|_| HypervisorError::Timeout("loading device state"))?
        .map_err(HypervisorError::io("device state"))?;
    drop(ours);
    migrated(&mut qmp).await?;
    resize_disk(&mut qmp, disk_bytes).await?;
    qmp.execute("cont", Value::Null).await.map(drop)
}

/// Gives the disk's file this size and tells the guest.
pub(super) async fn resize_disk(qmp: &mut Qmp, bytes: u64) -> Result<(), HypervisorError> {
    qmp.execute("block_resize", json!({"node-name": "disk", "size": bytes})).await.map(drop)
}

/// The content of the state file: half of a device's state can crash the monitor in ways that are hard to tell.
fn sealed(data: &[u8]) -> Vec<u8> {
    [Sha256::digest(data).as_slice(), data].concat()
}

/// The device state in a state file that is as it was written.
fn unsealed(file: &[u8]) -> Option<&[u8]> {
    let (digest, data) = file.split_first_chunk::<32>()?;
    (Sha256::digest(data).as_slice() == digest).then_some(data)
}

/// Waits until device state is through.
async fn migrated(qmp: &mut Qmp) -> Result<(), HypervisorError> {
    let wait = async {
        loop {
            let migration = qmp.execute("query-migrate", Value::Null).await?;
            match migration["status"].as_str() {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => {
                    let words = migration["error-desc"].as_str().unwrap_or("no reason given");
                    return Err(HypervisorError::refused("migrate", words));
                }
                _ => sleep(POLL).await,
            }
        }
    };
    timeout(STATE_LIMIT, wait).await.map_err(|_| HypervisorError::Timeout("device state"))?
}

/// A connected pair of sockets: ours for asynchronous use, the other to be given away.
fn pair() -> Result<(UnixStream, OwnedFd), HypervisorError> {
    let make = || {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((UnixStream::from_std(ours)?, OwnedFd::from(theirs)))
    };
    make().map_err(HypervisorError::io("a socket for device state"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_named_before_its_devices() {
        let stream = migration(b"QEVM\0\0\0\x03\x04rest").unwrap();
        assert_eq!(stream, b"QEVM\0\0\0\x03\x07\0\0\0\x07microvm\x04rest");
        assert_eq!(migration(b"QEVM\0\0\0\x02\x04rest"), None);
        assert_eq!(migration(b"QEVM"), None);
    }

    #[test]
    fn damaged_state_is_known() {
        let mut file = sealed(b"devices");
        assert_eq!(unsealed(&file), Some(b"devices".as_slice()));
        assert_eq!(unsealed(&file[..file.len() - 1]), None);
        file[33] ^= 1;
        assert_eq!(unsealed(&file), None);
        assert_eq!(unsealed(b"short"), None);
    }
}
