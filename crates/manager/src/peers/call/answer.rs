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

/// A pointer into a result holds keys that the provider chose. They are unescaped, or a secret with a `/` is not found.
pub(super) fn bad_result(faults: &[ValueFault], cleaner: &mut Cleaner<'_>) -> CallFailure {
    let unescaped = |pointer: &str| pointer.replace("~1", "/").replace("~0", "~");
    let words = |fault: &ValueFault| format!("{}: {}", unescaped(&fault.pointer), fault.message);
    let words: Vec<String> = faults.iter().map(words).collect();
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

#[cfg(test)]
mod tests {
    use rds_peers::schema::Checker;
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_of_a_wrong_result_hold_no_secret() {
        for secret in ["s3cret/with/slashes", "s3cret~1~0"] {
            let striker = Striker::new([secret]).unwrap();
            let checker =
                Checker::compile(&json!({"additionalProperties": {"type": "object", "maxProperties": 0}})).unwrap();
            let around = "k".repeat(290);
            for result in [json!({(secret): 1}), json!({(secret): {"a": 1}}), json!({(format!("{around}{secret}")): 1})]
            {
                let mut cleaner = Cleaner { generations: vec![&striker], strikes: 0 };
                let failure = bad_result(&checker.check(&result).unwrap_err(), &mut cleaner);
                assert!(!failure.body.message.contains("s3cret"), "{}", failure.body.message);
                assert_eq!(cleaner.strikes, 1);
            }
            let closed = Checker::compile(&json!({"properties": {"a": {}}, "additionalProperties": false})).unwrap();
            for before in 200..300 {
                let result = json!({(format!("{}{secret}", "k".repeat(before))): 1});
                let mut cleaner = Cleaner { generations: vec![&striker], strikes: 0 };
                let failure = bad_result(&closed.check(&result).unwrap_err(), &mut cleaner);
                assert!(!failure.body.message.contains("s3"), "{}", failure.body.message);
            }
        }
    }
}
