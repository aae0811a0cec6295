//! Copies of disks, without their empty space and where the filesystem can with shared blocks.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::str::FromStr;

use rustix::fs::{SeekFrom, copy_file_range, ftruncate, ioctl_ficlone, seek};
use rustix::io::Errno;

use crate::ImageError;

/// How a disk is cloned (`ROOTFS_CLONE_MODE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CloneMode {
    /// Share blocks where the filesystem can, copy where it cannot.
    #[default]
    Auto,
    /// Share blocks (btrfs, XFS, bcachefs …), or fail.
    Reflink,
    /// Copy, without empty space.
    Copy,
}

/// Text that is no clone mode.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("must be auto, reflink or copy")]
pub struct InvalidCloneMode;

impl FromStr for CloneMode {
    type Err = InvalidCloneMode;

    fn from_str(text: &str) -> Result<Self, InvalidCloneMode> {
        match text {
            "auto" => Ok(Self::Auto),
            "reflink" => Ok(Self::Reflink),
            "copy" => Ok(Self::Copy),
            _ => Err(InvalidCloneMode),
        }
    }
}

/// Clones a disk to a new file that only its owner may read. Empty space stays empty. Returns the bytes the clone holds.
///
/// `to` must not exist. The disk must not be written meanwhile. The clone is not synced to storage.
///
/// # Errors
/// When a file cannot be read or written, or [`CloneMode::Reflink`] is asked of a filesystem that cannot; then nothing
/// is left at `to`.
pub fn clone_sparse(from: &Path, to: &Path, mode: CloneMode) -> Result<u64, ImageError> {
    let source = File::open(from).map_err(ImageError::io("read", from))?;
    let target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    let target = target.map_err(ImageError::io("make", to))?;
    fill(&source, &target, mode).map_err(|error| {
        // The error that matters is the first one.
        let _ = fs::remove_file(to);
        ImageError::io("clone a disk to", to)(error)
    })
}

/// Makes a file of `bytes` that holds nothing and that only its owner may read, for a disk whose content comes later.
///
/// # Errors
/// When the file is there, or cannot be made; then nothing is left at `to`.
pub fn reserve(to: &Path, bytes: u64) -> Result<(), ImageError> {
    let target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    let target = target.map_err(ImageError::io("make", to))?;
    target.set_len(bytes).map_err(|error| {
        let _ = fs::remove_file(to);
        ImageError::io("make", to)(error)
    })
}

/// Gives a file that [`reserve`] made the content of a disk that is not larger. Whoever has it open sees it come.
///
/// The disk must not be written meanwhile. The content is not synced to storage.
///
/// # Errors
/// When a file cannot be read or written, or [`CloneMode::Reflink`] is asked of a filesystem that cannot.
pub fn fill_reserved(from: &Path, to: &Path, mode: CloneMode) -> Result<(), ImageError> {
    let source = File::open(from).map_err(ImageError::io("read", from))?;
    let target = OpenOptions::new().write(true).open(to).map_err(ImageError::io("write", to))?;
    fill(&source, &target, mode).map(drop).map_err(ImageError::io("clone a disk to", to))
}

/// Gives a file the content of a disk; it stays the same file for whoever has it open. Empty space stays empty. Returns
/// the bytes that it holds then.
///
/// The disk must not be written meanwhile, and the file not be read. The content is not synced to storage.
///
/// # Errors
/// When a file cannot be read or written, or [`CloneMode::Reflink`] is asked of a filesystem that cannot; the file's
/// content is undefined then.
pub fn clone_into(from: &Path, to: &Path, mode: CloneMode) -> Result<u64, ImageError> {
    let source = File::open(from).map_err(ImageError::io("read", from))?;
    let target = OpenOptions::new().write(true).open(to).map_err(ImageError::io("write", to))?;
    // Nothing of what it held may be left in the holes.
    empty(&target).map_err(ImageError::io("write", to))?;
    fill(&source, &target, mode).map_err(ImageError::io("clone a disk into", to))
}

/// Frees what a file holds, but for a byte, which is zero.
///
/// What is written to a file that was cut to nothing ext4 takes for a replacement, and begins to write it to the storage when
/// the file is closed (`auto_da_alloc`, ext4(5)): a copy that nobody keeps would be written, and whoever syncs another file
/// waits.
fn empty(file: &File) -> io::Result<()> {
    file.set_len(1)?;
    file.write_all_at(&[0], 0)
}

