//! A VM's files. Paths are checked here by their spelling and by the agent where they lead.

use std::io::{self, Seek};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use rds_protocol::files::{Listing, Stat};
use rds_protocol::limits::{ARCHIVE_BYTES, UNPACKED_BYTES};
use rds_vmm::VmId;
use rds_vmm::guest::{Download, GuestError};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::io::ReaderStream;

use super::uses::Lease;
use super::{Vms, archive};
use crate::error::{Error, Result};

/// How long one transfer may take.
const TRANSFER_LIMIT: Duration = Duration::from_secs(300);

/// How long an upload may bring nothing at all.
const STANDSTILL: Duration = Duration::from_secs(60);

/// How long a look at a file or directory may take.
const LOOK_LIMIT: Duration = Duration::from_secs(30);

/// Bytes of a download. More than a whole archive can unpack to, so that what went in comes out.
const DOWNLOAD_BYTES: u64 = 4 * UNPACKED_BYTES;

/// Longest path in bytes, as in Linux (`PATH_MAX`).
const MAX_PATH: usize = 4096;

/// A piece of a file; an error is the last one.
pub type Piece = std::result::Result<Bytes, GuestError>;

/// A download as a stream. The VM is in use until it ends.
fn content(download: Download, guest: Lease) -> impl Stream<Item = Piece> + Send + Unpin {
    download.into_stream().inspect(move |_| {
        let _in_use = &guest;
    })
}

impl Vms {
    /// Unpacks a tar.gz into a directory under `/workspace`. It is checked whole before the guest sees a byte of it.
    pub async fn upload(
        &self,
        id: VmId,
        dest: &str,
        body: impl Stream<Item = io::Result<Bytes>> + Send + Unpin,
    ) -> Result<()> {
        let dest = workspace_path("dest", dest)?;
        let spooled = self.spool(id, body).await?;
        let checked = spawn_blocking(move || {
            archive::check(&spooled)?;
            Ok::<_, Error>(spooled)
        });
        let mut file =
            checked.await.map_err(|error| Error::internal("the task that checks an archive ended", error))??;
        file.rewind().map_err(|error| Error::internal("cannot read an archive again", error))?;
        let content = ReaderStream::with_capacity(tokio::fs::File::from_std(file), 64 * 1024);
        let guest = self.guest(id).await?;
        Ok(guest.put_archive(&dest, content, TRANSFER_LIMIT).await?)
    }

    /// The contents of a directory under `/workspace`, or one file, as a tar.gz.
    pub async fn download(&self, id: VmId, path: &str) -> Result<impl Stream<Item = Piece> + Send + Unpin + use<>> {
        let path = workspace_path("path", path)?;
        let guest = self.guest(id).await?;
        Ok(content(guest.get_archive(&path, DOWNLOAD_BYTES, TRANSFER_LIMIT).await?, guest))
    }

    /// Writes one file under `/workspace`; its directories are made.
    pub async fn write_file(
        &self,
        id: VmId,
        path: &str,
        executable: bool,
        body: impl Stream<Item = io::Result<Bytes>> + Send + Unpin,
    ) -> Result<()> {
        let path = workspace_path("path", path)?;
        let file = self.spool(id, body).await?;
        let content = ReaderStream::with_capacity(tokio::fs::File::from_std(file), 64 * 1024);
        let guest = self.guest(id).await?;
        Ok(guest.put_content(&path, executable, content, TRANSFER_LIMIT).await?)
    }

    /// The bytes of one file under `/workspace`.
    pub async fn read_file(&self, id: VmId, path: &str) -> Result<impl Stream<Item = Piece> + Send + Unpin + use<>> {
        let path = workspace_path("path", path)?;
        let guest = self.guest(id).await?;
        Ok(content(guest.get_content(&path, DOWNLOAD_BYTES, TRANSFER_LIMIT).await?, guest))
    }

    /// What a path under `/workspace` is.
    pub async fn stat_file(&self, id: VmId, path: &str) -> Result<Stat> {
        let path = workspace_path("path", path)?;
        Ok(self.guest(id).await?.stat(&path, LOOK_LIMIT).await?)
    }

    /// What a directory under `/workspace` holds.
    pub async fn list_files(&self, id: VmId, path: &str) -> Result<Listing> {
        let path = workspace_path("path", path)?;
        Ok(self.guest(id).await?.list(&path, LOOK_LIMIT).await?)
    }

