//! What changes in a VM's life without its state changing: its secrets, its links and the calls of its code.

use std::sync::Arc;

use rds_protocol::link::History;
use rds_vmm::guest::GuestClient;
use tracing::Instrument as _;

use super::{Actor, Meanwhile, Next, Reply, Work};
use crate::egress::{NetworkPolicy, PatchNetwork};
use crate::error::{Chain, Error, Result};
use crate::peers::PatchLink;
use crate::peers::link::Link;
use crate::peers::token::BridgeToken;
use crate::secrets::SecretEnv;
use crate::vms::record::{Generations, Settings};
use crate::vms::row::{links_column, to_json};

/// What becomes of the answer when a sync fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effort {
    /// It is the error.
    Needed,
    /// What was asked for is done already.
    Best,
}

impl Actor {
    /// Writes new secrets down, sealed; they are `due` if there is an agent that is to get them.
    pub(super) async fn keep_secrets(&self, secrets: &SecretEnv, due: bool) -> Result<()> {
        let Generations { newest: replaced, held, .. } = self.live.borrow().settings.secrets.clone();
        let newest = self.host.seal(self.vm.id, secrets, replaced.version + 1)?;
        let held = held || !secrets.is_empty();
        let (id, version) = (self.vm.id.to_string(), i64::try_from(newest.version).unwrap_or(i64::MAX));
        self.host.store.set_vm_secrets(&id, newest.column().as_deref(), version, due, held).await?;
        self.publish(|live| live.settings.secrets = Generations { newest, replaced: Some(replaced), due, held });
        Ok(())
    }

    /// Replaces the secrets of a running VM. Who asked is told whether its agent took them. Until it does, they are given to it
    /// again, and whoever comes to the VM waits: nothing is begun with secrets that were replaced before.
    pub(super) async fn rotate(
        &mut self,
        secrets: &SecretEnv,
        guest: GuestClient,
        reply: Reply,
    ) -> std::result::Result<GuestClient, Next> {
        self.publish(|live| live.guest = None);
        let given = async {
            self.keep_secrets(secrets, true).await?;
            let newest = self.live.borrow().settings.secrets.newest.clone();
            self.host.give_secrets(self.vm.id, &newest, &guest).await
        };
        let given = given.instrument(reply.span.clone()).await;
        if given.is_ok() {
            self.confirm_secrets().await;
        }
        reply.answer(given);
        let guest = self.reach(Some(guest), History::Used, "Its machine ended by itself").await?;
        self.publish(|live| live.guest = Some(guest.clone()));
        Ok(guest)
    }

    /// Notes that the agent has the newest secrets, if they were due. A manager that finds it not written down gives it the
    /// same ones again.
    pub(super) async fn confirm_secrets(&self) {
        if !self.live.borrow().settings.secrets.due {
            return;
        }
        let id = self.vm.id.to_string();
        if let Err(error) = self.host.store.confirm_vm_secrets(&id).await {
            tracing::warn!(vm = id, error = %Chain(&error), "cannot write down that a VM has its new secrets");
        }
        self.publish(|live| live.settings.secrets.due = false);
        self.record("vm.secrets_rotated", "VM got new secrets").await;
    }

    /// Changes what the VM may reach. It is written down first: a manager that dies in between makes it so when it starts.
    pub(super) async fn patch_network(&self, patch: PatchNetwork) -> Result<()> {
        let before = self.live.borrow().settings.network.clone();
        let network = before.patched(patch).checked(self.host.max_allow_ips)?;
        self.host.egress.check(&network)?;
        self.write_network(&network).await?;
        if let Err(error) =
            self.host.egress.change(self.vm.id, &network, self.vm.spec.limits.network_bytes_per_second).await
        {
            self.write_network(&before).await?;
            return Err(error);
        }
        self.publish(|live| live.settings.network = network);
        self.record("vm.network_changed", "What the VM may reach was changed").await;
        Ok(())
    }

    async fn write_network(&self, network: &NetworkPolicy) -> Result<()> {
        let (ips, domains) = (to_json(&network.allow_ips), to_json(&network.allow_domains));
        let id = self.vm.id.to_string();
        self.host.store.set_vm_network(&id, network.outbound_internet, &ips, &domains).await
    }

    /// Answers the calls of the VM's code from now on, if it has anybody to call.
    pub(super) fn serve_calls(&mut self, history: History) {
        let linked = !self.live.borrow().settings.links.is_empty();
        let (id, hypervisor) = (self.vm.id, &self.host.hypervisor);
        self.calls = linked.then(|| self.host.peers.serve(id, Arc::clone(hypervisor), self.host.dir(id), history));
    }

