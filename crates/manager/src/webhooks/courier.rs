//! The task that makes deliveries: of each webhook one at a time, of all of them side by side.
//!
//! What is to be done is in the store alone, so a server that was killed goes on where it was. The task looks there when
//! something happens, when a delivery is due and when an attempt ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rand::random_range;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::{Notify, broadcast};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::secret::Secret;
use super::send::{Failure, Message, Sender};
use super::target::Target;
use crate::activity::{Activity, Event};
use crate::clock::{now_ms, rfc3339};
use crate::error::{Chain, Result};
use crate::metrics;
use crate::secrets::Sealer;
use crate::store::Store;
use crate::store::webhooks::{Attempt, NextDelivery, WAITING, WebhookChange};

/// A delivery is tried so often: for some twelve hours.
const MAX_ATTEMPTS: i64 = 10;
/// The pause after the first attempt; each is four times as long as the one before, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 60 * 60);

/// The clock may be set while the task waits for it.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Pause before trying again what the database did not take.
const RETRY: Duration = Duration::from_millis(500);
/// What attempts that are under way may still take once the server is to end.
const GRACE: Duration = Duration::from_secs(3);

/// The task, and what it works with.
pub(super) struct Courier {
    pub(super) work: Arc<Work>,
    pub(super) activity: Activity,
    /// Whatever happens was written down before it is told here.
    pub(super) events: broadcast::Receiver<Event>,
    pub(super) wake: Arc<Notify>,
    pub(super) shutdown: CancellationToken,
}

impl Courier {
    /// Makes deliveries until the server ends; what is under way then has a moment to end.
    pub(super) async fn run(mut self) {
        let (mut attempts, mut running) = (JoinSet::new(), HashMap::new());
        loop {
            let pause = self.start_due(&mut attempts, &mut running).await.unwrap_or_else(|error| {
                tracing::error!(error = %Chain(&error), "cannot read which deliveries are due; trying again");
                RETRY
            });
            tokio::select! {
                Some(ended) = attempts.join_next() => {
                    if let Ok(Some(gone)) = ended {
                        self.disable(&gone).await;
                    }
                }
                event = self.events.recv() => match event {
                    // Others that wait were written down, too.
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => self.events = self.events.resubscribe(),
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                () = self.wake.notified() => {}
                () = sleep(pause) => {}
                () = self.shutdown.cancelled() => break,
            }
        }
        // What does not end in time is tried again by the next server.
        let _ = timeout(GRACE, async { while attempts.join_next().await.is_some() {} }).await;
    }

    /// Sends nothing more to a receiver that asked for that, until somebody enables its webhook again.
    async fn disable(&self, webhook: &str) {
        let change = WebhookChange { enabled: Some(0), ..WebhookChange::default() };
        match self.work.store.change_webhook(webhook, &change).await {
            Ok(true) => {
                self.activity
                    .record("webhook.updated", webhook, "Webhook disabled, since its receiver is gone", None)
                    .await;
            }
            // It was removed meanwhile.
            Ok(false) => {}
            // The next delivery finds out again.
            Err(error) => {
                tracing::error!(error = %Chain(&error), webhook, "cannot disable a webhook whose receiver is gone");
            }
        }
    }

    /// Begins what is due, ends what is not wanted any more, and says how long there is nothing else to do.
    async fn start_due(
        &self,
        attempts: &mut JoinSet<Option<String>>,
        running: &mut HashMap<String, AbortHandle>,
    ) -> Result<Duration> {
        let next = self.work.store.next_deliveries().await?;
        running.retain(|webhook, attempt| {
            // It was removed or disabled, or this was its last delivery and is done.
            if !next.iter().any(|delivery| delivery.webhook_id == *webhook) {
                attempt.abort();
            }
            !attempt.is_finished()
        });
        let (now, mut pause) = (now_ms(), LOOK_EVERY);
        for delivery in next {
            if running.contains_key(&delivery.webhook_id) {
                continue;
            }
            let ahead = Duration::from_millis(u64::try_from(delivery.due_at - now).unwrap_or(0));
            // Nothing is due so late but by a clock that was set back.
            if ahead.is_zero() || ahead > 2 * LONGEST_PAUSE {
                let webhook = delivery.webhook_id.clone();
                running.insert(webhook, attempts.spawn(Arc::clone(&self.work).attempt(delivery)));
            } else {
                pause = pause.min(ahead);
            }
        }
        Ok(pause)
    }
}

/// What an attempt takes.
pub(super) struct Work {
    pub(super) store: Store,
    pub(super) sender: Sender,
    pub(super) sealer: Option<Arc<Sealer>>,
}

/// The body of a delivery: the same bytes in every attempt.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    id: &'a str,
    event: &'a str,
    created_at: String,
    data: &'a RawValue,
}

impl Work {
    /// Gives the webhook if its receiver is gone for good.
    async fn attempt(self: Arc<Self>, delivery: NextDelivery) -> Option<String> {
        let (at, begun) = (now_ms(), Instant::now());
        let outcome = self.send(&delivery, at).await;
        let duration = begun.elapsed();
        metrics::webhook_attempt(outcome.as_ref().map_or_else(Failure::word, |_| "ok"), duration);
        let gone = matches!(outcome, Err(Failure::Gone));
        let attempt = judge(&delivery, at, duration, outcome);
        if attempt.state != WAITING {
            metrics::webhook_delivery(attempt.state);
        }
        let (webhook, id, tried) = (&delivery.webhook_id, &delivery.id, delivery.attempts + 1);
        let (state, error) = (attempt.state, attempt.error.as_deref());
        tracing::debug!(webhook, delivery = id, event = delivery.event, tried, state, error, "a delivery was tried");
        while let Err(error) = self.store.end_attempt(&delivery, &attempt).await {
            tracing::error!(error = %Chain(&error), delivery = id, "cannot write down how a delivery went; trying again");
            sleep(RETRY).await;
        }
        gone.then_some(delivery.webhook_id)
    }

