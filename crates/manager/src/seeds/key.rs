//! Which seed fits: everything that it depends on, in one digest.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::Size;
use crate::images::ImageFiles;

/// Raised when a seed of an older server must not be used though all else is equal.
const GENERATION: u32 = 2;

/// Name of a seed: two machines of the same name are interchangeable until they are told who they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key(String);

impl ImageFiles {
    /// What changes with the files that a guest has parts of in its memory, and costs nothing to read.
    pub(crate) fn facts(&self) -> io::Result<[String; 2]> {
        let facts = |file: &Path| {
            let facts = std::fs::metadata(file)?;
            let (changed, modified) = ((facts.ctime(), facts.ctime_nsec()), (facts.mtime(), facts.mtime_nsec()));
            Ok::<_, io::Error>(format!("{} {} {modified:?} {changed:?}", facts.ino(), facts.len()))
        };
        Ok([facts(&self.kernel)?, facts(&self.rootfs)?])
    }
}

impl Key {
    /// The seed of a size for these files. `initramfs` is named after its content.
    ///
    /// A guest that was saved has parts of its image's files in memory, so a seed must never meet others.
    pub(super) fn of(image: &ImageFiles, initramfs: &Path, fingerprint: &str, size: Size) -> io::Result<Self> {
        let mut digest = Sha256::new();
        let mut add = |part: &str| {
            digest.update(part);
            digest.update([0]);
        };
        add(&GENERATION.to_string());
        add(fingerprint);
        add(&size.to_string());
        add(&initramfs.file_name().unwrap_or_default().to_string_lossy());
        image.facts()?.iter().for_each(|facts| add(facts));
        Ok(Self(hex::encode(digest.finalize()).chars().take(LENGTH).collect()))
    }

    /// The key in a directory's name, if it is one.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (name.len() == LENGTH && name.bytes().all(digit)).then(|| Self(name.to_owned()))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// See [`Seeds::fits`](super::Seeds::fits).
pub(super) fn fits(image: &ImageFiles, fingerprint: &str) -> io::Result<String> {
    let mut digest = Sha256::new();
    digest.update(fingerprint);
    for facts in image.facts()? {
        digest.update([0]);
        digest.update(facts);
    }
    Ok(hex::encode(digest.finalize()))
}

/// Hex digits: 128 bits, in a name that leaves room for sockets' paths.
const LENGTH: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_fits_the_files_and_the_monitor_that_it_was_made_with() {
        let dir = tempfile::tempdir().unwrap();
        let (kernel, rootfs) = (dir.path().join("kernel"), dir.path().join("rootfs"));
        std::fs::write(&kernel, "k").unwrap();
        std::fs::write(&rootfs, "r").unwrap();
        let image = ImageFiles::unheld("img-a", kernel, rootfs.clone());
        let first = fits(&image, "qemu\nnetwork: true").unwrap();
        assert_eq!(first, fits(&image, "qemu\nnetwork: true").unwrap());
        assert_ne!(first, fits(&image, "qemu\nnetwork: false").unwrap());
        std::fs::write(dir.path().join("new"), "r").unwrap();
        std::fs::rename(dir.path().join("new"), &rootfs).unwrap();
        assert_ne!(first, fits(&image, "qemu\nnetwork: true").unwrap(), "another file of the same content and length");
        std::fs::remove_file(&rootfs).unwrap();
        assert!(fits(&image, "").is_err());
    }

    #[test]
    fn a_key_changes_with_everything_that_a_seed_depends_on() {
        let dir = tempfile::tempdir().unwrap();
        let (kernel, rootfs) = (dir.path().join("kernel"), dir.path().join("rootfs"));
        std::fs::write(&kernel, "k").unwrap();
        std::fs::write(&rootfs, "r").unwrap();
        let image = ImageFiles::unheld("img-a", kernel, rootfs.clone());
        let size = Size { vcpus: 1, mem_mib: 256 };
        let key = |initramfs: &str, fingerprint: &str, size| {
            Key::of(&image, Path::new(initramfs), fingerprint, size).unwrap()
        };
        let first = key("a.cpio", "qemu", size);
        assert_eq!(first, key("a.cpio", "qemu", size));
        assert_eq!(Key::parse(&first.to_string()), Some(first.clone()));
        assert_ne!(first, key("b.cpio", "qemu", size));
        assert_ne!(first, key("a.cpio", "kvm", size));
        assert_ne!(first, key("a.cpio", "qemu", Size { vcpus: 2, ..size }));
        std::fs::write(dir.path().join("new"), "r").unwrap();
        std::fs::rename(dir.path().join("new"), &rootfs).unwrap();
        assert_ne!(first, key("a.cpio", "qemu", size), "another file of the same content and length");
        assert_eq!(Key::parse("build"), None);
    }
}