    /// The links with one changed.
    fn patched(&self, alias: &str, patch: &PatchLink) -> Result<Arc<[Link]>> {
        let mut links = self.live.borrow().settings.links.to_vec();
        let link = links.iter_mut().find(|link| link.alias.as_str() == alias);
        let link = link.ok_or_else(no_such_alias)?;
        *link = link.clone().patched(patch)?;
        Ok(links.into())
    }

    /// Changes a link. What a running VM sees of its peers is put in place anew if the change shows there.
    pub(super) async fn patch_link(
        &mut self,
        alias: &str,
        patch: &PatchLink,
        guest: Option<&GuestClient>,
        reply: Reply,
    ) -> Option<Next> {
        let links = match self.patched(alias, patch) {
            Ok(links) => links,
            Err(error) => {
                reply.answer(Err(error));
                return None;
            }
        };
        let bridge = self.live.borrow().settings.bridge.clone();
        // One that names the mode it is in asks for a sync all the same (section 7 of the wire contract).
        match guest.filter(|_| patch.names_a_mode()) {
            Some(guest) => self.sync_peers(links, guest, reply, Effort::Needed).await,
            None => {
                let kept = self.keep_links(links, bridge).await;
                reply.answer(kept);
                None
            }
        }
    }

    /// Takes a link away: its calls are refused as soon as that is written down. What the VM sees follows if it can; a provider
    /// that is down must not keep another one in reach. With the last link the token of the present start dies.
    pub(super) async fn unlink(&mut self, alias: &str, guest: Option<&GuestClient>, reply: Reply) -> Option<Next> {
        let Settings { links: before, bridge, .. } = self.live.borrow().settings.clone();
        let links: Arc<[Link]> = before.iter().filter(|link| link.alias.as_str() != alias).cloned().collect();
        if links.len() == before.len() {
            reply.answer(Err(no_such_alias()));
            return None;
        }
        let bridge = bridge.filter(|_| !links.is_empty());
        let kept = self.keep_links(Arc::clone(&links), bridge).await;
        let (Some(guest), Ok(())) = (guest, &kept) else {
            reply.answer(kept);
            return None;
        };
        self.sync_peers(links, guest, reply, Effort::Best).await
    }

    /// Writes links down, and the token of the present start.
    async fn keep_links(&self, links: Arc<[Link]>, bridge: Option<BridgeToken>) -> Result<()> {
        let hash = bridge.as_ref().map(BridgeToken::hash_hex);
        self.host.store.set_vm_links(&self.vm.id.to_string(), &links_column(&links), hash.as_deref()).await?;
        self.publish(|live| {
            live.settings.links = links;
            live.settings.bridge = bridge;
        });
        Ok(())
    }

    /// Puts the peers of a running VM in place anew, and keeps the links if that could be done.
    pub(super) async fn sync_peers(
        &mut self,
        links: Arc<[Link]>,
        guest: &GuestClient,
        reply: Reply,
        effort: Effort,
    ) -> Option<Next> {
        // A manager that was started meanwhile knows the hash of the old one alone.
        let known = self.live.borrow().settings.bridge.clone().filter(|bridge| bridge.secret().is_some());
        let bridge = known.unwrap_or_else(BridgeToken::new);
        let (host, guest) = (Arc::clone(&self.host), guest.clone());
        let (links_too, bridge_too) = (Arc::clone(&links), bridge.clone());
        let work = async move {
            let prepared = host.peers.prepare(&links_too).await?;
            host.peers.install(&guest, prepared, &bridge_too).await
        };
        match self.unless_deleted(Meanwhile::Defer, work.instrument(reply.span.clone())).await {
            Work::Done(Ok(())) => {
                let bridge = (!links.is_empty()).then_some(bridge);
                let kept = self.keep_links(links, bridge).await;
                reply.answer(kept);
                None
            }
            Work::Done(Err(error)) if effort == Effort::Best => {
                tracing::warn!(vm = %self.vm.id, error = %Chain(&error), "a VM still sees a peer that it may not call any more");
                reply.answer(Ok(()));
                None
            }
            Work::Done(Err(error)) => {
                reply.answer(Err(error));
                None
            }
            Work::Deleted(deleter) => {
                reply.answer(Err(Error::conflict("The VM was deleted")));
                Some(Next::Remove(Some(deleter)))
            }
            Work::Leave => Some(Next::Leave),
        }
    }

    /// Nothing reaches the guest from here on, and nothing of this start comes out of it: its token is dead.
    pub(super) fn withdraw(&mut self) {
        self.calls = None;
        // Whoever comes to the gate is told that there is nobody.
        self.uses.open();
        self.publish(|live| {
            live.guest = None;
            live.settings.bridge = None;
        });
        self.host.peers.withdraw(self.vm.id);
    }
}

fn no_such_alias() -> Error {
    Error::not_found("The VM has no peer of this alias")
}
