//! Takes an image's files out of a zip archive. The archive is somebody's upload: its sizes and counts are not believed.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use zip::ZipArchive;
use zip::read::ZipFile;

use super::receive::{Received, write};
use super::{FileKind, max_bytes, verify};
use crate::error::{Error, Result};

/// What may be read to find the entries; some 50,000 of them. More would take memory as their number grows.
const DIRECTORY_BYTES: u64 = 4 * 1024 * 1024;

/// Names of the files by what they are, at any depth (section 6 of the wire contract, and the modules archive).
const NAMES: [(&str, FileKind); 3] =
    [("vmlinux", FileKind::Kernel), ("rootfs.ext4", FileKind::Rootfs), ("modules.cpio", FileKind::Modules)];

/// Extracts and verifies every file that belongs to an image.
pub(super) fn extract(archive: &Path, tmp: &Path) -> Result<Vec<(FileKind, Received)>> {
    let file = File::open(archive).map_err(|error| Error::internal("cannot open an upload", error))?;
    let budget = Arc::new(AtomicU64::new(DIRECTORY_BYTES));
    let metered = BufReader::new(Metered { file, budget: Arc::clone(&budget) });
    let mut archive = ZipArchive::new(metered).map_err(|error| damaged(&error))?;
    budget.store(u64::MAX, Ordering::Relaxed);

    let mut files: Vec<(FileKind, Received)> = Vec::new();
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(|error| damaged(&error))?;
        let Some(kind) = entry.name().ok().and_then(|name| kind(&name)) else { continue };
        drop(entry);
        if files.iter().any(|(other, _)| *other == kind) {
            return Err(Error::invalid(format!("The bundle holds more than one {kind}")));
        }
        let entry = archive.by_index(index).map_err(|error| damaged(&error))?;
        let file = unpack(entry, max_bytes(kind), tmp)?;
        verify::file(kind, file.path())?;
        files.push((kind, file));
    }
    if files.is_empty() {
        return Err(Error::invalid("The bundle holds neither vmlinux nor rootfs.ext4"));
    }
    Ok(files)
}

fn kind(name: &str) -> Option<FileKind> {
    let last = name.rsplit('/').next()?;
    // Archives made by some systems carry a shadow of each file.
    if name.starts_with("__MACOSX/") {
        return None;
    }
    NAMES.iter().find(|(known, _)| *known == last).map(|(_, kind)| *kind)
}

fn unpack(entry: ZipFile<'_, impl Read>, limit: u64, tmp: &Path) -> Result<Received> {
    if !entry.is_file() {
        return Err(Error::invalid("An image's file in the bundle is not a plain file"));
    }
    let claimed = entry.size();
    if claimed > limit {
        return Err(Error::TooLarge { limit });
    }
    let file = write(entry.take(limit + 1), tmp)?;
    if file.bytes > limit {
        return Err(Error::TooLarge { limit });
    }
    Ok(file)
}

fn damaged(error: &zip::result::ZipError) -> Error {
    Error::invalid(format!("The bundle is not a zip archive that can be read: {error}"))
}

/// A file of which only so much can be read.
struct Metered {
    file: File,
    budget: Arc<AtomicU64>,
}

impl Read for Metered {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(into)?;
        let left = self.budget.load(Ordering::Relaxed);
        if left != u64::MAX {
            let left = left.checked_sub(read as u64).ok_or_else(|| io::Error::other("too many entries"))?;
            self.budget.store(left, Ordering::Relaxed);
        }
        Ok(read)
    }
}

impl Seek for Metered {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use proptest::prelude::*;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn bundle(content: &[u8]) -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        zip.start_file("vmlinux", SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
        zip.finish().unwrap().into_inner()
    }

    fn extracted(archive: &[u8]) -> Result<Vec<(FileKind, Received)>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bundle.zip");
        std::fs::write(&path, archive).unwrap();
        extract(&path, dir.path())
    }

    #[test]
    fn a_file_that_claims_to_be_huge_is_not_unpacked() {
        let mut archive = bundle(&[0; 10_000]);
        let directory = archive.windows(4).rposition(|four| four == b"PK\x01\x02").unwrap();
        archive[directory + 24..directory + 28].copy_from_slice(&0xffff_fff0_u32.to_le_bytes());
        assert!(matches!(extracted(&archive), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn a_method_that_is_not_known_is_an_error_of_the_caller() {
        let mut archive = bundle(b"not a kernel");
        let directory = archive.windows(4).rposition(|four| four == b"PK\x01\x02").unwrap();
        archive[directory + 10] = 1;
        let refused = extracted(&archive).unwrap_err();
        assert!(matches!(refused, Error::Invalid(_)), "{refused:?}");
    }

    proptest! {
        #[test]
        fn damage_is_an_error_of_the_caller(at in 0_usize..200, byte: u8, cut in 0_usize..400) {
            let mut archive = bundle(b"not a kernel");
            let end = archive.len().saturating_sub(cut);
            archive.truncate(end.max(1));
            let at = at % archive.len();
            archive[at] = byte;
            let refused = extracted(&archive).expect_err("what is in it is no kernel");
            prop_assert!(matches!(refused, Error::Invalid(_) | Error::TooLarge { .. }), "{refused:?}");
        }
    }
}
