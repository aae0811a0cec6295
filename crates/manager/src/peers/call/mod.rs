//! A call: from what a consumer's code sent to what it gets back.
//!
//! The consumer is known by the channel or the token that the call came with; everything in the call itself is hostile.
//! Nothing of it reaches the provider before it fits what the manifest declares and what the link allows.

mod answer;
mod judge;
mod request;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rds_peers::audit::{Call as AuditCall, Outcome};
use rds_peers::manifest::ModulePath;
use rds_peers::policy::{Decision, Refusal};
use rds_protocol::peer::Call;
use rds_vmm::VmId;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::time::timeout_at;
use utoipa::ToSchema;

use super::Peers;
use super::approvals::{Question, Verdict};
use super::failure::CallFailure;
use super::large;
use super::link::Link;
use super::room::{Place, Room};
use super::to_json;
use crate::audit::Slot;
use crate::clock;
use crate::error::Error;
use crate::metrics;
use crate::vms::record::Settings;
use crate::vms::uses::Use;
use answer::{Answer, receive};
use judge::{Judge, refused, undeclared};
use request::{MAX_TIMEOUT_MS, Request};

/// How long a provider's agent may take to tell about a call whose own time limit has passed.
const GRACE: Duration = Duration::from_secs(5);

/// Characters of a name that was made up by a caller, in messages and in the audit log.
const SHOWN: usize = 128;

/// Characters of words about a value, which may hold pieces of it.
const WORDS: usize = 2000;

/// The result of a call, in the form of the wire.
#[derive(Debug, Serialize, ToSchema)]
pub struct CallResult {
    /// What the provider's function returned.
    #[schema(value_type = serde_json::Value)]
    pub result: Box<RawValue>,
    #[serde(skip)]
    taken: Taken,
}

/// What a call takes until its result has gone to whoever made it.
#[derive(Debug)]
struct Taken {
    _place: Arc<Place>,
    _room: Room,
    /// A consumer that waits for a result is not paused.
    _in_use: Option<Use>,
}

impl CallResult {
    /// Its JSON. What the call takes is given back when nobody has any of this.
    pub fn into_json(self) -> Bytes {
        Bytes::from_owner(Text { json: to_json(&self), _taken: self.taken })
    }
}

struct Text {
    json: Vec<u8>,
    _taken: Taken,
}

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        &self.json
    }
}

/// What the audit log will say of a call; it is written when this is dropped, however the call ended.
struct Record {
    slot: Option<Slot>,
    place: Arc<Place>,
    begun: Instant,
    /// What the caller is answered, unless it has gone.
    status: Option<u16>,
    entry: AuditCall,
}

impl Record {
    fn begin(slot: Slot, place: Arc<Place>, consumer: VmId) -> Self {
        let entry = AuditCall {
            time: clock::rfc3339(clock::now_ms()),
            consumer: consumer.to_string(),
            alias: String::new(),
            provider: None,
            module: String::new(),
            export: String::new(),
            args_bytes: 0,
            result_bytes: 0,
            duration_us: 0,
            // Unless it comes to an end of its own.
            outcome: Outcome::Cancelled,
            rule: None,
            secret_version: None,
            strikes: 0,
        };
        Self { slot: Some(slot), place, begun: Instant::now(), status: None, entry }
    }

    fn broke(&mut self, rules: &[Refusal]) {
        let before = self.entry.rule.take();
        let rules: Vec<&str> =
            before.iter().map(String::as_str).chain(rules.iter().map(|rule| rule.rule.as_str())).collect();
        self.entry.rule = Some(rules.join(","));
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let duration = self.begun.elapsed();
        metrics::peer_called(self.status, duration);
        if matches!(self.entry.outcome, Outcome::Returned | Outcome::Threw) {
            self.place.costs_nothing();
        }
        self.entry.duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        if let Some(slot) = self.slot.take() {
            slot.fill(self.entry.clone());
        }
    }
}

