//! Checking an uploaded tar.gz before a byte of it reaches a guest.
//!
//! The guest unpacks with its own means, as its own user; this check is what makes a refusal all or nothing.

use std::io::{self, Read, Seek};
use std::path::{Component, Path};

use flate2::read::MultiGzDecoder;
use rds_protocol::archive_bounds::{Bounded, LONGEST_NAME};
use rds_protocol::limits::{ARCHIVE_ENTRIES, UNPACKED_BYTES};
use tar::EntryType;

use crate::error::{Error, Result};

/// Longest name in a directory of Linux.
const NAME_BYTES: usize = 255;

/// Reads a whole tar.gz and refuses it unless every entry is a plain file or directory at a plain relative path.
///
/// Memory is bounded by [`LONGEST_NAME`]; time by [`UNPACKED_BYTES`], whatever the compressed size announces.
pub fn check(mut compressed: impl Read + Seek) -> Result<()> {
    check_raw_entries(&mut compressed)?;
    compressed.rewind().map_err(refused)?;
    check_entries(compressed)
}

/// A long name or an extended header travels as an entry of its own, which the reader of entries takes into memory
/// whole. So the raw entries are looked at first.
///
/// Both passes must find the same entries, or one that is too long hides in another's content. Two things would part
/// them, and are refused: a size in an extended header, which counts instead of the entry's own, and a sparse file, whose
/// map may follow its header.
fn check_raw_entries(compressed: impl Read) -> Result<()> {
    let mut sizes = Vec::new();
    for entry in unpack(compressed).entries().map_err(refused)?.raw(true) {
        let mut entry = entry.map_err(refused)?;
        let kind = entry.header().entry_type();
        let is_word = matches!(
            kind,
            EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader | EntryType::XGlobalHeader
        );
        if is_word && entry.size() > LONGEST_NAME {
            return invalid(format!("the archive has a name or attribute of more than {LONGEST_NAME} bytes"));
        }
        match kind {
            EntryType::Regular
            | EntryType::Continuous
            | EntryType::Directory
            | EntryType::Symlink
            | EntryType::Link
            | EntryType::XGlobalHeader => {
                // Some packers repeat the entry's own size.
                if sizes.drain(..).any(|size| size != Some(entry.size())) {
                    return invalid("the archive gives an entry two sizes".into());
                }
            }
            // Of two for one entry, the second is where the other pass ends with an error.
            EntryType::XHeader => sizes = announced_sizes(&mut entry)?,
            EntryType::GNULongName | EntryType::GNULongLink => {}
            _ => return neither(&entry.path().map_err(refused)?),
        }
    }
    Ok(())
}

/// The sizes that an extended header gives to the entry after it; `None` for one that is no number.
fn announced_sizes<R: Read>(header: &mut tar::Entry<'_, R>) -> Result<Vec<Option<u64>>> {
    let records = header.pax_extensions().map_err(refused)?.into_iter().flatten().flatten();
    let sizes = records.filter(|record| record.key_bytes() == b"size");
    Ok(sizes.map(|record| record.value().ok()?.parse().ok()).collect())
}

fn unpack<R: Read>(compressed: R) -> tar::Archive<Bounded<MultiGzDecoder<R>>> {
    tar::Archive::new(bounded(MultiGzDecoder::new(compressed)))
}

fn bounded<R: Read>(unpacked: R) -> Bounded<R> {
    Bounded::new(unpacked, budget(), format!("it unpacks to more than {} MiB", UNPACKED_BYTES >> 20))
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
        // What `git archive` says of the whole archive; nobody unpacks it.
        EntryType::XGlobalHeader => return Ok(()),
        EntryType::Symlink | EntryType::Link => {
            return invalid(format!("the archive has a link at {path:?}; links are not allowed"));
        }
        _ => return neither(&path),
    }
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return invalid("the archive has a path with a NUL byte".into());
    }
    if !is_plain(&path) {
        return invalid(format!("{path:?} leads out of the archive"));
    }
    // The agent and the guest's disk take no others, and would find out in the middle.
    if path.to_str().is_none() {
        return invalid(format!("{path:?} is not UTF-8"));
    }
    if path.components().any(|part| part.as_os_str().len() > NAME_BYTES) {
        return invalid(format!("{path:?} has a name of more than {NAME_BYTES} bytes"));
    }
    Ok(())
}

