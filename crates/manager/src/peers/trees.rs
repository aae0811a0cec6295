//! The files that tell a consumer's code about its peers, as the archive that its agent unpacks.

use std::error::Error as StdError;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
use rds_peers::codegen::GeneratedFile;
use rds_peers::manifest::Alias;
use rds_protocol::archive_bounds::{Bounded, LONGEST_NAME};
use rds_protocol::limits::UNPACKED_BYTES;
use rds_vmm::guest::GuestError;
use tar::{Archive, Builder, EntryType, Header};

use crate::error::Error;

/// What a copy of a provider's files leaves out: what is not code, and what is about that VM alone.
const LEFT_OUT: [&str; 5] = [".rds", ".deno", ".tmp", ".nvm", "peers"];

/// Files of all copies together; the consumer's agent takes a few more.
const ENTRIES: usize = 45_000;

/// Bytes of all sources together, unpacked, with what is left out: a Node in `.nvm` has 200 MB.
const SOURCES_BYTES: u64 = 2 << 30;

/// Components of a path: who unpacks and removes directories has each of those above open.
const DEPTH: usize = 512;

/// A copy of a provider's `/workspace`: a tar.gz that the provider's agent makes.
pub(super) struct Source<R> {
    pub alias: Alias,
    pub archive: R,
}

/// Writes the archive of generated files and of copies of providers' files. Blocks.
///
/// Each source is opened only when the one before has been read: two that come over one channel would wait for each
/// other.
pub(super) fn write<R: Read>(
    files: &[GeneratedFile],
    sources: impl IntoIterator<Item = io::Result<Source<R>>>,
    to: impl Write,
) -> io::Result<()> {
    let mut builder = Builder::new(to);
    for file in files {
        // The agent keeps `.rds` apart from what lies on the disk, under a name without the dot.
        let path = file.path.strip_prefix('.').unwrap_or(&file.path);
        append(&mut builder, Path::new(path), file.contents.len() as u64, file.contents.as_bytes())?;
    }
    let mut budget = Budget { entries: ENTRIES, bytes: UNPACKED_BYTES, unpacked: SOURCES_BYTES };
    for source in sources {
        let source = source?;
        let alias = source.alias.clone();
        copy(&mut builder, source, &mut budget).map_err(|error| of_peer(&alias, error))?;
    }
    builder.into_inner()?.flush()
}

/// The error of copying a peer's files, as a client is told it, unless it is the consumer that takes no more.
fn of_peer(alias: &Alias, error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return error;
    }
    let message = format!("Peer alias {alias}: {error}");
    io::Error::other(if is_lost(&error) { Error::BadGateway(message) } else { Error::Invalid(message) })
}

/// Whether the provider did not send all of it.
fn is_lost(error: &(dyn StdError + 'static)) -> bool {
    // What an I/O error was made from is not its source.
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.is::<GuestError>() || inner.is_some_and(|inner| is_lost(inner)) || error.source().is_some_and(is_lost)
}

struct Budget {
    /// Copied.
    entries: usize,
    /// Copied.
    bytes: u64,
    /// Read, with what is left out.
    unpacked: u64,
}

fn copy<R: Read>(builder: &mut Builder<impl Write>, source: Source<R>, budget: &mut Budget) -> io::Result<()> {
    let root = Path::new("peers").join(source.alias.as_str()).join("source");
    let refusal = "the files of the provider are too many or too large";
    let too_large = || io::Error::other(refusal);
    let unpacked = Bounded::new(MultiGzDecoder::new(source.archive), budget.unpacked, refusal.to_owned());
    let mut archive = Archive::new(unpacked);
    let mut long = None;
    // Raw, because the reader would take names and attributes of any length into memory.
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        let path = match kind {
            EntryType::Regular | EntryType::Directory => match long.take() {
                Some(path) => path,
                None => entry.path()?.into_owned(),
            },
            EntryType::GNULongName if long.is_none() => {
                long = Some(long_name(&mut entry)?);
                continue;
            }
            EntryType::GNULongLink => continue,
            EntryType::Symlink | EntryType::Link => {
                long = None;
                continue;
            }
            _ => {
                return Err(io::Error::other(
                    "a provider's agent packed what is neither a file, a directory nor a link",
                ));
            }
        };
        let Some(path) = kept(&path)? else { continue };
        let bytes = entry.size();
        budget.entries = budget.entries.checked_sub(1).ok_or_else(too_large)?;
        budget.bytes = budget.bytes.checked_sub(bytes).ok_or_else(too_large)?;
        if kind == EntryType::Directory {
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Directory);
            header.set_size(0);
            header.set_mode(0o755);
            builder.append_data(&mut header, root.join(path), io::empty())?;
        } else {
            append(builder, &root.join(path), bytes, &mut entry)?;
        }
    }
    if long.is_some() {
        return Err(io::Error::other("a provider's agent packed a name without an entry"));
    }
    budget.unpacked = archive.into_inner().left();
    Ok(())
}

