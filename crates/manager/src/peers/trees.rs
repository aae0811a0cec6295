//! The files that tell a consumer's code about its peers, as the archive that its agent unpacks.

use std::io::{self, Read, Write};
use std::path::{Component, Path};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use futures_util::Stream;
use rds_peers::codegen::GeneratedFile;
use rds_peers::manifest::Alias;
use rds_protocol::limits::UNPACKED_BYTES;
use tar::{Archive, Builder, EntryType, Header};
use tokio::sync::mpsc;

/// What a copy of a provider's files leaves out: what is not code, and what is about that VM alone.
const LEFT_OUT: [&str; 5] = [".rds", ".deno", ".tmp", ".nvm", "peers"];

/// Files of all copies together; the consumer's agent takes a few more.
const ENTRIES: usize = 45_000;

/// Bytes of a piece of the archive on its way.
const PIECE: usize = 64 * 1024;

/// Pieces that wait to be sent.
const PIECES: usize = 4;

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
    let mut budget = Budget { entries: ENTRIES, bytes: UNPACKED_BYTES };
    for source in sources {
        copy(&mut builder, source?, &mut budget)?;
    }
    builder.into_inner()?.flush()
}

struct Budget {
    entries: usize,
    bytes: u64,
}

fn copy<R: Read>(builder: &mut Builder<impl Write>, source: Source<R>, budget: &mut Budget) -> io::Result<()> {
    let root = Path::new("peers").join(source.alias.as_str()).join("source");
    let mut archive = Archive::new(MultiGzDecoder::new(source.archive));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        if !matches!(kind, EntryType::Regular | EntryType::Directory) {
            continue;
        }
        let path = entry.path()?.into_owned();
        let Some(path) = kept(&path)? else { continue };
        let bytes = entry.size();
        let too_large = || io::Error::other(format!("the files of peer {} are too many or too large", source.alias));
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
    Ok(())
}

/// A path of the copy; `None` for the root itself and for what is left out.
fn kept(path: &Path) -> io::Result<Option<std::path::PathBuf>> {
    let mut plain = std::path::PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            _ => return Err(io::Error::other("a provider's agent named a file outside /workspace")),
        }
    }
    let left_out = plain.components().next().is_none_or(|first| LEFT_OUT.iter().any(|name| first.as_os_str() == *name));
    Ok((!left_out).then_some(plain))
}

fn append(builder: &mut Builder<impl Write>, path: &Path, bytes: u64, data: impl Read) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_size(bytes);
    header.set_mode(0o644);
    builder.append_data(&mut header, path, data)
}

/// What is written becomes a stream's pieces.
pub(super) struct Pieces {
    to: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Pieces {
    /// The writer, and the stream of what is written to it.
    pub(super) fn new() -> (Self, impl Stream<Item = io::Result<Bytes>> + Send + 'static) {
        let (to, from) = mpsc::channel(PIECES);
        (Self { to, piece: Vec::new() }, tokio_stream::wrappers::ReceiverStream::new(from))
    }

    fn send(&mut self) -> io::Result<()> {
        let piece = Bytes::from(std::mem::take(&mut self.piece));
        self.to.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Breaks the stream off, so that nobody takes it for a whole one.
    pub(super) fn break_off(to: &mpsc::Sender<io::Result<Bytes>>, why: &io::Error) {
        let _ = to.blocking_send(Err(io::Error::other(why.to_string())));
    }

    /// For [`Self::break_off`] after the writer is gone.
    pub(super) fn sender(&self) -> mpsc::Sender<io::Result<Bytes>> {
        self.to.clone()
    }
}

impl Write for Pieces {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(data);
        if self.piece.len() >= PIECE {
            self.send()?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() { Ok(()) } else { self.send() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;

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

    #[test]
    fn only_plain_paths_are_kept() {
        assert_eq!(kept(Path::new("./a/b")).unwrap(), Some("a/b".into()));
        assert_eq!(kept(Path::new(".")).unwrap(), None);
        assert!(kept(Path::new("a/../b")).is_err() && kept(Path::new("/a")).is_err());
    }
}