    /// Takes in what a VM is to be given. The VM is not in use meanwhile: how long that takes is the client's choice.
    async fn spool(
        &self,
        id: VmId,
        body: impl Stream<Item = io::Result<Bytes>> + Send + Unpin,
    ) -> Result<std::fs::File> {
        // A VM that takes nothing is told of at once.
        drop(self.guest(id).await?);
        spool(&self.0.host.storage.tmp_dir(), body, ARCHIVE_BYTES).await
    }
}

/// Keeps a body in a file without a name, at its beginning, so that memory stays flat and nothing is left behind.
async fn spool(
    tmp: &Path,
    mut body: impl Stream<Item = io::Result<Bytes>> + Send + Unpin,
    limit: u64,
) -> Result<std::fs::File> {
    let failed = |error| Error::internal("cannot keep an upload", error);
    let tmp = tmp.to_owned();
    let file = spawn_blocking(move || tempfile::tempfile_in(tmp)).await;
    let file = file.map_err(|error| Error::internal("the task that opens a file ended", error))?.map_err(failed)?;
    let mut file = tokio::fs::File::from_std(file);
    let mut length = 0;
    let late = |_| Error::invalid("The upload came to a standstill");
    while let Some(piece) = timeout(STANDSTILL, body.next()).await.map_err(late)? {
        let piece = piece.map_err(|_| Error::invalid("The upload broke off"))?;
        length += piece.len() as u64;
        // Read to its end all the same, so that a simple client sees the answer; the server bounds how much.
        if length <= limit {
            file.write_all(&piece).await.map_err(failed)?;
        } else if length > 4 * limit {
            break;
        }
    }
    if length > limit {
        return Err(Error::TooLarge { limit });
    }
    file.flush().await.map_err(failed)?;
    file.rewind().await.map_err(failed)?;
    Ok(file.into_std().await)
}

/// A path under `/workspace`, absolute and without `.`, `..` and doubled slashes. Relative ones are relative to it.
///
/// `/home/user` is the same place in a guest, and is refused like any other path (section 4 of the wire contract).
pub(super) fn workspace_path(field: &str, path: &str) -> Result<String> {
    let fault = |what: &str| Err(Error::Invalid(format!("{field} {what}")));
    if path.is_empty() || path.contains('\0') || path.len() > MAX_PATH {
        return fault("must be a path under /workspace");
    }
    let absolute = if path.starts_with('/') { path.to_owned() } else { format!("/workspace/{path}") };
    let mut parts = Vec::new();
    for part in absolute.split('/') {
        match part {
            "" | "." => {}
            ".." => return fault("must not contain '..'"),
            name => parts.push(name),
        }
    }
    match parts.first() {
        Some(&"workspace") => Ok(format!("/{}", parts.join("/"))),
        _ => fault("must be under /workspace"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_workspace_has_paths() {
        for (path, expected) in [
            ("/workspace", "/workspace"),
            ("/workspace/", "/workspace"),
            ("//workspace//a/./b/", "/workspace/a/b"),
            ("a/b c", "/workspace/a/b c"),
            ("/workspace/...", "/workspace/..."),
        ] {
            assert_eq!(workspace_path("path", path).unwrap(), expected);
        }
        for path in
            ["", "/", "/home/user", "/home/user/x", "..", "/workspace/..", "/workspaces", "a/../b", "a\0", "/etc"]
        {
            assert!(workspace_path("path", path).is_err(), "{path:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_stands_still_ends() {
        let dir = tempfile::tempdir().unwrap();
        let begun = tokio::time::Instant::now();
        let first = futures_util::stream::iter([Ok(Bytes::from_static(b"a"))]);
        let stuck = spool(dir.path(), first.chain(futures_util::stream::pending()), 10).await;
        assert!(matches!(&stuck, Err(Error::Invalid(why)) if why.contains("standstill")), "{stuck:?}");
        assert!(begun.elapsed() >= STANDSTILL);
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_plain(path in "[a./\\\\ ~%0wokspce-]{0,40}|.{0,40}") {
            if let Ok(plain) = workspace_path("path", &path) {
                prop_assert!(plain == "/workspace" || plain.starts_with("/workspace/"));
                prop_assert!(plain.split('/').skip(1).all(|part| !matches!(part, "" | "." | "..")));
                prop_assert_eq!(workspace_path("path", &plain).unwrap(), plain);
            }
        }
    }
}