    async fn send(&self, delivery: &NextDelivery, at: i64) -> Result<u16, Failure> {
        let (webhook, sealed) = (&delivery.webhook_id, delivery.sealed != 0);
        let secret =
            Secret::open(webhook, &delivery.secret, sealed, self.sealer.as_deref()).map_err(Failure::Secret)?;
        let target = Target::parse(&delivery.url).ok_or(Failure::Damaged)?;
        let body = body(delivery).ok_or(Failure::Damaged)?;
        let (id, timestamp) = (delivery.id.clone(), at.div_euclid(1000));
        let signature = secret.sign(&id, timestamp, &body);
        self.sender.send(&target, Message { id, timestamp, signature, body }).await
    }
}

fn body(delivery: &NextDelivery) -> Option<Vec<u8>> {
    let data = serde_json::from_str(&delivery.data).ok()?;
    let created_at = rfc3339(delivery.created_at);
    serde_json::to_vec(&Body { id: &delivery.id, event: &delivery.event, created_at, data }).ok()
}

/// What comes of an attempt.
fn judge(delivery: &NextDelivery, at: i64, duration: Duration, outcome: Result<u16, Failure>) -> Attempt {
    let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let ended = |state, due_at, status: Option<u16>, error| Attempt {
        state,
        due_at,
        at,
        duration_ms: ms(duration),
        status: status.map(i64::from),
        error,
    };
    match outcome {
        Ok(status) => ended("delivered", delivery.due_at, Some(status), None),
        Err(failure) => {
            let tried = delivery.attempts + 1;
            let (state, due_at) = if tried >= MAX_ATTEMPTS || failure == Failure::Gone {
                ("failed", delivery.due_at)
            } else {
                let pause = pause(tried).mul_f64(random_range(0.5..1.5)).max(failure.pause().min(LONGEST_PAUSE));
                (WAITING, at.saturating_add(ms(duration + pause)))
            };
            ended(state, due_at, failure.status(), Some(failure.to_string()))
        }
    }
}

/// The pause after so many attempts, before chance makes it up to a half longer or shorter.
fn pause(tried: i64) -> Duration {
    let exponent = u32::try_from(tried - 1).unwrap_or(u32::MAX);
    4_u32.checked_pow(exponent).map_or(LONGEST_PAUSE, |times| (FIRST_PAUSE * times).min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(attempts: i64) -> NextDelivery {
        NextDelivery {
            id: "d".into(),
            webhook_id: "w".into(),
            event: "vm.created".into(),
            created_at: 1_700_000_000_042,
            data: r#"{"b":1,"a":2}"#.into(),
            attempts,
            due_at: 1000,
            url: String::new(),
            secret: String::new(),
            sealed: 0,
        }
    }

    #[test]
    fn pauses_grow_and_end() {
        let all: Vec<_> = (1..MAX_ATTEMPTS).map(|tried| pause(tried).as_secs()).collect();
        assert_eq!(all, [1, 4, 16, 64, 256, 1024, 4096, 16_384, 21_600]);
        assert_eq!(pause(i64::MAX), LONGEST_PAUSE);
        for tried in 0..MAX_ATTEMPTS - 1 {
            let attempt = judge(&delivery(tried), 1000, Duration::ZERO, Err(Failure::Late));
            let (wait, usual) = (attempt.due_at - 1000, pause(tried + 1).as_millis() as i64);
            assert!(attempt.state == WAITING && wait >= usual / 2 && wait <= usual * 3 / 2, "{attempt:?}");
        }
        let last = judge(&delivery(MAX_ATTEMPTS - 1), 1000, Duration::ZERO, Err(Failure::Status(503, None)));
        assert_eq!((last.state, last.status), ("failed", Some(503)));
        let gone = judge(&delivery(0), 1000, Duration::ZERO, Err(Failure::Gone));
        assert_eq!((gone.state, gone.status), ("failed", Some(410)));
        let wait = |seconds| {
            let asked = Failure::Status(429, Some(Duration::from_secs(seconds)));
            judge(&delivery(0), 1000, Duration::ZERO, Err(asked)).due_at - 1000
        };
        assert_eq!((wait(90), wait(u64::MAX)), (90_000, LONGEST_PAUSE.as_millis() as i64));
        assert!((500..=1500).contains(&wait(0)), "it is not asked sooner than others");
        let good = judge(&delivery(0), 1000, Duration::from_millis(5), Ok(204));
        assert_eq!((good.state, good.status, good.duration_ms, good.error), ("delivered", Some(204), 5, None));
    }

    #[test]
    fn the_body_is_the_event_as_it_was_kept() {
        let body = String::from_utf8(body(&delivery(3)).unwrap()).unwrap();
        let created = r#""createdAt":"2023-11-14T22:13:20.042Z""#;
        assert_eq!(body, format!(r#"{{"id":"d","event":"vm.created",{created},"data":{{"b":1,"a":2}}}}"#));
    }
}
