//! A VM's own writable disk: made once per size as a template, then cloned for every VM without copying empty space.
//!
//! The layout is what the agent expects, so that a start has nothing to write: `upper` and `work` for the overlay over the
//! image, `home` for `/workspace` (owned by uid 1000) with the places for what the agent puts there, `tmp` and `vartmp` for
//! `/tmp` and `/var/tmp`, `trees`, `trash` and `reserve` for the agent itself.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use rustix::fs::{SeekFrom, copy_file_range, ftruncate, ioctl_ficlone, seek};
use rustix::io::Errno;

use crate::ImageError;
use crate::draft::draft;
use crate::e2fsprogs;

/// Smallest disk that can be made, in bytes: below it journal and inodes leave no room worth having.
pub const MIN_BYTES: u64 = 16 << 20;

/// Largest disk that can be made, in bytes: the limit of the filesystem with 4 KiB blocks on common hosts.
pub const MAX_BYTES: u64 = 16 << 40;

/// Named one by one, because the host's defaults change with its release and a guest's kernel may be older than the
/// host. With a journal: a VM may be killed at any time and its disk must mount at the next start without a check.
const FEATURES: &str = "none,has_journal,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,\
                        huge_file,dir_nlink,extra_isize,metadata_csum,resize_inode";

/// Inode tables are not left for the guest to write later: on a sparse file they are zeros already and cost nothing,
/// while the guest's kernel would spend processor time and host disk space on them.
const MKE2FS_OPTIONS: [&str; 12] = [
    "-i",
    "8192",
    "-I",
    "256",
    "-m",
    "2",
    "-J",
    "size=4",
    "-O",
    FEATURES,
    "-E",
    "lazy_itable_init=0,lazy_journal_init=1,root_owner=0:0",
];

/// Commands for `debugfs`, which needs no privilege to give a file inside the disk to another user.
const LAYOUT: &str = "mkdir upper\nmkdir work\nmkdir trash\nmkdir trees\n\
                      mkdir home\nmkdir home/peers\nmkdir home/.rds\nsif home uid 1000\nsif home gid 1000\n\
                      mkdir tmp\nsif tmp mode 041777\nmkdir vartmp\nsif vartmp mode 041777\n";

/// Templates that are kept: of the sizes that were used last. Clients choose sizes, and each takes up to some megabytes.
const MAX_TEMPLATES: usize = 16;

/// A template that was used so recently may be about to be opened.
const IN_USE: Duration = Duration::from_secs(60);

/// Directories in `reserve`, which take inodes until a start needs them.
const RESERVE: u32 = 16;

fn layout() -> String {
    let reserve: String = (0..RESERVE).map(|number| format!("mkdir reserve/{number}\n")).collect();
    format!("{LAYOUT}mkdir reserve\n{reserve}")
}

/// Returns the template of a disk of `bytes` in `dir`, making it if it is not there.
///
/// The file is called `<bytes>.ext4` and is sparse. It appears complete or not at all; concurrent calls are safe. It is to
/// be opened at once: those that were not used for the longest time are removed when there are many.
/// `bytes` is rounded up to a multiple of 4096. Two in a hundred blocks are kept for root, so that a guest whose user
/// filled the disk still has room for the agent.
///
/// # Errors
/// [`ImageError::Invalid`] when `bytes` is outside [`MIN_BYTES`]..=[`MAX_BYTES`]; otherwise what kept the file from
/// being made.
pub fn template(dir: &Path, bytes: u64) -> Result<PathBuf, ImageError> {
    if !(MIN_BYTES..=MAX_BYTES).contains(&bytes) {
        let (min, max) = (MIN_BYTES >> 20, MAX_BYTES >> 20);
        return Err(ImageError::Invalid(format!("a disk has between {min} and {max} MiB")));
    }
    let bytes = bytes.next_multiple_of(4096);
    let path = dir.join(format!("{bytes}.ext4"));
    // Its time says when it was used last.
    if File::options().write(true).open(&path).and_then(|disk| disk.set_modified(SystemTime::now())).is_ok() {
        return Ok(path);
    }
    fs::create_dir_all(dir).map_err(ImageError::io("make", dir))?;
    let write = |error| ImageError::io("write", &path)(error);
    let disk = draft(dir).map_err(write)?;
    let script = draft(dir).map_err(write)?;
    disk.as_file().set_len(bytes).map_err(write)?;
    e2fsprogs::mke2fs(&MKE2FS_OPTIONS, None, disk.path())?;
    e2fsprogs::debugfs(&layout(), script.path(), disk.path())?;
    disk.as_file().sync_all().map_err(write)?;
    disk.persist(&path).map_err(|error| write(error.error))?;
    // One too many does no harm, and the next one that is made tries again.
    let _ = prune_templates(dir);
    Ok(path)
}

