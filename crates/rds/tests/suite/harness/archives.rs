//! tar.gz archives, good and hostile.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

/// One entry, as it shall stand in the archive.
pub(crate) struct Entry<'a> {
    /// Its name, written without any check.
    pub(crate) name: &'a str,
    /// Its kind.
    pub(crate) kind: EntryType,
    /// Where a link leads.
    pub(crate) link: Option<&'a str>,
    /// Its mode.
    pub(crate) mode: u32,
    /// Its content.
    pub(crate) content: &'a [u8],
}

/// A regular file.
pub(crate) fn file<'a>(name: &'a str, content: &'a [u8]) -> Entry<'a> {
    Entry { name, kind: EntryType::Regular, link: None, mode: 0o644, content }
}

/// An entry that is no file.
pub(crate) fn special<'a>(name: &'a str, kind: EntryType, link: Option<&'a str>) -> Entry<'a> {
    Entry { name, kind, link, mode: 0o644, content: b"" }
}

/// Packs entries as they are.
pub(crate) fn targz(entries: &[Entry<'_>]) -> Vec<u8> {
    gzip(&tar(entries))
}

/// The same without the compression.
pub(crate) fn tar(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for entry in entries {
        let mut header = Header::new_gnu();
        let fields = header.as_gnu_mut().expect("a GNU header");
        let name = entry.name.as_bytes();
        fields.name.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
        if let Some(link) = entry.link {
            fields.linkname.iter_mut().zip(link.as_bytes()).for_each(|(to, from)| *to = *from);
        }
        header.set_entry_type(entry.kind);
        header.set_mode(entry.mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(entry.content.len() as u64);
        header.set_cksum();
        builder.append(&header, entry.content).expect("memory does not fail");
    }
    builder.into_inner().expect("memory does not fail")
}

/// Compresses.
pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).expect("memory does not fail");
    encoder.finish().expect("memory does not fail")
}

/// An archive of one file of zeros, far larger than it looks.
pub(crate) fn bomb(bytes: u64) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_path("zeros").expect("a short name");
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(bytes);
    header.set_cksum();
    // A gzip file may have many members, and compressing gigabytes takes minutes: one member is repeated.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&vec![0; ZEROS]).expect("memory does not fail");
    let zeros = encoder.finish().expect("memory does not fail");
    let mut bomb = gzip(header.as_bytes());
    for _ in 0..bytes / ZEROS as u64 {
        bomb.extend_from_slice(&zeros);
    }
    bomb.extend_from_slice(&gzip(&[0; 1024]));
    bomb
}

/// Bytes of zeros in one member of a bomb.
const ZEROS: usize = 4 << 20;

/// The names and contents of the files in an archive, sorted.
pub(crate) fn files(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(archive));
    let mut files = Vec::new();
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        if entry.header().entry_type().is_file() {
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).expect("whole content");
            let name = entry.path().expect("a name").to_string_lossy().trim_start_matches("./").to_owned();
            files.push((name, content));
        }
    }
    files.sort();
    files
}