/// Whether a path is relative and never goes up.
fn is_plain(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

fn neither<T>(path: &Path) -> Result<T> {
    invalid(format!("{path:?} is neither a file nor a directory"))
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
    fn names_that_no_guest_can_have_are_refused() {
        for name in [b"caf\xe9.txt".as_slice(), b"d/\xff/x"] {
            let refused = check_bytes(&archive(name, EntryType::Regular, b"x")).unwrap_err().to_string();
            assert!(refused.ends_with("is not UTF-8"), "{refused}");
        }
        let of_length = |length: usize| {
            let mut builder = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            builder.append_data(&mut header, format!("d/{}", "n".repeat(length)), io::empty()).unwrap();
            check_bytes(&gzip(&builder.into_inner().unwrap()))
        };
        of_length(255).unwrap();
        let refused = of_length(256).unwrap_err().to_string();
        assert!(refused.ends_with("more than 255 bytes"), "{refused}");
    }

    #[test]
    fn what_git_says_of_an_archive_passes() {
        let comment = b"52 comment=5b1d2c3e4f5061728394a5b6c7d8e9f0a1b2c3d4\n";
        let global = archive(b"pax_global_header", EntryType::XGlobalHeader, comment);
        check_bytes(&global).unwrap();
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

    /// An entry whose extended header gives it the size `announced`.
    fn sized(announced: &str, data: &[u8]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions([("mtime", &b"1.5"[..]), ("size", announced.as_bytes())]).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        builder.append_data(&mut header, "f", data).unwrap();
        gzip(&builder.into_inner().unwrap())
    }

    #[test]
    fn a_name_hidden_by_a_second_size_is_refused() {
        let mut hidden = tar::Header::new_gnu();
        hidden.set_path("././@LongLink").unwrap();
        hidden.set_entry_type(EntryType::GNULongName);
        hidden.set_size(1 << 20);
        hidden.set_cksum();
        let content = [hidden.as_bytes(), &[b'a'; 1 << 20][..]].concat();
        for announced in ["0", "512", "x"] {
            let error = check_bytes(&sized(announced, &content)).unwrap_err();
            assert!(error.to_string().contains("two sizes"), "{announced}: {error}");
        }
    }

    #[test]
    fn a_size_for_what_is_said_of_the_whole_archive_is_refused() {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions([("size", &b"512"[..])]).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(EntryType::XGlobalHeader);
        header.set_size(0);
        builder.append_data(&mut header, "pax_global_header", &b""[..]).unwrap();
        let error = check_bytes(&gzip(&builder.into_inner().unwrap())).unwrap_err();
        assert!(error.to_string().contains("two sizes"), "{error}");
    }

    #[test]
    fn an_extended_header_may_repeat_the_size() {
        check_bytes(&sized("3", b"abc")).unwrap();
        check_bytes(&sized("0", b"")).unwrap();
    }

    #[test]
    fn two_extended_headers_for_one_entry_are_refused() {
        let mut builder = tar::Builder::new(Vec::new());
        for size in ["0", "1"] {
            builder.append_pax_extensions([("size", size.as_bytes())]).unwrap();
        }
        let mut header = tar::Header::new_ustar();
        header.set_size(1);
        builder.append_data(&mut header, "f", &b"x"[..]).unwrap();
        let error = check_bytes(&gzip(&builder.into_inner().unwrap())).unwrap_err();
        assert!(error.to_string().contains("two pax extensions"), "{error}");
    }

    #[test]
    fn a_sparse_file_is_refused_before_its_map_is_read() {
        let error = check_raw_entries(&archive(b"f", EntryType::GNUSparse, b"")[..]).unwrap_err();
        assert!(error.to_string().contains("neither a file nor a directory"), "{error}");
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
        let error = io::copy(&mut bounded(io::repeat(0)), &mut io::sink()).unwrap_err();
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
