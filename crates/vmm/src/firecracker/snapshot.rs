//! Saving a machine and starting others from it.
//!
//! A snapshot is two files: `memory`, the guest's memory byte for byte, which a restore maps privately, and `state`, its
//! devices in Firecracker's own form with a checksum.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::api::{Api, CreateSnapshot};
use super::files;
use super::jail::inside;
use crate::HypervisorError;
use crate::hypervisor::SnapshotDir;

/// Bytes of device state; a machine of ours has some 30 KB.
const STATE_BYTES: u64 = 16 << 20;

/// Bytes that are looked at together for zeros.
const PIECE: usize = 64 * 1024;

/// The guest's memory.
pub(super) fn memory(snapshot: &SnapshotDir) -> PathBuf {
    snapshot.0.join("memory")
}

/// Its devices.
pub(super) fn state(snapshot: &SnapshotDir) -> PathBuf {
    snapshot.0.join("state")
}

/// Writes the memory and devices of the paused machine in `dir`.
pub(super) async fn save(api: &mut Api, dir: &Path, to: &SnapshotDir) -> Result<(), HypervisorError> {
    if !api.is_paused().await? {
        return Err(HypervisorError::Refused { command: "snapshot".into(), message: "the machine runs".into() });
    }
    let order =
        CreateSnapshot { snapshot_type: "Full", snapshot_path: inside::NEW_STATE, mem_file_path: inside::NEW_MEMORY };
    let made = api.create_snapshot(&order).await;
    let pairs = [(files::new_state(dir), state(to)), (files::new_memory(dir), memory(to))];
    let taken = tokio::task::spawn_blocking(move || {
        let [(new_state, state), (new_memory, memory)] = pairs;
        let taken = made.map_err(unmade).and_then(|()| {
            take(&new_state, &state, |length| length <= STATE_BYTES)?;
            // A whole number of MiB, which the snapshot's user compares with what the machine should have.
            take(&new_memory, &memory, |length| length > 0 && length % (1 << 20) == 0)
        });
        for written in [new_state, new_memory] {
            File::options().write(true).open(written)?.set_len(0)?;
        }
        taken
    });
    let taken = taken.await.map_err(io::Error::other).flatten();
    taken.map_err(|source| HypervisorError::Io { what: "taking the snapshot's files".into(), source })
}

/// Why a monitor made no snapshot. That there was no room, it can only tell in words.
fn unmade(error: HypervisorError) -> io::Error {
    let no_room = io::Error::from(Errno::NOSPC).to_string();
    match &error {
        HypervisorError::Refused { message, .. } if message.contains(&no_room) => {
            io::Error::new(ErrorKind::StorageFull, error)
        }
        _ => io::Error::other(error),
    }
}

/// Has the guest of a paused machine told that its streams are gone, which it learns when it goes on.
///
/// Firecracker 1.16.0 and 1.16.1 pass nothing more from the host to a guest that goes on until it has heard of that, though
/// nobody has told it (mended by Firecracker's pull request 6100). Only a snapshot tells a guest, and does so before it
/// writes anything: this one cannot be written, since its file is a directory.
pub(super) async fn have_streams_dropped(api: &mut Api) -> Result<(), HypervisorError> {
    let order = CreateSnapshot { snapshot_type: "Full", snapshot_path: inside::ROOT, mem_file_path: inside::ROOT };
    match api.create_snapshot(&order).await {
        Ok(()) | Err(HypervisorError::Refused { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Copies what a monitor has written, with holes for zeros, if it has a length that `fits`. The monitor may go on writing
/// to its file, not to the copy. Monitors that start from the copy run as other users, and all may read it.
fn take(from: &Path, to: &Path, fits: impl Fn(u64) -> bool) -> io::Result<()> {
    let from = File::open(from)?;
    let length = from.metadata()?.len();
    if !fits(length) {
        return Err(io::Error::new(ErrorKind::InvalidData, "the monitor did not write what it should"));
    }
    let to = File::options().write(true).create_new(true).mode(0o444).open(to)?;
    to.set_len(length)?;
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    while at < length {
        let most = usize::try_from(length - at).unwrap_or(PIECE).min(PIECE);
        let piece = buffer.get_mut(..most).unwrap_or_default();
        from.read_exact_at(piece, at)?;
        if piece.iter().any(|byte| *byte != 0) {
            to.write_all_at(piece, at)?;
        }
        at += most as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn a_full_disk_is_known_from_what_the_monitor_says() {
        let refused = |message: &str| {
            unmade(HypervisorError::Refused { command: "PUT /snapshot/create".into(), message: message.into() }).kind()
        };
        let said = "Create snapshot error: Cannot serialize the microVM state: IO Error: No space left on device (os error 28)";
        assert_eq!(refused(said), ErrorKind::StorageFull);
        assert_eq!(refused("Create snapshot error"), ErrorKind::Other);
    }

    #[test]
    fn what_is_taken_is_a_copy_of_the_right_length_with_holes_for_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let mut content = vec![0; (4 << 20) + 1];
        content[2 << 20] = 1;
        content[4 << 20] = 2;
        std::fs::write(&from, &content).unwrap();
        assert!(take(&from, &to, |length| length <= 4 << 20).is_err());
        assert!(!to.exists());
        take(&from, &to, |length| length == (4 << 20) + 1).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), content);
        let facts = std::fs::metadata(&to).unwrap();
        assert!(facts.blocks() * 512 < 1 << 20);
        assert_eq!(facts.mode() & 0o777, 0o444);
    }
}
