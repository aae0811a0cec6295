//! Checking an uploaded tar.gz before a byte of it reaches a guest.
//!
//! The guest unpacks with its own means, as its own user; this check is what makes a refusal all or nothing.

use std::io::{self, Read, Seek};
use std::path::{Component, Path};

use flate2::read::MultiGzDecoder;
use rds_protocol::limits::{ARCHIVE_ENTRIES, UNPACKED_BYTES};
use tar::EntryType;

use crate::error::{Error, Result};

/// Bytes of a long name or of extended attributes: far more than Linux's longest path (4096) needs.
const LONGEST_NAME: u64 = 64 * 1024;

/// Reads a whole tar.gz and refuses it unless every entry is a plain file or directory at a plain relative path.
///
/// Memory is bounded by [`LONGEST_NAME`]; time by [`UNPACKED_BYTES`], whatever the compressed size announces.
pub fn check(mut compressed: impl Read + Seek) -> Result<()> {
    check_names_are_short(&mut compressed)?;
    compressed.rewind().map_err(refused)?;
    check_entries(compressed)
}

/// A long name travels as an entry of its own, which the reader of entries takes into memory whole. So the raw entries
/// are looked at first.
fn check_names_are_short(compressed: impl Read) -> Result<()> {
    for entry in unpack(compressed).entries().map_err(refused)?.raw(true) {
        let entry = entry.map_err(refused)?;
        let is_plain = matches!(
            entry.header().entry_type(),
            EntryType::Regular | EntryType::Continuous | EntryType::Directory | EntryType::Symlink | EntryType::Link
        );
        if !is_plain && entry.size() > LONGEST_NAME {
            return invalid(format!("the archive has a name or attribute of more than {LONGEST_NAME} bytes"));
        }
    }
    Ok(())
}

fn unpack<R: Read>(compressed: R) -> tar::Archive<Bounded<MultiGzDecoder<R>>> {
    tar::Archive::new(Bounded { inner: MultiGzDecoder::new(compressed), left: budget() })
}

fn check_entries(compressed: impl Read) -> Result<()> {
    let mut archive = unpack(compressed);
    let mut entries = 0;
    let mut bytes = 0_u64;
    for entry in archive.entries().map_err(refused)? {
        let mut entry = entry.map_err(refused)?;
        entries += 1;
        if entries > ARCHIVE_ENTRIES {
            return invalid(format!("the archive has more than {ARCHIVE_ENTRIES} entries"));
        }
        bytes = bytes.saturating_add(entry.size());
        if bytes > UNPACKED_BYTES {
            return too_large();
        }
        check_entry(&entry)?;
        io::copy(&mut entry, &mut io::sink()).map_err(refused)?;
    }
    // What follows the end marker must still be sound gzip: a cut or damaged file is refused whole.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(refused)?;
    Ok(())
}

fn check_entry<R: Read>(entry: &tar::Entry<'_, R>) -> Result<()> {
    let path = entry.path().map_err(refused)?;
    match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous | EntryType::Directory => {}
        EntryType::Symlink | EntryType::Link => {
            return invalid(format!("the archive has a link at {path:?}; links are not allowed"));
        }
        _ => return invalid(format!("{path:?} is neither a file nor a directory")),
    }
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return invalid("the archive has a path with a NUL byte".into());
    }
    if !is_plain(&path) {
        return invalid(format!("{path:?} leads out of the archive"));
    }
    Ok(())
}

/// Whether a path is relative and never goes up.
fn is_plain(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

fn invalid<T>(message: String) -> Result<T> {
    Err(Error::Invalid(message))
}

fn too_large<T>() -> Result<T> {
    invalid(format!("the archive unpacks to more than {} MiB", UNPACKED_BYTES >> 20))
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` calls")]
fn refused(source: io::Error) -> Error {
    Error::Invalid(format!("not a sound tar.gz: {source}"))
}

/// Contents plus a header block and padding for each entry, its long names included, and the end of the archive.
const fn budget() -> u64 {
    UNPACKED_BYTES + ARCHIVE_ENTRIES * 8 * 1024
}

/// Ends a decompression bomb.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or_else(|| io::Error::other(format!("it unpacks to more than {} MiB", UNPACKED_BYTES >> 20)))?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;
    use std::io::Write;

    fn check_bytes(archive: &[u8]) -> Result<()> {
        check(io::Cursor::new(archive))
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    /// An archive of one entry whose raw name field is `name`.
    fn archive(name: &[u8], kind: EntryType, data: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        let mut builder = tar::Builder::new(Vec::new());
        builder.append(&header, data).unwrap();
        gzip(&builder.into_inner().unwrap())
    }

    #[test]
    fn plain_files_and_directories_pass() {
        check_bytes(&archive(b"a/b.txt", EntryType::Regular, b"x")).unwrap();
        check_bytes(&archive(b"./a/", EntryType::Directory, b"")).unwrap();
    }

    #[test]
    fn whatever_leads_elsewhere_is_refused() {
        for name in [&b"../x"[..], b"a/../../x", b"/etc/passwd", b"a/.."] {
            assert!(check_bytes(&archive(name, EntryType::Regular, b"x")).is_err(), "{name:?}");
        }
        for kind in [EntryType::Symlink, EntryType::Link, EntryType::Char, EntryType::Block, EntryType::Fifo] {
            assert!(check_bytes(&archive(b"x", kind, b"")).is_err(), "{kind:?}");
        }
    }

    #[test]
    fn a_cut_or_changed_archive_is_refused() {
        let whole = archive(b"x", EntryType::Regular, &[7; 4096]);
        for length in 0..whole.len() {
            assert!(check_bytes(&whole[..length]).is_err(), "{length} of {}", whole.len());
        }
    }

    #[test]
    fn a_name_that_would_fill_the_memory_is_refused() {
        let long = |kind, bytes| archive(b"././@LongLink", kind, &vec![b'a'; bytes]);
        for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader, EntryType::XGlobalHeader] {
            let error = check_bytes(&long(kind, 1 << 20)).unwrap_err();
            assert!(error.to_string().contains("65536 bytes"), "{kind:?}: {error}");
        }
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        builder.append_data(&mut header, "d/".repeat(1000) + "f", &b""[..]).unwrap();
        check_bytes(&gzip(&builder.into_inner().unwrap())).unwrap();
    }

    #[test]
    fn too_many_entries_are_refused() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        for index in 0..=ARCHIVE_ENTRIES {
            builder.append_data(&mut header, format!("f{index}"), &b""[..]).unwrap();
        }
        let error = check_bytes(&gzip(&builder.into_inner().unwrap())).unwrap_err();
        assert!(error.to_string().contains("10000 entries"), "{error}");
    }

    #[test]
    fn a_bomb_ends_early() {
        struct Zeros;
        impl Read for Zeros {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                buffer.fill(0);
                Ok(buffer.len())
            }
        }
        let mut bounded = Bounded { inner: Zeros, left: budget() };
        let error = io::copy(&mut bounded, &mut io::sink()).unwrap_err();
        assert!(error.to_string().contains("250 MiB"), "{error}");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(data in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let _ = check_bytes(&data);
            let _ = check_bytes(&gzip(&data));
        }

        #[test]
        fn a_path_that_passes_stays_below(path in "[a./]{0,12}") {
            if is_plain(Path::new(&path)) {
                let mut depth = 0_i32;
                for part in path.split('/') {
                    prop_assert_ne!(part, "..");
                    depth += i32::from(!part.is_empty() && part != ".");
                }
                prop_assert!(depth >= 0 && !path.starts_with('/'));
            }
        }
    }
}