impl Peers {
    /// Makes a call for a consumer. Dropping the future cancels it, and so does [`Peers::close`].
    #[tracing::instrument(level = "debug", name = "peer_call", skip_all, fields(consumer = %consumer))]
    pub async fn call(&self, consumer: VmId, body: Bytes) -> Result<CallResult, CallFailure> {
        let _under_way = self.0.under_way.token();
        let made = self.0.closing.run_until_cancelled(self.recorded(consumer, body)).await;
        made.unwrap_or_else(|| Err(Error::Unavailable("The server is stopping".into()).into()))
    }

    async fn recorded(&self, consumer: VmId, body: Bytes) -> Result<CallResult, CallFailure> {
        let in_use = self.0.directory.call_out(consumer);
        let place = self.0.rooms.enter(consumer).await;
        let place = Arc::new(place.inspect_err(|refused| metrics::peer_called(Some(refused.status), Duration::ZERO))?);
        // While the log is behind, callers wait: no call goes unrecorded.
        let slot = self.0.audit.reserve().await.inspect_err(|_| place.costs_nothing())?;
        let mut record = Record::begin(slot, Arc::clone(&place), consumer);
        let made = self
            .attempt(consumer, body, &mut record)
            .await
            .map(|(result, room)| CallResult { result, taken: Taken { _place: place, _room: room, _in_use: in_use } });
        record.status = Some(made.as_ref().map_or_else(|failure| failure.status, |_| 200));
        record.entry.outcome = match &made {
            Ok(_) => Outcome::Returned,
            Err(failure) => {
                record.entry.rule = failure.body.rule.clone().or(record.entry.rule.take());
                failure.outcome
            }
        };
        made
    }

    /// The result, and its room.
    async fn attempt(
        &self,
        consumer: VmId,
        body: Bytes,
        record: &mut Record,
    ) -> Result<(Box<RawValue>, Room), CallFailure> {
        let begun = Instant::now();
        let request = large::work(large::is_long(body.len()), move || Request::parse(&body)).await??;
        record.entry.alias = short(&request.alias);
        record.entry.module = short(&request.module_path);
        record.entry.export = short(&request.export);
        let link = self.link(consumer, &request.alias)?;
        record.entry.provider = Some(link.provider.to_string());
        let limit = link.policy.time_limit(request.timeout);
        let mut deadline = begun + limit;

        // Before anything else is looked at: a provider that does not run has no say.
        let reached = async {
            let guest = self.0.providers.guest(&link.alias, link.provider).await?;
            Ok::<_, CallFailure>((guest, self.0.providers.contract(&link.alias, link.provider).await?))
        };
        let (mut guest, contract) = timeout_at(deadline.into(), reached).await.map_err(|_| late())??;
        let Ok(module) = ModulePath::from_absolute(&request.module_path) else {
            return Err(undeclared(&link, &record.entry.module, &record.entry.export));
        };
        let (export, args, counts) = (request.export, request.args, self.0.counts.clone());
        let judge = Arc::new(Judge { consumer, link, contract, module, export, args, counts });
        let Some((module, export, checker)) = judge.target() else {
            return Err(undeclared(&judge.link, &record.entry.module, &record.entry.export));
        };
        let link = &judge.link;
        record.entry.module = module.path.to_string();
        record.entry.args_bytes = judge.args.get().len() as u64;
        let (_running, decision) = Arc::clone(&judge).decide().await?;
        match &decision {
            Decision::Warn(rules) => record.broke(rules),
            Decision::NeedsApproval => {
                record.entry.rule = Some("approval".into());
                let (module, export) = (module.path.as_str(), export.name.as_str());
                self.approval(consumer, link, module, export, &judge.args, limit).await?;
                // Meanwhile the link may have been changed or taken away, and the provider stopped.
                if self.link(consumer, &request.alias)? != *link {
                    return Err(CallFailure::refused(403, "not_linked", "The link was changed while the call waited"));
                }
                deadline = Instant::now() + limit;
                let reached = self.0.providers.guest(&link.alias, link.provider);
                guest = timeout_at(deadline.into(), reached).await.map_err(|_| late())??;
            }
            Decision::Allow | Decision::Refuse(_) => {}
        }

        // Secrets may be replaced while the call is made: then both generations are struck out.
        let before = self.0.providers.strikes(link.provider).await?;
        record.entry.secret_version = Some(before.version());
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout_ms = u64::try_from(left.as_millis()).unwrap_or(MAX_TIMEOUT_MS);
        if timeout_ms == 0 {
            return Err(late());
        }
        let call = Call {
            module: module.path.absolute(),
            export: export.name.as_str().to_owned(),
            args: &judge.args,
            timeout_ms,
        };
        let made = guest.call(&call, |bytes| self.0.rooms.take(consumer, bytes), left + GRACE).await;
        let after = self.0.providers.strikes(link.provider).await.unwrap_or_else(|_| before.clone());
        let (reply, room) = match made {
            Ok((reply, room)) => (Ok(reply), room),
            Err(error) => (Err(error), Room::default()),
        };
        let Answer { result, strikes } = receive(reply, Arc::clone(checker), before.and(&after)).await?;
        record.entry.strikes = strikes;
        if strikes > 0 {
            tracing::warn!(%consumer, provider = %link.provider, strikes, "secrets were struck out of an answer");
        }
        let result = result?;
        let bytes = result.get().len() as u64;
        record.entry.result_bytes = bytes;
        match link.policy.decide_result(bytes) {
            Decision::Refuse(refusal) => return Err(refused(&refusal)),
            Decision::Warn(rules) => record.broke(&rules),
            Decision::Allow | Decision::NeedsApproval => {}
        }
        Ok((result, room))
    }

