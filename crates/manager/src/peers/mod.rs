//! Peers: consumers call what providers declare, and nothing else passes between VMs.
//!
//! [`sync`] puts in place what a consumer sees of its providers; [`call`] makes one call, whichever of its two doors it
//! came by: the channel out of the consumer's VM, or the HTTP API with the bearer token of the consumer's present start.
//! [`provider`] keeps what providers declared. What can be decided without touching the world is decided in `rds_peers`.
//! This module must not know HTTP, nor how VMs are started.

mod approvals;
mod call;
mod failure;
mod large;
pub(crate) mod link;
mod pieces;
mod provider;
mod room;
mod sync;
pub(crate) mod token;
mod trees;
mod usage;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use rds_peers::strike::Striker;
use rds_protocol::link::History;
use rds_vmm::guest::outbound::{self, Answer, Reply};
use rds_vmm::{Hypervisor, VmId};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::Instrument as _;
use uuid::Uuid;

pub use approvals::PendingCall;
pub use call::CallResult;
pub use failure::{CallError, CallFailure};
pub use link::{PatchLink, PeerLink};

use crate::activity::Activity;
use crate::audit::Audit;
use crate::error::{Result, retry_seconds};
use crate::secrets::Sealer;
use crate::vms::directory::Directory;
use crate::vms::record::Sealed;

use approvals::{Approvals, Told};
use provider::Providers;
use room::Rooms;
use usage::Counts;

/// The service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Peers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: Directory,
    providers: Arc<Providers>,
    counts: Counts,
    rooms: Rooms,
    approvals: Approvals,
    told: Told,
    audit: Audit,
    activity: Activity,
    /// Done when no more calls are to be made.
    closing: CancellationToken,
    /// The calls that are under way.
    under_way: TaskTracker,
}

impl Peers {
    pub(crate) fn new(directory: Directory, sealer: Option<Arc<Sealer>>, audit: Audit, activity: Activity) -> Self {
        let providers = Arc::new(Providers::new(directory.clone(), sealer));
        let (counts, rooms) = (Counts::default(), Rooms::default());
        let (approvals, told) = (Approvals::default(), Told::default());
        let (closing, under_way) = (CancellationToken::new(), TaskTracker::new());
        let inner = Inner { directory, providers, counts, rooms, approvals, told, audit, activity, closing, under_way };
        Self(Arc::new(inner))
    }

    /// Refuses calls from now on and gives up those under way. When it is done, the audit log has been told of all.
    pub async fn close(&self) {
        self.0.closing.cancel();
        self.0.under_way.close();
        self.0.under_way.wait().await;
    }

    /// Answers the calls that come out of a consumer's VM until the handle is dropped.
    pub(crate) fn serve(
        &self,
        consumer: VmId,
        hypervisor: Arc<dyn Hypervisor>,
        dir: PathBuf,
        history: History,
    ) -> AbortOnDropHandle<()> {
        let answer = Arc::new(Channel { peers: self.clone(), consumer });
        AbortOnDropHandle::new(tokio::spawn(async move { outbound::serve(&*hypervisor, &dir, history, answer).await }))
    }

    /// The consumer whose present start has this bearer token.
    pub fn by_token(&self, token: &str) -> Option<VmId> {
        self.0.directory.find(|live| live.settings.bridge.as_ref().is_some_and(|bridge| bridge.is(token)))
    }

    /// The calls that wait for a person, oldest first.
    pub fn pending(&self) -> Vec<PendingCall> {
        self.0.approvals.list()
    }

    /// Lets a waiting call go on, or refuses it.
    pub async fn decide(&self, id: &str, approved: bool) -> Result<()> {
        let call = self.0.approvals.answer(id, approved)?;
        let (kind, message) = match approved {
            true => ("vm.call_approved", "A call was approved"),
            false => ("vm.call_denied", "A call was denied"),
        };
        self.0.activity.record(kind, &call.consumer, message, None).await;
        Ok(())
    }

    /// What strikes one generation of a VM's secrets out.
    pub(crate) async fn striker(&self, id: VmId, sealed: &Sealed) -> Result<Arc<Striker>> {
        match self.0.providers.strikes(id).await?.of(sealed) {
            Some(known) => Ok(Arc::clone(known)),
            None => self.0.providers.striker(id, sealed).await,
        }
    }

    /// Holds no secrets of a VM any more that runs no more.
    pub(crate) fn withdraw(&self, id: VmId) {
        self.0.providers.withdraw(id);
    }

    /// Forgets a VM that is gone.
    pub(crate) fn forget(&self, id: VmId) {
        self.0.providers.forget(id);
        self.0.counts.forget(id);
        self.0.told.forget(id);
        self.0.rooms.forget(id);
    }
}

/// The channel out of one consumer: whatever comes by it is that consumer's.
struct Channel {
    peers: Peers,
    consumer: VmId,
}

#[async_trait::async_trait]
impl Answer for Channel {
    async fn answer(&self, body: Bytes) -> Reply {
        let id = Uuid::new_v4().to_string();
        let span = tracing::info_span!("request", id, consumer = %self.consumer);
        match self.peers.call(self.consumer, body).instrument(span).await {
            Ok(result) => Reply { status: 200, retry_after: None, body: result.into_json() },
            Err(failure) => {
                let failure = failure.of_request(|| Some(id));
                let retry_after = failure.retry_after.map(retry_seconds);
                Reply { status: failure.status, retry_after, body: to_json(&failure.body).into() }
            }
        }
    }

    fn refuse(&self, status: u16, message: &str) -> Reply {
        let body = to_json(&CallFailure::refused(status, "invalid_request", message).body);
        Reply { status, retry_after: None, body: body.into() }
    }
}

fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("values with string keys have a JSON form")
}