fn fill(source: &File, target: &File, mode: CloneMode) -> io::Result<u64> {
    let size = source.metadata()?.len();
    if mode != CloneMode::Copy {
        match ioctl_ficlone(target, source) {
            Ok(()) => return Ok(size),
            Err(error) if mode == CloneMode::Reflink => return Err(error.into()),
            Err(_) => {}
        }
    }
    if target.metadata()?.len() < size {
        ftruncate(target, size)?;
    }
    let mut position = 0;
    while let Some((start, end)) = next_data(source, position)? {
        copy_extent(source, target, start, end)?;
        position = end;
    }
    Ok(size)
}

/// The next stretch of the file, at or after `position`, that is not a hole.
fn next_data(file: &File, position: u64) -> io::Result<Option<(u64, u64)>> {
    match seek(file, SeekFrom::Data(position)) {
        Ok(start) => Ok(Some((start, seek(file, SeekFrom::Hole(start))?))),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Lets the kernel copy where it can, which may share blocks or stay in the storage.
fn copy_extent(source: &File, target: &File, start: u64, end: u64) -> io::Result<()> {
    let (mut read, mut written) = (start, start);
    while read < end {
        let rest = usize::try_from(end - read).unwrap_or(usize::MAX);
        match copy_file_range(source, Some(&mut read), target, Some(&mut written), rest) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            // Two filesystems, or one that cannot.
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                return copy_bytes(source, target, read, end);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_bytes(source: &File, target: &File, mut position: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    while position < end {
        let rest = usize::try_from(end - position).map_or(buffer.len(), |rest| rest.min(buffer.len()));
        let chunk = &mut buffer[..rest];
        source.read_exact_at(chunk, position)?;
        target.write_all_at(chunk, position)?;
        position += chunk.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::MetadataExt;

    fn allocated(path: &Path) -> u64 {
        fs::metadata(path).unwrap().blocks() * 512
    }

    #[test]
    fn another_content_leaves_nothing_of_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        File::create(&from).unwrap().set_len(8 << 20).unwrap();
        OpenOptions::new().write(true).open(&from).unwrap().write_all_at(b"new", 4 << 20).unwrap();
        fs::write(&to, vec![b'o'; 16 << 20]).unwrap();
        let opened = File::open(&to).unwrap();
        for mode in [CloneMode::Auto, CloneMode::Copy] {
            assert_eq!(clone_into(&from, &to, mode).unwrap(), 8 << 20);
            assert_eq!(fs::read(&from).unwrap(), fs::read(&to).unwrap());
        }
        let mut seen = [0; 3];
        opened.read_exact_at(&mut seen, 4 << 20).unwrap();
        assert_eq!(&seen, b"new");
        assert!(allocated(&to) < 1 << 20);
        assert!(clone_into(&from, &dir.path().join("none"), CloneMode::Auto).is_err());
    }

    #[test]
    fn what_is_reserved_keeps_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&from, "new").unwrap();
        reserve(&to, 1 << 20).unwrap();
        assert!(reserve(&to, 1).is_err());
        for mode in [CloneMode::Auto, CloneMode::Copy] {
            fill_reserved(&from, &to, mode).unwrap();
            let content = fs::read(&to).unwrap();
            assert_eq!((content.len(), &content[..4]), (1 << 20, b"new\0".as_slice()));
        }
        assert!(fill_reserved(&from, &dir.path().join("none"), CloneMode::Auto).is_err());
    }

    #[test]
    fn a_clone_never_replaces_a_file_and_a_failed_one_leaves_none() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&from, "new").unwrap();
        fs::write(&to, "old").unwrap();
        assert!(clone_sparse(&from, &to, CloneMode::Auto).is_err());
        assert_eq!(fs::read(&to).unwrap(), b"old");
        let other = dir.path().join("other");
        if clone_sparse(&from, &other, CloneMode::Reflink).is_err() {
            assert!(!other.exists());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_clone_reads_the_same_and_is_as_sparse(
            size in 0u64..4 << 20,
            writes in prop::collection::vec((0u64..4 << 20, 1usize..20_000), 0..6),
            kernel in any::<bool>(),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let (from, to) = (dir.path().join("from"), dir.path().join("to"));
            let file = File::create_new(&from).unwrap();
            file.set_len(size).unwrap();
            for (position, length) in writes {
                file.write_all_at(&vec![7; length], position).unwrap();
            }
            let size = file.metadata().unwrap().len();
            if kernel {
                prop_assert_eq!(clone_sparse(&from, &to, CloneMode::Copy).unwrap(), size);
                prop_assert!(allocated(&to) <= allocated(&from));
            } else {
                copy_bytes(&File::open(&from).unwrap(), &File::create_new(&to).unwrap(), 0, size).unwrap();
            }
            prop_assert!(fs::read(&from).unwrap() == fs::read(&to).unwrap());
        }
    }
}
