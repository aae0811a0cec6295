//! A VM's own writable disk: made once per size as a template, then cloned for every VM (`clone`).
//!
//! The layout is what the agent expects, so that a start has nothing to write: `upper` and `work` for the overlay over the
//! image, `home` for `/workspace` (owned by uid 1000) with the places for what the agent puts there, `tmp` and `vartmp` for
//! `/tmp` and `/var/tmp`, `trees`, `trash` and `reserve` for the agent itself.

mod clone;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

pub use clone::{CloneMode, InvalidCloneMode, clone_into, clone_sparse, fill_reserved, reserve};

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

#[cfg(test)]
mod tests {
    use super::*;
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
}
