//! Putting a consumer's peers in place: first everything that its providers have to say, then the files in the consumer.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::future::try_join_all;
use rds_peers::codegen::{GeneratedFile, IndexEntry, SourceMode, index, peer_tree};
use rds_peers::manifest::Alias;
use rds_peers::runtime::{self, Bridge};
use rds_protocol::peer::{INVOKE, OpenBridge};
use rds_vmm::VmId;
use rds_vmm::guest::GuestClient;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::Peers;
use super::large;
use super::link::Link;
use super::pieces::Pieces;
use super::provider::Contract;
use super::token::BridgeToken;
use super::trees::{self, Source};
use crate::error::{Error, Result};

/// How long an agent may take to open its bridge.
const BRIDGE_LIMIT: Duration = Duration::from_secs(30);

/// How long all files of a consumer's peers may take to get there.
const TREES_LIMIT: Duration = Duration::from_secs(300);

/// Bytes of a provider's packed files. What they unpack to is bounded too.
const SOURCE_BYTES: u64 = 256 * 1024 * 1024;

/// What a consumer is going to be told, made while it may still be booting.
#[derive(Debug)]
pub(crate) struct Prepared {
    files: Vec<GeneratedFile>,
    sources: Vec<(Alias, VmId)>,
    linked: bool,
}

impl Peers {
    /// Looks at the providers of all links. The first fault is the error.
    pub(crate) async fn prepare(&self, links: &[Link]) -> Result<Prepared> {
        let look = |link: &Link| {
            let (alias, provider) = (link.alias.clone(), link.provider);
            async move { self.0.providers.refresh(&alias, provider).await }
        };
        let contracts = try_join_all(links.iter().map(look)).await?;
        let linked: Vec<_> = links.iter().cloned().zip(contracts).collect();
        let files = large::work(true, move || generated(&linked)).await??;
        let mounted = links.iter().filter(|link| link.source_mode == SourceMode::Mounted);
        let sources = mounted.map(|link| (link.alias.clone(), link.provider)).collect();
        Ok(Prepared { files, sources, linked: !links.is_empty() })
    }

    /// Puts the files in place, and has the consumer's agent take calls with `token`.
    pub(crate) async fn install(&self, guest: &GuestClient, prepared: Prepared, token: &BridgeToken) -> Result<()> {
        let Prepared { mut files, sources, linked } = prepared;
        if linked && let Some(secret) = token.secret() {
            let order = OpenBridge { token: secret.to_owned() };
            let port = guest.open_bridge(&order, BRIDGE_LIMIT).await?.port;
            let url = format!("http://127.0.0.1:{port}{INVOKE}");
            files.extend(runtime::files(&Bridge { url, token: order.token }));
        }
        let (pieces, archive) = Pieces::new();
        let (peers, runtime) = (self.clone(), Handle::current());
        let writer = spawn_blocking(move || {
            let to = pieces.sender();
            let sources = sources.into_iter().map(|(alias, provider)| peers.open_source(&runtime, alias, provider));
            trees::write(&files, sources, pieces).inspect_err(|error| Pieces::break_off(&to, error))
        });
        let put = guest.put_trees(archive, TREES_LIMIT).await;
        let written =
            writer.await.map_err(|error| Error::internal("the task that writes peers' files ended", error))?;
        match (put, written) {
            // Then the writer was told so, too.
            (Err(error), Err(written)) if written.kind() == io::ErrorKind::BrokenPipe => Err(error.into()),
            (_, Err(written)) => Err(written
                .downcast()
                .unwrap_or_else(|error| Error::internal("cannot put a VM's peers together", error))),
            (put, Ok(())) => Ok(put?),
        }
    }

    /// A provider's files. Blocks.
    fn open_source(&self, runtime: &Handle, alias: Alias, provider: VmId) -> io::Result<Source<impl Read + use<>>> {
        let opened = runtime.block_on(async {
            let guest = self.0.providers.guest(&alias, provider).await?;
            let download = guest.get_archive("/workspace", SOURCE_BYTES, TREES_LIMIT).await;
            let lost = |error| Error::BadGateway(format!("Peer alias {alias}: its files cannot be read: {error}"));
            Ok::<_, Error>((download.map_err(lost)?, guest))
        });
        let (download, guest) = opened.map_err(io::Error::other)?;
        let in_use = move |_: &_| {
            let _guest = &guest;
        };
        let stream = download.into_stream().inspect_ok(in_use).map_err(io::Error::other);
        let archive = SyncIoBridge::new_with_handle(StreamReader::new(stream), runtime.clone());
        Ok(Source { alias, archive })
    }
}

/// All that is made from manifests. Takes as long as these are hostile.
fn generated(linked: &[(Link, Arc<Contract>)]) -> Result<Vec<GeneratedFile>> {
    let mut entries = Vec::new();
    let mut files = Vec::new();
    for (link, contract) in linked {
        entries.push(IndexEntry::new(&link.alias, &contract.manifest, link.source_mode));
        let tree = peer_tree(&link.alias, &contract.manifest);
        files.extend(tree.map_err(|fault| Error::Invalid(fault.for_alias(&link.alias)))?);
    }
    files.push(index(&entries));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_knows_the_index_of_a_vm_without_peers() {
        assert_eq!(index(&[]).contents, rds_protocol::peer::NO_PEERS);
    }
}