/// Removes the templates in `dir` that were not used for the longest time. A directory that does not exist has none.
///
/// # Errors
/// When the directory cannot be read or a file not be removed.
pub fn prune_templates(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut templates = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let size = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
        if size.is_some() && path.extension().is_some_and(|extension| extension == "ext4") {
            templates.push((fs::metadata(&path)?.modified()?, path));
        }
    }
    templates.sort_unstable();
    templates.reverse();
    for (used, path) in templates.into_iter().skip(MAX_TEMPLATES) {
        if used.elapsed().is_ok_and(|ago| ago > IN_USE) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

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
    // Truncated, so that nothing of what it held is left in the holes.
    let target = OpenOptions::new().write(true).truncate(true).open(to);
    let target = target.map_err(ImageError::io("write", to))?;
    fill(&source, &target, mode).map_err(ImageError::io("clone a disk into", to))
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
    use std::process::Command;

    fn allocated(path: &Path) -> u64 {
        fs::metadata(path).unwrap().blocks() * 512
    }

    fn tool(program: &str, args: &[&str], disk: &Path) -> String {
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
        let output = Command::new(program).env("PATH", path).args(args).arg(disk).output().unwrap();
        assert!(output.status.success(), "{program}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn a_template_is_a_sound_and_sparse_filesystem_with_the_agents_layout() {
        let dir = tempfile::tempdir().unwrap();
        let path = template(dir.path(), 512 << 20).unwrap();
        tool("e2fsck", &["-fn"], &path);
        assert_eq!(fs::metadata(&path).unwrap().len(), 512 << 20);
        assert!(allocated(&path) < 1 << 20, "allocated {}", allocated(&path));
        let listing = tool("debugfs", &["-R", "ls -l"], &path);
        let has = |mode: &str, owner: &str, name: &str| {
            listing.lines().any(|line| {
                let words: Vec<_> = line.split_whitespace().collect();
                words.get(1) == Some(&mode) && words.get(3) == Some(&owner) && words.last() == Some(&name)
            })
        };
        assert!(has("40755", "0", "upper") && has("40755", "0", "work"), "{listing}");
        assert!(has("40755", "1000", "home") && has("41777", "0", "tmp"), "{listing}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn every_size_between_the_limits_works() {
        let dir = tempfile::tempdir().unwrap();
        for bytes in [MIN_BYTES, MIN_BYTES + 1, 1 << 30, 1 << 40] {
            tool("dumpe2fs", &["-h"], &template(dir.path(), bytes).unwrap());
        }
        for bytes in [0, MIN_BYTES - 1, MAX_BYTES + 1] {
            assert!(matches!(template(dir.path(), bytes), Err(ImageError::Invalid(_))));
        }
    }

    #[test]
    fn concurrent_callers_get_the_same_template() {
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<_> = std::thread::scope(|scope| {
            let callers: Vec<_> = (0..8).map(|_| scope.spawn(|| template(dir.path(), 64 << 20).unwrap())).collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).collect()
        });
        assert!(paths.iter().all(|path| *path == paths[0]));
        tool("e2fsck", &["-fn"], &paths[0]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
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
    fn the_templates_that_were_used_last_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = |number: u64| dir.path().join(format!("{}.ext4", (64 + number) << 20));
        let ago = |seconds: u64| SystemTime::now() - Duration::from_secs(seconds);
        for number in 0..30 {
            File::create_new(path(number)).unwrap().set_modified(ago(10_000 - number)).unwrap();
        }
        let other = dir.path().join("other.ext4");
        fs::write(&other, "").unwrap();
        // The oldest of all is used again, and a new one is made.
        assert_eq!(template(dir.path(), 64 << 20).unwrap(), path(0));
        let made = template(dir.path(), 32 << 20).unwrap();
        let kept: Vec<u64> = (0..30).filter(|number| path(*number).exists()).collect();
        assert_eq!(kept, [vec![0], (16..30).collect()].concat());
        assert!(made.exists() && other.exists());
        // Those in use are kept however many there are.
        for number in 0..30 {
            fs::write(path(number), "").unwrap();
        }
        prune_templates(dir.path()).unwrap();
        assert!((0..30).all(|number| path(number).exists()));
        prune_templates(&dir.path().join("none")).unwrap();
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
