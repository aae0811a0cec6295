//! Saving a machine and starting others from it.
//!
//! A snapshot is two files: `memory`, the guest's memory byte for byte, which a restore maps privately, and `state`, its
//! devices in Firecracker's own form with a checksum.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::api::{Api, CreateSnapshot, SnapshotType};
use super::files;
use super::jail::inside;
use crate::HypervisorError;
use crate::hypervisor::SnapshotDir;
use crate::process::Process;
use crate::sparse;

/// Bytes of device state; a machine of ours has some 30 KB.
const STATE_BYTES: u64 = 16 << 20;

/// The guest's memory.
pub(super) fn memory(snapshot: &SnapshotDir) -> PathBuf {
    snapshot.0.join("memory")
}

/// Its devices.
pub(super) fn state(snapshot: &SnapshotDir) -> PathBuf {
    snapshot.0.join("state")
}

/// Keeps a snapshot's memory as the base of the machine in `dir` that comes up from it, and gives the file to map: the same
/// one, under a name that stays when the snapshot goes.
pub(super) fn keep_base(memory: PathBuf, dir: &Path) -> io::Result<PathBuf> {
    let base = files::base(dir);
    forget_base(dir)?;
    match fs::hard_link(&memory, &base) {
        Ok(()) => Ok(base),
        Err(error) => {
            tracing::debug!(%error, dir = %dir.display(), "all of a machine's memory will be written for its snapshots");
            Ok(memory)
        }
    }
}

/// Gives the machine in `dir`, which is booted, memory of so many bytes as its base in which nothing is written.
pub(super) fn begin_empty(dir: &Path, bytes: u64) -> io::Result<()> {
    forget_base(dir)?;
    create(&files::base(dir))?.set_len(bytes)
}

/// Removes the base of the machine in `dir`; tells whether it had one.
pub(super) fn forget_base(dir: &Path) -> io::Result<bool> {
    remove(&files::base(dir))
}

