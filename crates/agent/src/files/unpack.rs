//! Unpacking a tar.gz. The manager has checked it whole; it is checked again here because this is where it would hurt.

use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::{Component, Path as StdPath};

use flate2::read::MultiGzDecoder;
use rds_protocol::limits::{ARCHIVE_ENTRIES, UNPACKED_BYTES};
use tar::{Archive, Entry, EntryType};

use super::beneath::{self, Path};
use super::failure::Failure;

/// Bytes of input that are read at once.
const BUFFER: usize = 64 * 1024;

/// Unpacks into a directory, which is made. Owner, times and all modes but the executable bit are not the archive's.
pub(super) fn unpack(input: impl Read, dest: &Path) -> Result<(), Failure> {
    let root = dest.make()?;
    let mut archive = Archive::new(MultiGzDecoder::new(BufReader::with_capacity(BUFFER, input)));
    let (mut entries, mut bytes) = (0, 0_u64);
    for entry in archive.entries().map_err(|error| Failure::archive(&error))? {
        let mut entry = entry.map_err(|error| Failure::archive(&error))?;
        entries += 1;
        bytes = bytes.saturating_add(entry.size());
        if entries > ARCHIVE_ENTRIES || bytes > UNPACKED_BYTES {
            return Err(Failure::bad("the archive has too many entries or is too large"));
        }
        // What `git archive` says of the whole archive is no file.
        if entry.header().entry_type() != EntryType::XGlobalHeader {
            unpack_entry(&mut entry, &root)?;
        }
    }
    Ok(())
}

/// Unpacks one file or directory below a directory; nothing else, and nowhere else.
pub(crate) fn unpack_entry<R: Read>(entry: &mut Entry<'_, R>, root: &OwnedFd) -> Result<(), Failure> {
    let path = entry.path().map_err(|error| Failure::archive(&error))?.into_owned();
    let shown = path.display().to_string();
    let failed = |error: io::Error| Failure::at(&shown, &error);
    let parts = plain_parts(&path).ok_or_else(|| Failure::bad(format!("{shown}: it leads out of the archive")))?;
    let here = || root.try_clone().map_err(failed);
    match entry.header().entry_type() {
        EntryType::Directory => {
            beneath::make_directories(here()?, parts.into_iter()).map_err(|error| failed(error.into()))?;
        }
        EntryType::Regular | EntryType::Continuous => {
            let Some((name, above)) = parts.split_last() else {
                return Err(Failure::bad("the archive has a file without a name"));
            };
            let directory = beneath::make_directories(here()?, above.iter().copied());
            let directory = directory.map_err(|error| failed(error.into()))?;
            let executable = entry.header().mode().is_ok_and(|mode| mode & 0o111 != 0);
            let mut file = beneath::create(&directory, name, executable).map_err(|error| failed(error.into()))?;
            io::copy(entry, &mut file).map_err(|error| match error.raw_os_error() {
                // Not the system's word: the archive's.
                None => Failure::archive(&error),
                Some(_) => failed(error),
            })?;
        }
        _ => return Err(Failure::bad(format!("{shown}: it is neither a file nor a directory"))),
    }
    Ok(())
}

/// The components of a path that is relative and never goes up, all of them UTF-8.
fn plain_parts(path: &StdPath) -> Option<Vec<&str>> {
    let parts = path.components().filter(|part| *part != Component::CurDir);
    parts.map(|part| if let Component::Normal(name) = part { name.to_str() } else { None }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_paths_have_parts() {
        assert_eq!(plain_parts(StdPath::new("./a//b/./c")), Some(vec!["a", "b", "c"]));
        assert_eq!(plain_parts(StdPath::new(".")), Some(vec![]));
        for path in ["/a", "../a", "a/../b", ".."] {
            assert_eq!(plain_parts(StdPath::new(path)), None, "{path}");
        }
    }
}
