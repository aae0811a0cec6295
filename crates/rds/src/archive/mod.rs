//! tar.gz archives of local directories: packing them for a VM and unpacking what a VM sends.

mod unpack;

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use rds_protocol::limits::ARCHIVE_BYTES;
use tar::{Builder, EntryType, Header};

use crate::error::CliError;

pub(crate) use unpack::unpack;

/// What was left out, for it is neither a file nor a directory: the first names, and how many there are.
#[derive(Debug, Default)]
pub(crate) struct LeftOut {
    names: Vec<String>,
    more: usize,
}

impl LeftOut {
    /// Names that are told.
    const TOLD: usize = 10;

    fn add(&mut self, path: &Path) {
        if self.names.len() < Self::TOLD {
            self.names.push(path.display().to_string());
        } else {
            self.more += 1;
        }
    }

    /// A line about it; nothing if nothing was left out.
    pub(crate) fn told(&self) -> Option<String> {
        let more = if self.more == 0 { String::new() } else { format!(" and {} more", self.more) };
        let names = self.names.join(", ");
        (!self.names.is_empty()).then(|| format!("left out (links and special files): {names}{more}"))
    }
}

/// A packed directory.
#[derive(Debug)]
pub(crate) struct Packed {
    /// The tar.gz.
    pub(crate) archive: Vec<u8>,
    /// What is not in it.
    pub(crate) left_out: LeftOut,
}

/// Packs the contents of a directory, sorted, without owners and times. Ends early with what is more than the server
/// takes.
pub(crate) fn pack(dir: &Path) -> Result<Packed, CliError> {
    let mut builder = Builder::new(GzEncoder::new(Upload(Vec::new()), Compression::fast()));
    let mut left_out = LeftOut::default();
    let packed = add_dir(&mut builder, dir, Path::new(""), &mut left_out);
    let finish = |builder: Builder<GzEncoder<Upload>>| builder.into_inner()?.finish();
    let packed = packed.and_then(|()| finish(builder).map_err(CliError::file(dir)));
    let Upload(archive) = packed.map_err(|error| match error {
        CliError::File { source, .. } if source.kind() == io::ErrorKind::FileTooLarge => too_large(dir),
        other => other,
    })?;
    Ok(Packed { archive, left_out })
}

/// What is sent to the server at once.
struct Upload(Vec<u8>);

impl Write for Upload {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if (self.0.len() + data.len()) as u64 > ARCHIVE_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn too_large(dir: &Path) -> CliError {
    let (dir, most) = (dir.display(), ARCHIVE_BYTES >> 20);
    CliError::Failed(format!(
        "{dir}: the server takes {most} MiB of compressed data at once, and this is more; send less, for example a part \
         of the directory"
    ))
}

/// Why no more than this is taken out of a VM.
pub(crate) fn refusal(most: u64) -> String {
    format!("it is more than {} MiB; --limit says how much may be taken", most >> 20)
}

/// Packs named files, for programs that carry their files with them.
pub(crate) fn pack_files(files: &[(&str, &[u8])]) -> io::Result<Vec<u8>> {
    let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, content) in files {
        builder.append_data(&mut file_header(content.len() as u64, 0o644), name, *content)?;
    }
    builder.into_inner()?.finish()
}

fn add_dir<W: Write>(
    builder: &mut Builder<W>,
    root: &Path,
    inside: &Path,
    left_out: &mut LeftOut,
) -> Result<(), CliError> {
    let dir = root.join(inside);
    let mut names = fs::read_dir(&dir)
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>())
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
            builder.append_data(&mut header, &inside, io::empty()).map_err(CliError::file(&path))?;
            add_dir(builder, root, &inside, left_out)?;
        } else if metadata.is_file() {
            let file = fs::File::open(&path).map_err(CliError::file(&path))?;
            let mut header = file_header(metadata.len(), file_mode(&metadata));
            // A file that grows meanwhile must not break the archive.
            let content = file.take(metadata.len());
            builder.append_data(&mut header, &inside, content).map_err(CliError::file(&path))?;
        } else {
            left_out.add(&inside);
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
        assert_eq!(packed.left_out.told().unwrap(), "left out (links and special files): link");
        assert!(unpack(&packed.archive[..], to.path(), 1 << 20).unwrap().told().is_none());
        assert!(to.path().join("a/empty").is_dir());
        assert_eq!(fs::metadata(to.path().join("a/run.sh")).unwrap().permissions().mode() & 0o700, 0o700);
    }

    #[test]
    fn a_directory_that_the_server_would_refuse_is_not_packed_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let random: Vec<u8> = std::iter::repeat_with(rand::random).take(ARCHIVE_BYTES as usize + 1).collect();
        fs::write(dir.path().join("f"), random).unwrap();
        let error = pack(dir.path()).unwrap_err().to_string();
        assert!(error.contains("10 MiB"), "{error}");
    }

    #[test]
    fn of_many_that_are_left_out_a_few_are_named() {
        let mut left_out = LeftOut::default();
        (0..12).for_each(|number| left_out.add(Path::new(&number.to_string())));
        assert!(left_out.told().unwrap().ends_with("8, 9 and 2 more"));
    }
}
