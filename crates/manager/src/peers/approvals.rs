//! Calls that wait for a person. They are held in memory alone: a call does not outlive the connection it came by.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rds_vmm::VmId;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::clock;
use crate::error::{Error, Result};

/// Calls that wait at once. Further ones are refused.
const WAITING: usize = 64;

/// Of one VM: its calls do not keep those of others from being seen.
const WAITING_OF_ONE: usize = 16;

/// Questions of one VM that the activity log tells of in a [`DAY`], one by one: a guest decides how many it asks, and the log
/// keeps the newest events of all.
const MOST_TOLD: u64 = 100;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A call that waits for a person.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PendingCall {
    /// What an answer names.
    pub id: String,
    /// RFC 3339, milliseconds, `Z`.
    #[schema(format = DateTime)]
    pub requested_at: String,
    /// The VM whose code calls.
    pub consumer: String,
    /// The alias it calls.
    pub alias: String,
    /// The VM behind the alias.
    pub provider: String,
    /// The module, relative to `/workspace`.
    pub module: String,
    /// The export.
    pub export: String,
    /// The arguments, so that a person can decide.
    #[schema(value_type = Vec<serde_json::Value>)]
    #[serde(serialize_with = "raw")]
    pub args: Arc<RawValue>,
}

fn raw<S: Serializer>(text: &RawValue, serializer: S) -> Result<S::Ok, S::Error> {
    text.serialize(serializer)
}

/// All calls that wait.
#[derive(Debug, Clone, Default)]
pub(super) struct Approvals(Arc<Mutex<BTreeMap<Uuid, Waiting>>>);

/// How many questions each VM has asked lately.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<HashMap<VmId, (Instant, u64)>>);

impl Told {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<VmId, (Instant, u64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a question. If it is to be told of: how many before it were not.
    pub(super) fn news(&self, consumer: VmId) -> Option<u64> {
        let (mut told, now) = (self.lock(), Instant::now());
        let (since, asked) = told.entry(consumer).or_insert((now, 0));
        let mut untold = 0;
        if now - *since >= DAY {
            untold = asked.saturating_sub(MOST_TOLD);
            (*since, *asked) = (now, 0);
        }
        *asked += 1;
        (*asked <= MOST_TOLD).then_some(untold)
    }

    pub(super) fn forget(&self, consumer: VmId) {
        self.lock().remove(&consumer);
    }
}

#[derive(Debug)]
struct Waiting {
    call: PendingCall,
    answer: oneshot::Sender<bool>,
}

/// What a person said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Approved,
    Denied,
    /// Nobody said anything in time.
    Late,
}

/// What is asked.
pub(super) struct Question<'a> {
    pub consumer: VmId,
    pub alias: &'a str,
    pub provider: VmId,
    pub module: &'a str,
    pub export: &'a str,
    pub args: &'a Arc<RawValue>,
}

/// A question that a person can see. Dropping it takes it back.
pub(super) struct Asked {
    approvals: Approvals,
    id: Uuid,
    answered: oneshot::Receiver<bool>,
}

impl Asked {
    /// What an answer names.
    pub(super) fn id(&self) -> String {
        self.id.to_string()
    }

    /// Waits for the answer, for `limit` at most.
    pub(super) async fn verdict(mut self, limit: Duration) -> Verdict {
        match timeout(limit, &mut self.answered).await {
            Ok(Ok(true)) => Verdict::Approved,
            Ok(_) => Verdict::Denied,
            Err(_) => Verdict::Late,
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.approvals.lock().remove(&self.id);
    }
}

impl Approvals {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Uuid, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks a person; `None` if too many calls wait already, of all VMs or of this one.
    pub(super) fn ask(&self, question: &Question<'_>) -> Option<Asked> {
        let (answer, answered) = oneshot::channel();
        let id = Uuid::new_v4();
        let call = PendingCall {
            id: id.to_string(),
            requested_at: clock::rfc3339(clock::now_ms()),
            consumer: question.consumer.to_string(),
            alias: question.alias.to_owned(),
            provider: question.provider.to_string(),
            module: question.module.to_owned(),
            export: question.export.to_owned(),
            args: Arc::clone(question.args),
        };
        let mut waiting = self.lock();
        let of_one = waiting.values().filter(|waiting| waiting.call.consumer == call.consumer).count();
        if waiting.len() >= WAITING || of_one >= WAITING_OF_ONE {
            return None;
        }
        waiting.insert(id, Waiting { call, answer });
        Some(Asked { approvals: self.clone(), id, answered })
    }

    /// The calls that wait, oldest first.
    pub(super) fn list(&self) -> Vec<PendingCall> {
        let mut calls: Vec<_> = self.lock().values().map(|waiting| waiting.call.clone()).collect();
        calls.sort_by(|a, b| (&a.requested_at, &a.id).cmp(&(&b.requested_at, &b.id)));
        calls
    }

    /// Answers a question.
    pub(super) fn answer(&self, id: &str, approved: bool) -> Result<PendingCall> {
        let none = || Error::not_found("No such call waits for approval");
        let id: Uuid = id.parse().map_err(|_| none())?;
        let Waiting { call, answer } = self.lock().remove(&id).ok_or_else(none)?;
        answer.send(approved).map_err(|_| none())?;
        Ok(call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_vm_that_asks_on_and_on_is_told_of_a_hundred_times_a_day() {
        let (told, one, other) = (Told::default(), VmId::new(), VmId::new());
        let asked: Vec<_> = (0..MOST_TOLD + 7).map(|_| told.news(one)).collect();
        assert!(asked[..100].iter().all(|news| *news == Some(0)) && asked[100..].iter().all(Option::is_none));
        assert_eq!(told.news(other), Some(0));
        tokio::time::advance(DAY).await;
        assert_eq!((told.news(one), told.news(one)), (Some(7), Some(0)));
    }

    #[test]
    fn one_vm_leaves_room_for_the_questions_of_others() {
        let approvals = Approvals::default();
        let ask = |consumer| {
            let provider = VmId::new();
            let args = &RawValue::from_string("[]".into()).unwrap().into();
            approvals.ask(&Question { consumer, alias: "p", provider, module: "m.ts", export: "f", args })
        };
        let (one, other) = (VmId::new(), VmId::new());
        let asked: Vec<_> = (0..WAITING_OF_ONE).map(|_| ask(one).expect("there is room")).collect();
        assert!(ask(one).is_none());
        let others = ask(other).expect("there is room");
        drop(asked);
        assert_eq!(approvals.list().len(), 1);
        assert!(ask(one).is_some());
        drop(others);
    }
}