/// The name of the entry that follows, which is too long for a header.
fn long_name(entry: &mut tar::Entry<'_, impl Read>) -> io::Result<PathBuf> {
    if entry.size() > LONGEST_NAME {
        return Err(io::Error::other(format!("a provider's agent packed a name of more than {LONGEST_NAME} bytes")));
    }
    let mut name = Vec::new();
    entry.read_to_end(&mut name)?;
    name.pop_if(|last| *last == 0);
    Ok(OsString::from_vec(name).into())
}

/// A path of the copy; `None` for the root itself, and for what is left out: also names that are no text, which no module can
/// have and the consumer's agent would refuse.
fn kept(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            _ => return Err(io::Error::other("a provider's agent named a file outside /workspace")),
        }
    }
    if plain.components().count() > DEPTH {
        return Err(io::Error::other(format!(
            "a provider's agent packed more than {DEPTH} directories within each other"
        )));
    }
    let left_out = plain.to_str().is_none()
        || plain.components().next().is_none_or(|first| LEFT_OUT.iter().any(|name| first.as_os_str() == *name));
    Ok((!left_out).then_some(plain))
}

fn append(builder: &mut Builder<impl Write>, path: &Path, bytes: u64, data: impl Read) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_size(bytes);
    header.set_mode(0o644);
    let mut data = data.take(bytes);
    builder.append_data(&mut header, path, &mut data)?;
    // What follows would be taken for the rest of it.
    if data.limit() > 0 { Err(io::Error::other("an entry ends early")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    fn packed(entries: &[(&str, EntryType)]) -> Vec<u8> {
        let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (path, kind) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o777);
            header.set_size(0);
            if *kind == EntryType::Symlink {
                builder.append_link(&mut header, path, "/etc/passwd").unwrap();
            } else if *kind == EntryType::Directory {
                builder.append_data(&mut header, path, io::empty()).unwrap();
            } else {
                header.set_size(2);
                builder.append_data(&mut header, path, &b"hi"[..]).unwrap();
            }
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    fn names(archive: &[u8]) -> Vec<String> {
        let mut archive = Archive::new(archive);
        archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
    }

    #[test]
    fn a_copy_has_no_links_and_nothing_of_the_provider_vm_itself() {
        let source = packed(&[
            ("sdk", EntryType::Directory),
            ("sdk/a.ts", EntryType::Regular),
            ("sdk/peers/b.ts", EntryType::Regular),
            ("link", EntryType::Symlink),
            (".rds/peer-bridge.json", EntryType::Regular),
            ("peers/index.json", EntryType::Regular),
            (".rds-peer/manifest.json", EntryType::Regular),
        ]);
        let alias = Alias::new("mail").unwrap();
        let sources = [Ok(Source { alias, archive: &source[..] })];
        let mut archive = Vec::new();
        let files = rds_peers::runtime::files(&rds_peers::runtime::Bridge { url: "u".into(), token: "t".into() });
        write(&files, sources, &mut archive).unwrap();
        let names = names(&archive);
        assert!(names.contains(&"rds/peer-bridge.json".to_owned()), "{names:?}");
        let copied: Vec<_> = names.iter().filter_map(|name| name.strip_prefix("peers/mail/source/")).collect();
        assert_eq!(copied, ["sdk", "sdk/a.ts", "sdk/peers/b.ts", ".rds-peer/manifest.json"]);
    }

    fn mail(archive: &[u8]) -> io::Result<Source<&[u8]>> {
        Ok(Source { alias: Alias::new("mail").unwrap(), archive })
    }

    /// An archive of one entry with the size `announced`.
    fn one(path: &str, kind: EntryType, announced: u64, data: &[u8]) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_path(path).unwrap();
        header.set_size(announced);
        header.set_cksum();
        gzip(&[header.as_bytes(), data].concat())
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn long_names_are_copied_and_long_targets_are_left_out_with_their_links() {
        let long = "d/".repeat(200);
        let mut builder = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, format!("{long}link"), format!("/{long}")).unwrap();
        append(&mut builder, Path::new("short"), 2, &b"hi"[..]).unwrap();
        append(&mut builder, Path::new(&format!("{long}file")), 2, &b"hi"[..]).unwrap();
        let source = gzip(&builder.into_inner().unwrap());
        let mut archive = Vec::new();
        write(&[], [mail(&source)], &mut archive).unwrap();
        let root = "peers/mail/source";
        assert_eq!(names(&archive), [format!("{root}/short"), format!("{root}/{long}file")]);
    }

    #[test]
    fn what_an_agent_does_not_pack_is_refused() {
        let refusal = |kind, data: &[u8]| {
            let source = one("x", kind, data.len() as u64, data);
            write(&[], [mail(&source)], io::sink()).unwrap_err().to_string()
        };
        let error = refusal(EntryType::GNULongName, &vec![b'a'; 1 << 20]);
        assert!(error.contains("65536 bytes"), "{error}");
        let error = refusal(EntryType::GNULongName, &[b'a'; 512]);
        assert!(error.contains("without an entry"), "{error}");
        for kind in [EntryType::XHeader, EntryType::XGlobalHeader, EntryType::GNUSparse, EntryType::Fifo] {
            let error = refusal(kind, &[b'a'; 512]);
            assert!(error.contains("neither"), "{kind:?}: {error}");
        }
    }

    #[test]
    fn what_is_left_out_counts_as_read() {
        let source = one(".nvm/node", EntryType::Regular, 1 << 20, &vec![0; 1 << 20]);
        let copied = |unpacked| {
            let mut budget = Budget { entries: 1, bytes: 1, unpacked };
            copy(&mut Builder::new(io::sink()), mail(&source).unwrap(), &mut budget).map(|()| budget.unpacked)
        };
        assert_eq!(copied((1 << 20) + 1024).unwrap(), 512);
        let error = copied(1 << 20).unwrap_err();
        assert!(error.to_string().contains("provider are too many or too large"), "{error}");
    }

    #[test]
    fn a_file_that_ends_early_does_not_take_the_next_source_for_its_content() {
        let short = one("f", EntryType::Regular, 512, b"");
        let next = packed(&[("g", EntryType::Regular)]);
        let mut archive = Vec::new();
        let error = write(&[], [mail(&short), mail(&next)], &mut archive).unwrap_err();
        assert_eq!(error.to_string(), "Peer alias mail: an entry ends early");
        assert!(archive.starts_with(b"peers/mail/source/f\0"));
        assert!(archive[512..].iter().all(|byte| *byte == 0), "only the end of the archive follows");
    }

    #[test]
    fn a_provider_that_is_lost_is_no_fault_of_its_files() {
        let broken = Archive::new(io::empty().chain(Broken)).entries().unwrap().next().unwrap().err().unwrap();
        for (error, lost) in
            [(broken, true), (io::Error::other(GuestError::Timeout), true), (io::Error::other("x"), false)]
        {
            let told = of_peer(&Alias::new("mail").unwrap(), error).downcast::<Error>().unwrap();
            assert_eq!(matches!(told, Error::BadGateway(_)), lost, "{told:?}");
            assert!(told.to_string().starts_with("Peer alias mail: "), "{told}");
        }
        let taken = of_peer(&Alias::new("mail").unwrap(), io::ErrorKind::BrokenPipe.into());
        assert_eq!(taken.kind(), io::ErrorKind::BrokenPipe);
    }

    struct Broken;

    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other(GuestError::Timeout))
        }
    }

    #[test]
    fn only_plain_paths_are_kept() {
        assert_eq!(kept(Path::new("./a/b")).unwrap(), Some("a/b".into()));
        assert_eq!(kept(Path::new(".")).unwrap(), None);
        assert_eq!(kept(Path::new(OsStr::from_bytes(b"a/caf\xe9/b"))).unwrap(), None);
        assert!(kept(Path::new("a/../b")).is_err() && kept(Path::new("/a")).is_err());
        assert!(kept(Path::new(&"a/".repeat(DEPTH))).is_ok() && kept(Path::new(&"a/".repeat(DEPTH + 1))).is_err());
    }
}
