//! Takes an upload to the disk: a few chunks in memory at a time, its checksum on the way, removed if it breaks off.

use std::io::{self, BufWriter, Read, Seek as _, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::error::{Error, Result};

/// Chunks between the network and the disk.
const CHUNKS: usize = 8;
/// How long an upload may bring nothing at all.
const STANDSTILL: Duration = Duration::from_secs(60);
const BUFFER_BYTES: usize = 256 * 1024;
const HOLE_BYTES: usize = 64 * 1024;

/// A whole file in the directory for unfinished things; it goes when this is dropped.
#[derive(Debug)]
pub(super) struct Received {
    file: NamedTempFile,
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

impl Received {
    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Puts the file in its place, where every VM's process may read it. The directory has yet to be synchronized.
    pub(super) fn move_to(self, to: &Path) -> io::Result<()> {
        self.file.as_file().set_permissions(PermissionsExt::from_mode(0o644))?;
        self.file.persist(to).map_err(|error| error.error)?;
        Ok(())
    }
}

/// Takes a stream of so many bytes at most to the disk.
pub(super) async fn receive<E>(
    stream: impl Stream<Item = Result<Bytes, E>>,
    limit: u64,
    tmp: &Path,
) -> Result<Received> {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let tmp = tmp.to_owned();
    let writer = tokio::task::spawn_blocking(move || write(Chunks { receiver, rest: Bytes::new() }, &tmp));
    let mut stream = std::pin::pin!(stream);
    let mut total = 0;
    let late = |_| Error::invalid("The upload came to a standstill");
    while let Some(chunk) = timeout(STANDSTILL, stream.next()).await.map_err(late)? {
        let chunk = chunk.map_err(|_| Error::invalid("The upload broke off"))?;
        total += chunk.len() as u64;
        if total > limit {
            return Err(Error::TooLarge { limit });
        }
        if sender.send(chunk).await.is_err() {
            // The writer has failed; its result says why.
            break;
        }
    }
    drop(sender);
    writer.await.map_err(|error| Error::internal("the upload's writer failed", error))?
}

/// Writes to a new file until the end, which the caller bounds.
pub(super) fn write(mut from: impl Read, tmp: &Path) -> Result<Received> {
    let mut write = || -> io::Result<Received> {
        let file = NamedTempFile::new_in(tmp)?;
        let sparse = BufWriter::with_capacity(BUFFER_BYTES, Sparse(file));
        let mut out = Hashing { to: sparse, hash: Sha256::new() };
        let bytes = io::copy(&mut from, &mut out)?;
        let Sparse(file) = out.to.into_inner().map_err(|error| error.into_error())?;
        file.as_file().set_len(bytes)?;
        file.as_file().sync_all()?;
        Ok(Received { file, bytes, sha256: hex::encode(out.hash.finalize()) })
    };
    write().map_err(|error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::Unavailable("The server's disk is full".into())
        }
        io::ErrorKind::InvalidData
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::Unsupported => Error::invalid(format!("The upload is damaged: {error}")),
        _ => Error::internal("cannot store an upload", error),
    })
}

struct Hashing<W> {
    to: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.to.write(data)?;
        self.hash.update(data.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Leaves holes where there are only zeros, as in most of a root filesystem's image. Its end may be a hole too, so the
/// file's length must be set afterwards.
struct Sparse(NamedTempFile);

impl Write for Sparse {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let block = data.get(..HOLE_BYTES).unwrap_or(data);
        if block.iter().all(|byte| *byte == 0) {
            self.0.seek_relative(block.len() as i64)?;
        } else {
            self.0.write_all(block)?;
        }
        Ok(block.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The network's chunks as a file to read.
struct Chunks {
    receiver: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl Read for Chunks {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.rest = chunk,
                None => return Ok(0),
            }
        }
        let taken = self.rest.split_to(self.rest.len().min(into.len()));
        into[..taken.len()].copy_from_slice(&taken);
        Ok(taken.len())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn zeros_take_no_room_and_nothing_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let mut data = vec![0; 3_000_001];
        data[1_000_003] = 1;
        let received = write(data.as_slice(), dir.path()).unwrap();
        assert_eq!(received.bytes, 3_000_001);
        assert_eq!(received.sha256, hex::encode(Sha256::digest(&data)));
        assert!(received.file.as_file().metadata().unwrap().blocks() * 512 < 300_000);
        let to = dir.path().join("there");
        received.move_to(&to).unwrap();
        assert!(std::fs::read(&to).unwrap() == data);
    }
}
