//! Saving a machine and starting others from it.
//!
//! A snapshot is two files: `memory`, the guest's memory byte for byte, which a restore maps privately, and `state`, its
//! devices in Firecracker's own form with a checksum.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

use super::api::{Api, CreateSnapshot};
use super::jail::{Jail, inside};
use crate::HypervisorError;
use crate::hypervisor::SnapshotDir;

/// Bytes of device state; a machine of ours has some 30 KB.
const STATE_BYTES: u64 = 16 << 20;

/// Bytes that are looked at together when holes are made.
const PIECE: usize = 64 * 1024;

/// The guest's memory.
pub(super) fn memory(snapshot: &SnapshotDir) -> PathBuf {
    snapshot.0.join("memory")
}

/// Its devices.
pub(super) fn state(snapshot: &SnapshotDir) -> PathBuf {
    snapshot.0.join("state")
}

/// Writes a paused machine's memory and devices.
pub(super) async fn save(api: &mut Api, jail: &Jail, to: &SnapshotDir) -> Result<(), HypervisorError> {
    if !api.is_paused().await? {
        return Err(HypervisorError::Refused { command: "snapshot".into(), message: "the machine runs".into() });
    }
    let order =
        CreateSnapshot { snapshot_type: "Full", snapshot_path: inside::NEW_STATE, mem_file_path: inside::NEW_MEMORY };
    api.create_snapshot(&order).await?;
    let (jail, memory, state) = (jail.clone(), memory(to), state(to));
    let taken = tokio::task::spawn_blocking(move || {
        jail.take_out(inside::NEW_STATE, &state, |length| length <= STATE_BYTES)?;
        // A whole number of MiB, which the snapshot's user compares with what the machine should have.
        jail.take_out(inside::NEW_MEMORY, &memory, |length| length > 0 && length % (1 << 20) == 0)?;
        dig_holes(&memory)
    });
    let taken = taken.await.map_err(io::Error::other).flatten();
    taken.map_err(|source| HypervisorError::Io { what: "taking the snapshot's files".into(), source })
}

/// Gives the disk back what a file holds of zeros.
fn dig_holes(path: &Path) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    while at < length {
        let count = file.read_at(&mut buffer, at)?;
        if count == 0 {
            break;
        }
        let piece = buffer.get(..count).unwrap_or_default();
        if piece.iter().all(|byte| *byte == 0) {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match fallocate(&file, flags, at, count as u64) {
                // A filesystem without holes keeps the zeros.
                Err(rustix::io::Errno::OPNOTSUPP) => return Ok(()),
                other => other?,
            }
        }
        at += count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn zeros_become_holes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut content = vec![0; 4 << 20];
        content[2 << 20] = 1;
        std::fs::write(file.path(), &content).unwrap();
        dig_holes(file.path()).unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), content);
        assert!(std::fs::metadata(file.path()).unwrap().blocks() * 512 < 1 << 20);
    }
}
