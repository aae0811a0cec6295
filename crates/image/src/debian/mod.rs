//! Builds a guest image from the distribution's packages: Debian stable with git, Node.js and Deno.
//!
//! The image is a directory with four files: `kernel` (ELF), `rootfs` (read-only ext4), `modules` (cpio archive that
//! goes into the initramfs) and `image.json` (what is in it). It is made in a directory beside the output and renamed
//! when it is complete, so an output that exists is whole, however a build ended.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::ImageError;
use crate::progress::{Progress, step};

mod bootstrap;
mod bzimage;
mod compression;
mod filesystem;
mod kernel;
mod manifest;
mod modules;
mod runtimes;
mod tree;

pub use manifest::{FileDigest, Manifest};

/// An image that was built.
#[derive(Debug)]
pub struct BuiltImage {
    /// The directory that holds its files.
    pub dir: PathBuf,
    /// What is in it; the content of `image.json`.
    pub manifest: Manifest,
}

impl BuiltImage {
    /// The kernel, an ELF `vmlinux`.
    pub fn kernel(&self) -> PathBuf {
        self.dir.join(KERNEL)
    }

    /// The root filesystem, an ext4 that is opened read-only.
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join(ROOTFS)
    }

    /// The kernel modules that the agent loads, for [`crate::initramfs::assemble`].
    pub fn modules(&self) -> PathBuf {
        self.dir.join(MODULES)
    }

    /// Opens an image that was built before.
    ///
    /// # Errors
    /// When `dir` is not there or its `image.json` cannot be read.
    pub fn open(dir: &Path) -> Result<Self, ImageError> {
        let path = dir.join(MANIFEST);
        let text = fs::read(&path).map_err(ImageError::io("read", &path))?;
        let manifest = Manifest::from_json(&text).map_err(|error| invalid(&path, &error))?;
        Ok(Self { dir: dir.to_owned(), manifest })
    }
}

const KERNEL: &str = "kernel";
const ROOTFS: &str = "rootfs";
const MODULES: &str = "modules";
const MANIFEST: &str = "image.json";

fn invalid(path: &Path, error: &dyn std::fmt::Display) -> ImageError {
    ImageError::Invalid(format!("{}: {error}", path.display()))
}

/// Builds the Debian image into the new directory `output`.
///
/// Downloads some 150 MB through the package managers `mmdebstrap` and `npm`, with the mirrors that the host is set up
/// for. Needs root, or subordinate user ids and the permission to make user namespaces. Two builds from the same
/// packages differ only in timestamps. Takes about a minute; blocks the thread.
///
/// What an interrupted build left is in `<output>.building` and is removed by the next one.
///
/// # Errors
/// When `output` exists, another build of it is under way, a program is missing or fails, a download does not have the
/// pinned digest, or `progress` asks to stop. Nothing is left at `output` then.
pub fn build(output: &Path, progress: &dyn Progress) -> Result<BuiltImage, ImageError> {
    if output.exists() {
        return Err(ImageError::Invalid(format!("{} exists already", output.display())));
    }
    let site = BuildSite::claim(output)?;
    let image = site.dir.join("image");
    fs::create_dir(&image).map_err(ImageError::io("make", &image))?;

    let fetched = step(progress, "Fetch Node.js, npm and Deno", || runtimes::fetch(&site.dir, progress))?;
    let mut tree = step(progress, "Install Debian packages", || bootstrap::run(&site.dir, progress))?;
    step(progress, "Unpack Node.js, npm and Deno", || runtimes::unpack(&fetched, tree.path()))?;
    let kernel = step(progress, "Extract the kernel and its modules", || {
        kernel::extract(&tree, &image.join(KERNEL), &image.join(MODULES))
    })?;
    step(progress, "Write the root filesystem", || {
        tree.finish()?;
        filesystem::write(&tree, &site.dir, &image.join(ROOTFS))
    })?;
    let manifest = step(progress, "Digest the files", || manifest::write(&image, &tree, kernel))?;

    fs::rename(&image, output).map_err(ImageError::io("make", output))?;
    Ok(BuiltImage { dir: output.to_owned(), manifest })
}

/// The directory in which one build works; it is this build's alone, and removed with it.
struct BuildSite {
    dir: PathBuf,
    /// Locked as long as the build runs, however it ends.
    _lock: File,
}

impl BuildSite {
    fn claim(output: &Path) -> Result<Self, ImageError> {
        let mut dir = output.as_os_str().to_owned();
        dir.push(".building");
        let dir = PathBuf::from(dir);
        fs::create_dir_all(&dir).map_err(ImageError::io("make", &dir))?;
        let lock = File::open(&dir).map_err(ImageError::io("open", &dir))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(ImageError::Invalid(format!("another build of {} is under way", output.display())));
            }
            Err(TryLockError::Error(source)) => return Err(ImageError::io("lock", &dir)(source)),
        }
        refuse_mounts(&dir)?;
        empty(&dir).map_err(ImageError::io("empty", &dir))?;
        Ok(Self { dir, _lock: lock })
    }
}

impl Drop for BuildSite {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next build.
        if refuse_mounts(&self.dir).is_ok() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// A killed bootstrap could leave the host's own directories mounted inside; removing those would be a disaster.
fn refuse_mounts(dir: &Path) -> Result<(), ImageError> {
    let table = Path::new("/proc/self/mountinfo");
    let dir = fs::canonicalize(dir).map_err(ImageError::io("find", dir))?;
    let mounts = fs::read_to_string(table).map_err(ImageError::io("read", table))?;
    let below = |line: &&str| line.split(' ').nth(4).is_some_and(|mount| Path::new(mount).starts_with(&dir));
    match mounts.lines().find(below) {
        Some(line) => Err(ImageError::Invalid(format!("something is mounted below {}: {line}", dir.display()))),
        None => Ok(()),
    }
}

fn empty(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
