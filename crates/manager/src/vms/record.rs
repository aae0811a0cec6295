//! What is known of a VM: the part that never changes, and the part that does.

use std::iter;
use std::sync::Arc;

use rds_vmm::VmId;
use rds_vmm::guest::GuestClient;

use super::last_start::LastStart;
use super::request::NewVm;
use super::state::VmState;
use crate::egress::NetworkPolicy;
use crate::error::{Error, Result};
use crate::peers::link::Link;
use crate::peers::token::BridgeToken;
use crate::secrets::{Sealer, SecretEnv};

/// The part of a VM that never changes after its creation.
#[derive(Debug, Clone)]
pub struct VmRecord {
    /// Its identity.
    pub id: VmId,
    /// What was asked for.
    pub spec: NewVm,
    /// The image it runs on.
    pub image_id: String,
    /// What its disk is made from; not known any more once it was made.
    pub base: Option<Base>,
    /// What it began as.
    pub provision: Provision,
    /// A small number that no other living VM has; names derived from it never collide.
    pub host_index: u32,
    /// Milliseconds since the Unix epoch.
    pub created_at: i64,
}

/// What a VM's disk is made from, and its memory if it goes on from that.
#[derive(Debug, Clone)]
pub struct Base {
    /// A snapshot or a draft.
    pub id: String,
    /// What its memory depends on, if it has any.
    pub fits: Option<String>,
}

/// What a VM began as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provision {
    /// A machine that nothing had happened in.
    Boot,
    /// A copy of another VM's machine.
    Snapshot,
}

impl Provision {
    /// The word of the wire contract.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Snapshot => "snapshot",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        [Self::Boot, Self::Snapshot].into_iter().find(|provision| provision.as_str() == text)
    }
}

/// A VM's secrets, sealed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Sealed {
    /// `None` if it has none.
    pub bytes: Option<Arc<[u8]>>,
    /// Counts their replacements, from 1.
    pub version: u64,
}

impl Sealed {
    /// The secrets in clear, for as long as the caller keeps them.
    pub(crate) fn open(&self, sealer: Option<&Sealer>, vm: VmId) -> Result<SecretEnv> {
        match (&self.bytes, sealer) {
            (None, _) => Ok(SecretEnv::default()),
            (Some(bytes), Some(sealer)) => sealer.open(vm, bytes),
            (Some(_), None) => Err(Error::conflict("The VM has secrets, and the server runs without VM_SECRET_KEY")),
        }
    }
}

/// The secrets that a VM is to have, and those that its guest may have instead.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Generations {
    /// Those that were set last.
    pub newest: Sealed,
    /// Those that they replaced, if this manager replaced any.
    pub replaced: Option<Sealed>,
    /// The agent of its machine has not confirmed that it has the newest. Nothing else is asked of it before it does.
    pub due: bool,
    /// The machine of the present start has had some. They may be in its memory ever after: in programs that were given
    /// them, and where they were on the way.
    pub held: bool,
}

impl Generations {
    /// All that are known, newest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Sealed> {
        iter::once(&self.newest).chain(&self.replaced)
    }
}

/// What changes in a VM's life and is written down.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// Its secrets.
    pub secrets: Generations,
    /// The providers it is linked to.
    pub links: Arc<[Link]>,
    /// What it may reach.
    pub network: NetworkPolicy,
    /// The token of its present start, if it is linked to providers.
    pub bridge: Option<BridgeToken>,
    /// How it came up the last time.
    pub last_start: Option<LastStart>,
}

/// The part of a VM that changes, as its task publishes it.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub state: VmState,
    /// The connection to its agent; `None` while there is none or it lacks its newest secrets, which for a running VM is a
    /// short while.
    pub guest: Option<GuestClient>,
    /// Why it is in state ERROR, or why it is stopped though nobody asked.
    pub error: Option<String>,
    /// Its deletion was accepted: it is not to be found any more.
    pub deleted: bool,
    /// What is written down of it.
    pub settings: Settings,
}

impl VmRecord {
    /// What its memory goes on from.
    pub(super) fn copied_from(&self) -> Option<&Base> {
        self.base.as_ref().filter(|_| self.provision == Provision::Snapshot)
    }

    /// When the VM is to be deleted by itself, in milliseconds since the Unix epoch.
    pub fn expires_at(&self) -> Option<i64> {
        let ttl = i64::try_from(self.spec.ttl?.as_millis()).unwrap_or(i64::MAX);
        Some(self.created_at.saturating_add(ttl))
    }
}
