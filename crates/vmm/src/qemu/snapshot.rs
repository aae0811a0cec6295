//! Saving a machine and starting others from it.
//!
//! A snapshot is two files: `memory`, the guest's memory byte for byte, and `state`, a digest and its devices. Memory stays out of the
//! device state (`x-ignore-shared`), so a restore maps it instead of reading it. State goes through a socket that the
//! manager copies from and to: every version of QEMU takes one, and the manager decides how large a snapshot gets.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::launch::io_error;
use super::process::Process;
use super::qmp::Qmp;
use crate::HypervisorError;
use crate::hypervisor::SnapshotDir;

/// Bytes of device state; a machine of ours has some 60 KB. Memory that is not in a file of its own (of a machine that
/// was restored itself) would be in it too, and is refused by this.
const STATE_BYTES: u64 = 16 * 1024 * 1024;

/// Time for device state to go in or out; it takes 10 ms.
const STATE_LIMIT: Duration = Duration::from_secs(30);

/// Pause between two looks at a migration.
const POLL: Duration = Duration::from_millis(2);

/// Name of a descriptor in QEMU.
const NAME: &str = "state";

/// The guest's memory.
pub(super) fn memory(snapshot: &SnapshotDir) -> PathBuf {
    snapshot.0.join("memory")
}

fn state(snapshot: &SnapshotDir) -> PathBuf {
    snapshot.0.join("state")
}

/// Writes a paused machine's memory and devices.
pub(super) async fn save(dir: &Path, process: &Process, to: &SnapshotDir) -> Result<(), HypervisorError> {
    let mut qmp = Qmp::open(dir).await?;
    let status = qmp.execute("query-status", Value::Null).await?;
    if status["running"] != false {
        return Err(HypervisorError::Refused { command: "snapshot".into(), message: "the machine runs".into() });
    }
    let saved_memory = process.memory().map_err(|source| io_error("the guest's memory", source))?;
    let path = memory(to);
    let copied = tokio::task::spawn_blocking(move || copy_sparse(&saved_memory, &File::create_new(path)?));
    copied
        .await
        .map_err(io::Error::other)
        .flatten()
        .map_err(|source| io_error("copying the guest's memory", source))?;

    ignore_shared(&mut qmp).await?;
    let (ours, theirs) = pair()?;
    qmp.give(NAME, theirs.as_fd()).await?;
    drop(theirs);
    qmp.execute("migrate", json!({"uri": format!("fd:{NAME}")})).await?;
    let mut data = Vec::new();
    let read = timeout(STATE_LIMIT, ours.take(STATE_BYTES + 1).read_to_end(&mut data)).await;
    read.map_err(|_| HypervisorError::Timeout("saving device state"))?.map_err(|e| io_error("device state", e))?;
    if data.len() as u64 > STATE_BYTES {
        return Err(io_error("device state", io::Error::other("it is too large")));
    }
    migrated(&mut qmp).await?;
    tokio::fs::write(state(to), sealed(&data)).await.map_err(|source| io_error("writing device state", source))
}

/// Gives a machine that waits for it a snapshot's devices, and lets it run.
///
/// The disk may have another size than the snapshot's: the guest is told the one it really has.
pub(super) async fn load(dir: &Path, from: &SnapshotDir, disk_bytes: u64) -> Result<(), HypervisorError> {
    let sealed = tokio::fs::read(state(from)).await;
    let sealed = sealed.map_err(|source| io_error("reading device state", source))?;
    let data = unsealed(&sealed).ok_or_else(|| io_error("device state", io::Error::other("it is damaged")))?;
    let mut qmp = Qmp::open(dir).await?;
    ignore_shared(&mut qmp).await?;
    let (mut ours, theirs) = pair()?;
    qmp.give(NAME, theirs.as_fd()).await?;
    drop(theirs);
    qmp.execute("migrate-incoming", json!({"uri": format!("fd:{NAME}")})).await?;
    let write = timeout(STATE_LIMIT, tokio::io::AsyncWriteExt::write_all(&mut ours, data)).await;
    write.map_err(|_| HypervisorError::Timeout("loading device state"))?.map_err(|e| io_error("device state", e))?;
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

async fn ignore_shared(qmp: &mut Qmp) -> Result<(), HypervisorError> {
    let capability = json!({"capabilities": [{"capability": "x-ignore-shared", "state": true}]});
    qmp.execute("migrate-set-capabilities", capability).await.map(drop)
}

/// Waits until device state is through.
async fn migrated(qmp: &mut Qmp) -> Result<(), HypervisorError> {
    let wait = async {
        loop {
            let migration = qmp.execute("query-migrate", Value::Null).await?;
            match migration["status"].as_str() {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => {
                    let message = migration["error-desc"].as_str().unwrap_or("no reason given").to_owned();
                    return Err(HypervisorError::Refused { command: "migrate".into(), message });
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
    make().map_err(|source| io_error("a socket for device state", source))
}

/// Copies what is written of a sparse file; the rest stays a hole.
pub(super) fn copy_sparse(from: &File, to: &File) -> io::Result<()> {
    use rustix::fs::{SeekFrom, seek};
    use rustix::io::Errno;
    use std::os::unix::fs::FileExt;

    let length = from.metadata()?.len();
    to.set_len(length)?;
    let mut buffer = vec![0; 1024 * 1024];
    let mut end = 0;
    loop {
        let start = match seek(from, SeekFrom::Data(end)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        end = seek(from, SeekFrom::Hole(start))?;
        let mut at = start;
        while at < end {
            let room = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            let piece = &mut buffer[..room];
            from.read_exact_at(piece, at)?;
            to.write_all_at(piece, at)?;
            at += room as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn damaged_state_is_known() {
        let mut file = sealed(b"devices");
        assert_eq!(unsealed(&file), Some(b"devices".as_slice()));
        assert_eq!(unsealed(&file[..file.len() - 1]), None);
        file[33] ^= 1;
        assert_eq!(unsealed(&file), None);
        assert_eq!(unsealed(b"short"), None);
    }

    #[test]
    fn holes_stay_holes() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        from.set_len(64 << 20).unwrap();
        from.write_all_at(b"abc", 32 << 20).unwrap();
        copy_sparse(&from, &to).unwrap();
        let mut there = [0; 3];
        to.read_exact_at(&mut there, 32 << 20).unwrap();
        assert_eq!(&there, b"abc");
        let facts = to.metadata().unwrap();
        assert_eq!(facts.len(), 64 << 20);
        assert!(facts.blocks() * 512 < 1 << 20, "{} blocks", facts.blocks());
    }
}