    /// A link of the present start of a consumer.
    fn link(&self, consumer: VmId, alias: &str) -> Result<Link, CallFailure> {
        let Settings { links, bridge, .. } = self.0.directory.handle(consumer)?.live.borrow().settings.clone();
        let link = links.iter().find(|link| link.alias.as_str() == alias && bridge.is_some()).cloned();
        link.ok_or_else(|| CallFailure::refused(403, "not_linked", "The VM is not linked to a peer of this alias"))
    }

    async fn approval(
        &self,
        consumer: VmId,
        link: &Link,
        module: &str,
        export: &str,
        args: &Arc<RawValue>,
        limit: Duration,
    ) -> Result<(), CallFailure> {
        let question = Question { consumer, alias: link.alias.as_str(), provider: link.provider, module, export, args };
        let by_rule = |mut failure: CallFailure| {
            failure.body.rule = Some("approval".into());
            Err(failure)
        };
        let Some(asked) = self.0.approvals.ask(&question) else {
            return by_rule(CallFailure::over_limit(limit, "Too many calls wait for approval"));
        };
        if let Some(untold) = self.0.told.news(consumer) {
            let alias = link.alias.as_str();
            let mut meta = json!({"approvalId": asked.id(), "alias": alias, "module": module, "export": export});
            let mut message = "A call waits for approval".to_owned();
            if untold > 0 {
                meta["untold"] = untold.into();
                message.push_str(&format!("; {untold} before it were not told of"));
            }
            self.0.activity.record("vm.approval_requested", &consumer.to_string(), message, Some(meta)).await;
        }
        match asked.verdict(limit).await {
            Verdict::Approved => Ok(()),
            Verdict::Denied => by_rule(CallFailure::refused(403, "policy", "A person denied the call")),
            Verdict::Late => by_rule(CallFailure::timed_out("Nobody approved the call in time")),
        }
    }
}

fn late() -> CallFailure {
    CallFailure::timed_out("The peer did not answer in time")
}

/// A name that a caller made up.
fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}

/// The beginning of a text.
fn bounded(text: &str, longest: usize) -> String {
    text.chars().take(longest).collect()
}
