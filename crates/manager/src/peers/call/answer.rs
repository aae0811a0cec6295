//! What of a provider's answer leaves it: everything in it is hostile, and may hold the provider's secrets.

use std::iter;

use rds_peers::audit::Outcome;
use rds_peers::schema::ValueFault;
use rds_peers::strike::Striker;
use rds_vmm::guest::GuestError;
use serde_json::Value;

use super::{CallFailure, bounded};
use crate::peers::provider::Strikes;

/// Strikes secrets out of whatever leaves the provider, and counts.
pub(super) struct Cleaner<'a> {
    generations: Vec<&'a Striker>,
    pub(super) strikes: u64,
}

impl<'a> Cleaner<'a> {
    /// For the secrets as they were before a call and after it, each with those they had replaced.
    pub(super) fn new(before: &'a Strikes, after: &'a Strikes) -> Self {
        let of = |strikes: &'a Strikes| iter::once(&*strikes.striker).chain(strikes.replaced.as_deref());
        let later = (after.version() != before.version()).then(|| of(after)).into_iter().flatten();
        Self { generations: of(before).chain(later).collect(), strikes: 0 }
    }

    fn text(&mut self, text: &str) -> String {
        self.generations.iter().fold(text.to_owned(), |text, striker| {
            let struck = striker.text(&text);
            self.strikes += struck.strikes as u64;
            struck.value
        })
    }

    pub(super) fn value(&mut self, value: Value) -> Value {
        self.generations.iter().fold(value, |value, striker| {
            let struck = striker.json(value);
            self.strikes += struck.strikes as u64;
            struck.value
        })
    }
}

/// A pointer into a result holds keys that the provider chose.
pub(super) fn bad_result(faults: &[ValueFault], cleaner: &mut Cleaner<'_>) -> CallFailure {
    let words: Vec<String> = faults.iter().map(|fault| format!("{}: {}", fault.pointer, fault.message)).collect();
    let words = bounded(&cleaner.text(&words.join("; ")));
    CallFailure::failed(
        502,
        "invalid_result",
        format!("the provider's result is not what its manifest declares: {words}"),
    )
}

pub(super) fn threw(name: &str, message: &str, cleaner: &mut Cleaner<'_>) -> CallFailure {
    let mut failure = CallFailure::new(502, Outcome::Threw, "peer_threw", cleaner.text(message));
    failure.body.name = Some(cleaner.text(name));
    failure
}

/// A call that the provider's agent did not make, or did not tell about.
pub(super) fn lost(error: GuestError, cleaner: &mut Cleaner<'_>) -> CallFailure {
    match error {
        GuestError::Timeout | GuestError::Status { status: 504, .. } => {
            CallFailure::timed_out("The peer did not answer in time")
        }
        // The provider was offered anew meanwhile, by a consumer's sync.
        GuestError::Status { status: 409, .. } => {
            CallFailure::failed(409, "not_declared", "The provider declares this export no more")
        }
        GuestError::Status { message, .. } => {
            let message = cleaner.text(&message);
            CallFailure::failed(502, "peer_failed", format!("The peer failed: {message}"))
        }
        GuestError::Unreachable { may_have_run: false, .. } => {
            CallFailure::failed(502, "peer_unreachable", "The peer cannot be reached; the call was not made")
        }
        GuestError::Unreachable { .. } => {
            CallFailure::failed(502, "peer_lost", "The peer was lost; the call may have been made")
        }
        GuestError::Protocol(_) => CallFailure::failed(
            502,
            "peer_failed",
            "The peer's agent answered nonsense, or more than a result may have",
        ),
    }
}
