//! Writes the tree into the ext4 filesystem that guests mount read-only.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::ImageError;
use crate::debian::tree::{Owner, Tree};
use crate::e2fsprogs;

const BLOCK: u64 = 4096;

/// No journal and no checksums: the image is never written again, its files are checked by digest, and every checksum
/// costs a guest time under emulation.
const FEATURES: &str = "none,ext_attr,dir_index,filetype,extent,flex_bg,sparse_super,large_file,huge_file,dir_nlink,\
                        extra_isize";

/// Fixed, so that builds of the same tree are the same. Guests never look a filesystem up by it.
const UUID: &str = "5f6d6f3c-52d5-4d5e-8a52-646562696164";

/// A file of the tree, by its path in it.
struct Entry {
    path: PathBuf,
    owner: Owner,
    blocks: u64,
}

/// Writes `tree` to the new file `rootfs`, no larger than it has to be.
pub(crate) fn write(tree: &Tree, site: &Path, rootfs: &Path) -> Result<(), ImageError> {
    let mut entries = Vec::new();
    walk(tree.path(), Path::new(""), &mut entries).map_err(ImageError::io("read", tree.path()))?;
    let make = || File::create_new(rootfs)?.set_len(size(&entries));
    make().map_err(ImageError::io("make", rootfs))?;

    let inodes = (entries.len() as u64 + SPARE_INODES).to_string();
    let extended = format!("hash_seed={UUID},root_owner=0:0");
    let options = ["-O", FEATURES, "-U", UUID, "-E", &extended, "-N", &inodes, "-I", "256", "-m", "0"];
    e2fsprogs::mke2fs(&options, Some(tree.path()), rootfs)?;
    e2fsprogs::debugfs(&owners_script(tree, &entries)?, &site.join("owners"), rootfs)
}

/// Inodes that the filesystem itself uses, and then some.
const SPARE_INODES: u64 = 32;

/// Content, inode tables, a hundredth for directories' and extents' own blocks, and room for the fixed parts.
fn size(entries: &[Entry]) -> u64 {
    let content: u64 = entries.iter().map(|entry| entry.blocks).sum();
    let inodes = (entries.len() as u64 + SPARE_INODES) / (BLOCK / 256);
    (content + inodes + content / 100 + (4 << 20) / BLOCK) * BLOCK
}

fn walk(root: &Path, below: &Path, entries: &mut Vec<Entry>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let path = below.join(entry.file_name());
        let blocks = if metadata.is_symlink() { 0 } else { metadata.len().div_ceil(BLOCK) };
        entries.push(Entry { path: path.clone(), owner: (metadata.uid(), metadata.gid()), blocks });
        if metadata.is_dir() {
            walk(root, &path, entries)?;
        }
    }
    Ok(())
}

/// Gives every file its owner in the guest, where that is not who unpacked it.
fn owners_script(tree: &Tree, entries: &[Entry]) -> Result<String, ImageError> {
    let mut script = String::new();
    for entry in entries {
        let owner = tree.owner(&entry.path);
        if owner == entry.owner {
            continue;
        }
        let path = entry.path.to_str().filter(|path| !path.contains(['"', '\n', '\\']));
        let Some(path) = path else {
            return Err(ImageError::Invalid(format!("a file has an unusual name: {}", entry.path.display())));
        };
        let (uid, gid) = owner;
        write!(script, "sif \"/{path}\" uid {uid}\nsif \"/{path}\" gid {gid}\n").expect("text can be written");
    }
    Ok(script)
}
