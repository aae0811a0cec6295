//! tar.gz archives of local directories: packing them for a VM and unpacking what a VM sends.
//!
//! What a VM sends is hostile: only regular files and directories are taken from it, and nothing is written outside
//! the destination.

use std::fs;
use std::io::Read;
use std::path::Path;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use tar::{Archive, Builder, EntryType, Header};

use crate::error::CliError;

/// A packed directory.
#[derive(Debug)]
pub(crate) struct Packed {
    /// The tar.gz.
    pub(crate) archive: Vec<u8>,
    /// Names that were left out, for they are neither files nor directories.
    pub(crate) skipped: Vec<String>,
}

/// Packs the contents of a directory, sorted, without owners and times.
pub(crate) fn pack(dir: &Path) -> Result<Packed, CliError> {
    let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut skipped = Vec::new();
    add_dir(&mut builder, dir, Path::new(""), &mut skipped)?;
    let finish = |builder: Builder<GzEncoder<Vec<u8>>>| builder.into_inner()?.finish();
    Ok(Packed { archive: finish(builder).map_err(CliError::file(dir))?, skipped })
}

/// Packs named files, for programs that carry their files with them.
pub(crate) fn pack_files(files: &[(&str, &[u8])]) -> std::io::Result<Vec<u8>> {
    let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, content) in files {
        builder.append_data(&mut file_header(content.len() as u64, 0o644), name, *content)?;
    }
    builder.into_inner()?.finish()
}

fn add_dir<W: std::io::Write>(
    builder: &mut Builder<W>,
    root: &Path,
    inside: &Path,
    skipped: &mut Vec<String>,
) -> Result<(), CliError> {
    let dir = root.join(inside);
    let mut names = fs::read_dir(&dir)
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<Vec<_>>>())
        .map_err(CliError::file(&dir))?;
    names.sort();
    for name in names {
        let (inside, path) = (inside.join(&name), dir.join(&name));
        let metadata = fs::symlink_metadata(&path).map_err(CliError::file(&path))?;
        if metadata.is_dir() {
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
            builder.append_data(&mut header, &inside, std::io::empty()).map_err(CliError::file(&path))?;
            add_dir(builder, root, &inside, skipped)?;
        } else if metadata.is_file() {
            let file = fs::File::open(&path).map_err(CliError::file(&path))?;
            let mut header = file_header(metadata.len(), file_mode(&metadata));
            // A file that grows meanwhile must not break the archive.
            let content = file.take(metadata.len());
            builder.append_data(&mut header, &inside, content).map_err(CliError::file(&path))?;
        } else {
            skipped.push(inside.display().to_string());
        }
    }
    Ok(())
}

fn file_header(size: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(mode);
    header.set_size(size);
    header
}

/// Only the executable bit travels.
fn file_mode(metadata: &fs::Metadata) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    if metadata.permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 }
}

/// Unpacks files and directories under `dest`, which is made. Gives the number of files.
pub(crate) fn unpack(archive: &[u8], dest: &Path) -> Result<usize, CliError> {
    fs::create_dir_all(dest).map_err(CliError::file(dest))?;
    let mut archive = Archive::new(GzDecoder::new(archive));
    archive.set_preserve_mtime(false);
    let mut count = 0;
    for entry in archive.entries().map_err(CliError::file(dest))? {
        let mut entry = entry.map_err(CliError::file(dest))?;
        if matches!(entry.header().entry_type(), EntryType::Regular | EntryType::Directory)
            && entry.unpack_in(dest).map_err(CliError::file(dest))?
        {
            count += usize::from(entry.header().entry_type().is_file());
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_directory_comes_back_as_it_went() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(from.path().join("a/empty")).unwrap();
        fs::write(from.path().join("a/run.sh"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(from.path().join("a/run.sh"), fs::Permissions::from_mode(0o750)).unwrap();
        symlink("/etc/passwd", from.path().join("link")).unwrap();
        let packed = pack(from.path()).unwrap();
        assert_eq!(packed.skipped, ["link"]);
        assert_eq!(unpack(&packed.archive, to.path()).unwrap(), 1);
        assert!(to.path().join("a/empty").is_dir());
        assert_eq!(fs::metadata(to.path().join("a/run.sh")).unwrap().permissions().mode() & 0o777, 0o755);
    }

    #[test]
    fn a_hostile_archive_writes_nothing_outside() {
        let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        let mut link = Header::new_gnu();
        link.set_entry_type(EntryType::Symlink);
        link.set_size(0);
        builder.append_link(&mut link, "out", "/tmp").unwrap();
        let mut escape = file_header(1, 0o644);
        escape.as_gnu_mut().unwrap().name[..11].copy_from_slice(b"../escape.x");
        escape.set_cksum();
        builder.append(&escape, &b"x"[..]).unwrap();
        let archive = builder.into_inner().unwrap().finish().unwrap();
        let parent = tempfile::tempdir().unwrap();
        let dest = parent.path().join("dest");
        assert_eq!(unpack(&archive, &dest).unwrap(), 0);
        assert!(!parent.path().join("escape.x").exists());
        assert_eq!(fs::read_dir(&dest).unwrap().count(), 0);
    }
}