/// Removes a file; tells whether it was there.
fn remove(file: &Path) -> io::Result<bool> {
    match fs::remove_file(file) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Copies the base of the machine in `dir`, if it has one. It does not change while the machine runs.
pub(super) async fn prepare(dir: &Path, to: &SnapshotDir) -> Result<(), HypervisorError> {
    let (base, memory) = (files::base(dir), memory(to));
    blocking(move || copy_base(&base, &memory)).await
}

fn copy_base(base: &Path, memory: &Path) -> io::Result<()> {
    match File::open(base) {
        Ok(base) => sparse::clone(&base, &create(memory)?),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes the memory and devices of the paused machine in `dir`, whose monitor is `process`.
pub(super) async fn save(
    api: &mut Api,
    process: &Process,
    dir: &Path,
    to: &SnapshotDir,
) -> Result<(), HypervisorError> {
    if !api.is_paused().await? {
        return Err(HypervisorError::refused("snapshot", "the machine runs"));
    }
    let own = dir.to_owned();
    let _reserved = blocking(move || reserve(&own, FlockOperation::LockExclusive)).await?;
    let (own, new_memory, copied) = (dir.to_owned(), files::new_memory(dir), memory(to));
    let mut snapshot_type = blocking(move || choose(&own, &new_memory, &copied)).await?;
    let order = |snapshot_type| CreateSnapshot {
        snapshot_type,
        snapshot_path: inside::NEW_STATE,
        mem_file_path: inside::NEW_MEMORY,
    };
    let mut made = api.create_snapshot(&order(snapshot_type)).await;
    // Then the kernel may not have told the monitor of every page.
    if snapshot_type == SnapshotType::Diff && process.is_swapped() {
        snapshot_type = SnapshotType::Full;
        let copied = memory(to);
        blocking(move || remove(&copied)).await?;
        made = api.create_snapshot(&order(snapshot_type)).await;
    }
    let (new_state, new_memory, state, memory) = (files::new_state(dir), files::new_memory(dir), state(to), memory(to));
    let own = dir.to_owned();
    blocking(move || {
        let taken = made.map_err(unmade).and_then(|()| {
            take(&new_state, &state, |length| length <= STATE_BYTES)?;
            match snapshot_type {
                // A whole number of MiB, which the snapshot's user compares with what the machine should have.
                SnapshotType::Full => take(&new_memory, &memory, |length| length > 0 && length % (1 << 20) == 0),
                SnapshotType::Diff => {
                    lay_over(&new_memory, &memory)?;
                    keep_base(memory.clone(), &own).map(drop)
                }
            }
        });
        if taken.is_err() {
            remove(&memory)?;
        }
        for written in [new_state, new_memory] {
            File::options().write(true).open(written)?.set_len(0)?;
        }
        taken
    })
    .await
}

/// Keeps [`tidy`] from the files of the machine in `dir` until it is dropped, or this process ends. What is locked is the
/// directory, which the monitor does not see.
fn reserve(dir: &Path, how: FlockOperation) -> io::Result<File> {
    let dir = File::open(dir)?;
    flock(&dir, how)?;
    Ok(dir)
}

/// Empties what the monitor of the machine in `dir` has written for a snapshot that nobody takes. While one is made, only
/// what can be no device state goes.
pub(super) fn tidy(dir: &Path) -> io::Result<()> {
    let (new_state, new_memory) = (files::new_state(dir), files::new_memory(dir));
    match reserve(dir, FlockOperation::NonBlockingLockExclusive) {
        Ok(_reserved) => cut(&new_state, 0).and(cut(&new_memory, 0)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => cut(&new_state, STATE_BYTES),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Leaves a file no more than so many bytes, on the disk as well: blocks may lie behind its end.
fn cut(file: &Path, most: u64) -> io::Result<()> {
    let file = match File::options().write(true).open(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let facts = file.metadata()?;
    if facts.len().max(facts.blocks() * 512) > most { file.set_len(most) } else { Ok(()) }
}

/// Which pages the monitor is to write to `new_memory`: those that were written since the base, of which there is a copy then,
/// or all. The machine has no base any more, since the count begins anew, whatever becomes of the snapshot.
///
/// The monitor of a machine that was booted does not count, which would keep its memory from huge pages. It takes for written
/// what mincore(2) tells of, which are all pages that are, but for those that were swapped out.
fn choose(dir: &Path, new_memory: &Path, copied: &Path) -> io::Result<SnapshotType> {
    if !copied.exists() {
        copy_base(&files::base(dir), copied)?;
    }
    if forget_base(dir)? && sparse::tells_pages(&File::options().read(true).write(true).open(new_memory)?)? {
        return Ok(SnapshotType::Diff);
    }
    remove(copied)?;
    Ok(SnapshotType::Full)
}

/// Copies the pages that a monitor has written over those of the copy of its base.
fn lay_over(written: &Path, copied: &Path) -> io::Result<()> {
    let (from, to) = (File::open(written)?, File::options().write(true).open(copied)?);
    let length = to.metadata()?.len();
    if from.metadata()?.len() != length {
        return Err(unfit());
    }
    // Nothing of a machine that was booted was written before.
    let copy = if sparse::is_hole(&to)? { sparse::copy_nonzero } else { sparse::copy_written };
    copy(&from, &to, length)?;
    seal(&to, length)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, HypervisorError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(io::Error::other).flatten();
    done.map_err(HypervisorError::io("taking the snapshot's files"))
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
    let order =
        CreateSnapshot { snapshot_type: SnapshotType::Full, snapshot_path: inside::ROOT, mem_file_path: inside::ROOT };
    match api.create_snapshot(&order).await {
        Ok(()) | Err(HypervisorError::Refused { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Copies what a monitor has written, with holes for zeros, if it has a length that `fits`. The monitor may go on writing
/// to its file and behind its end, not to the copy.
fn take(from: &Path, to: &Path, fits: impl Fn(u64) -> bool) -> io::Result<()> {
    let from = File::open(from)?;
    let length = from.metadata()?.len();
    if !fits(length) {
        return Err(unfit());
    }
    let to = create(to)?;
    to.set_len(length)?;
    sparse::copy_nonzero(&from, &to, length)?;
    seal(&to, length)
}

/// Makes a file of a snapshot, which nobody else may touch yet.
fn create(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

/// A file of a snapshot has its length and does not change any more. Monitors that start from it run as other users, and all may
/// read it.
fn seal(file: &File, length: u64) -> io::Result<()> {
    if file.metadata()?.len() != length {
        return Err(unfit());
    }
    file.set_permissions(Permissions::from_mode(0o444))
}

fn unfit() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "the monitor did not write what it should")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    #[test]
    fn a_full_disk_is_known_from_what_the_monitor_says() {
        let refused = |message: &str| unmade(HypervisorError::refused("PUT /snapshot/create", message)).kind();
        let said = "Create snapshot error: Cannot serialize the microVM state: IO Error: No space left on device (os error 28)";
        assert_eq!(refused(said), ErrorKind::StorageFull);
        assert_eq!(refused("Create snapshot error"), ErrorKind::Other);
    }

    #[test]
    fn only_what_changed_is_written_while_the_rest_is_known() {
        let (dir, snapshots) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (dir, new_memory) = (dir.path(), files::new_memory(dir.path()));
        let [seed, first, second] = ["seed", "first", "second"].map(|name| snapshots.path().join(name));
        let page = rustix::param::page_size();
        let content = |bytes: [u8; 3]| bytes.map(|byte| vec![byte; page]).concat();
        fs::write(&seed, content(*b"abc")).unwrap();
        fs::write(&new_memory, "").unwrap();
        assert_eq!(keep_base(seed.clone(), dir).unwrap(), files::base(dir));
        fs::remove_file(&seed).unwrap();

        assert_eq!(choose(dir, &new_memory, &first).unwrap(), SnapshotType::Diff);
        let written = File::options().write(true).open(&new_memory).unwrap();
        assert!(lay_over(&new_memory, &first).is_err(), "it is too short");
        written.set_len(3 * page as u64).unwrap();
        written.write_all_at(&vec![0; page], page as u64).unwrap();
        lay_over(&new_memory, &first).unwrap();
        assert_eq!(fs::metadata(&first).unwrap().mode() & 0o777, 0o444);
        assert_eq!(fs::read(&first).unwrap(), content(*b"a\0c"));

        assert_eq!(choose(dir, &new_memory, &second).unwrap(), SnapshotType::Full, "since when was it counted?");
        assert!(!second.exists());
        keep_base(first, dir).unwrap();
        copy_base(&files::base(dir), &second).unwrap();
        assert_eq!(choose(dir, &new_memory, &second).unwrap(), SnapshotType::Diff);
        assert_eq!(fs::read(&second).unwrap(), content(*b"a\0c"));
        assert!(!forget_base(dir).unwrap());
    }

    #[test]
    fn what_nobody_takes_is_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let files = [files::new_state(dir), files::new_memory(dir)];
        let lengths = || files.each_ref().map(|file| fs::metadata(file).unwrap().len());
        tidy(dir).unwrap();
        for file in &files {
            File::create(file).unwrap().set_len(STATE_BYTES + 1).unwrap();
        }
        let reserved = reserve(dir, FlockOperation::LockExclusive).unwrap();
        tidy(dir).unwrap();
        assert_eq!(lengths(), [STATE_BYTES, STATE_BYTES + 1]);
        drop(reserved);
        tidy(dir).unwrap();
        assert_eq!(lengths(), [0, 0]);
        tidy(&dir.join("gone")).unwrap();
    }

    #[test]
    fn what_is_taken_is_a_copy_of_the_right_length_with_holes_for_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let mut content = vec![0; (4 << 20) + 1];
        content[2 << 20] = 1;
        content[4 << 20] = 2;
        fs::write(&from, &content).unwrap();
        assert!(take(&from, &to, |length| length <= 4 << 20).is_err());
        assert!(!to.exists());
        take(&from, &to, |length| length == (4 << 20) + 1).unwrap();
        assert_eq!(fs::read(&to).unwrap(), content);
        let facts = fs::metadata(&to).unwrap();
        assert!(facts.blocks() * 512 < 1 << 20);
        assert_eq!(facts.mode() & 0o777, 0o444);
    }
}
