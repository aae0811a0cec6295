//! What is there: one file, or a directory's entries.

use std::ffi::CStr;
use std::io::Write;
use std::os::fd::AsFd;

use rds_protocol::files::{FileKind, Listing, Stat};
use rustix::fs::{AtFlags, Dir, FileType, OFlags};
use rustix::io::Errno;

use super::beneath::Path;
use super::failure::Failure;

/// Entries of a listing; [`Listing`] says so too.
const ENTRIES: usize = 10_000;

/// Describes what is at a path, without following it.
pub(super) fn stat(path: &Path, output: impl Write) -> Result<(), Failure> {
    let file = path.open(OFlags::PATH)?;
    let stat = rustix::fs::fstat(&file).map_err(|error| path.failed(error))?;
    answer(&describe(path.name().to_owned(), &stat), output)
}

/// Describes what is in a directory.
pub(super) fn list(path: &Path, output: impl Write) -> Result<(), Failure> {
    let directory = path.open(OFlags::RDONLY | OFlags::DIRECTORY)?;
    let names = names(&directory).map_err(|error| path.failed(error))?;
    let truncated = names.len() > ENTRIES;
    let entries = names.iter().take(ENTRIES).filter_map(|name| {
        // One that has gone meanwhile is not there.
        let stat = rustix::fs::statat(&directory, &**name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(describe(name.to_string_lossy().into_owned(), &stat))
    });
    answer(&Listing { entries: entries.collect(), truncated }, output)
}

/// A directory's entries, sorted.
pub(super) fn names(directory: impl AsFd) -> Result<Vec<Box<CStr>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().into());
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn describe(name: String, stat: &rustix::fs::Stat) -> Stat {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        _ => FileKind::Other,
    };
    let size = if kind == FileKind::File { stat.st_size.cast_unsigned() } else { 0 };
    let modified_ms = stat.st_mtime * 1000 + i64::try_from(stat.st_mtime_nsec / 1_000_000).unwrap_or(0);
    Stat { name, kind, size, mode: stat.st_mode & 0o7777, modified_ms }
}

fn answer(value: &impl serde::Serialize, mut output: impl Write) -> Result<(), Failure> {
    let text = serde_json::to_vec(value).expect("protocol types have string keys and no failing serialisers");
    output.write_all(&text).and_then(|()| output.flush()).map_err(|error| Failure::at("the reply", &error))
}
