//! What of a provider's answer leaves it: everything in it is hostile, and may hold the provider's secrets.

use std::sync::Arc;

use rds_peers::audit::Outcome;
use rds_peers::schema::{ExportChecker, ValueFault};
use rds_peers::strike::Striker;
use rds_protocol::peer::Outcome as Made;
use rds_vmm::guest::{GuestError, outcome};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::{CallFailure, WORDS, bounded};
use crate::error::Error;
use crate::peers::large;

/// Characters of a thrown error's name and of its message that are passed on.
const THROWN: usize = 16 * 1024;

/// Strikes secrets out of whatever leaves the provider, and counts.
struct Cleaner {
    strikers: Vec<Arc<Striker>>,
    strikes: u64,
}

impl Cleaner {
    fn text(&mut self, text: &str) -> String {
        self.strikers.iter().fold(text.to_owned(), |text, striker| {
            let struck = striker.text(&text);
            self.strikes += struck.strikes as u64;
            struck.value
        })
    }

    fn value(&mut self, value: Value) -> Value {
        self.strikers.iter().fold(value, |value, striker| {
            let struck = striker.json(value);
            self.strikes += struck.strikes as u64;
            struck.value
        })
    }
}

/// What came of a call, without secrets.
pub(super) struct Answer {
    /// What the caller is given.
    pub(super) result: Result<Box<RawValue>, CallFailure>,
    /// Places where a secret was struck out.
    pub(super) strikes: u64,
}

/// Reads what came back, holds it to its schema, and strikes secrets out. It is a value here alone.
pub(super) async fn receive(
    reply: Result<Vec<u8>, GuestError>,
    checker: Arc<ExportChecker>,
    strikers: Vec<Arc<Striker>>,
) -> Result<Answer, Error> {
    let read = |reply: Result<Vec<u8>, GuestError>| outcome(&reply?);
    if reply.as_ref().is_ok_and(|reply| large::is_long(reply.len())) {
        return large::work(true, move || answer(read(reply), &checker, strikers)).await;
    }
    let made = read(reply);
    let long = matches!(&made, Ok(Made::Returned(value)) if checker.result_takes_long(value));
    large::work(long, move || answer(made, &checker, strikers)).await
}

fn answer(made: Result<Made, GuestError>, checker: &ExportChecker, strikers: Vec<Arc<Striker>>) -> Answer {
    let mut cleaner = Cleaner { strikers, strikes: 0 };
    let result = match made {
        Ok(Made::Returned(value)) => match checker.check_result(&value) {
            Ok(()) => to_raw_value(&cleaner.value(value))
                .map_err(|error| Error::internal("a result has no JSON form", error).into()),
            Err(faults) => Err(bad_result(&faults, &mut cleaner)),
        },
        Ok(Made::Threw { name, message }) => Err(threw(&name, &message, &mut cleaner)),
        Err(error) => Err(lost(error, &mut cleaner)),
    };
    Answer { result, strikes: cleaner.strikes }
}

/// A pointer into a result holds keys that the provider chose. They are unescaped, or a secret with a `/` is not found.
fn bad_result(faults: &[ValueFault], cleaner: &mut Cleaner) -> CallFailure {
    let unescaped = |pointer: &str| pointer.replace("~1", "/").replace("~0", "~");
    let words = |fault: &ValueFault| format!("{}: {}", unescaped(&fault.pointer), fault.message);
    let words: Vec<String> = faults.iter().map(words).collect();
    let words = bounded(&cleaner.text(&words.join("; ")), WORDS);
    CallFailure::failed(
        502,
        "invalid_result",
        format!("the provider's result is not what its manifest declares: {words}"),
    )
}

/// Cut after secrets are struck out, not before: nobody knows half a secret.
fn threw(name: &str, message: &str, cleaner: &mut Cleaner) -> CallFailure {
    let mut told = |text| bounded(&cleaner.text(text), THROWN);
    let mut failure = CallFailure::new(502, Outcome::Threw, "peer_threw", told(message));
    failure.body.name = Some(told(name));
    failure
}

/// A call that the provider's agent did not make, or did not tell about.
fn lost(error: GuestError, cleaner: &mut Cleaner) -> CallFailure {
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
    fn no_beginning_of_a_secret_is_where_an_error_is_cut() {
        let secret = "s3cret-of-some-length";
        let striker = Arc::new(Striker::new([secret]).unwrap());
        for before in THROWN - secret.len()..=THROWN {
            let text = format!("{}{secret} and more", "k".repeat(before));
            let mut cleaner = Cleaner { strikers: vec![Arc::clone(&striker)], strikes: 0 };
            let body = threw(&text, &text, &mut cleaner).body;
            for told in [Some(body.message), body.name].into_iter().flatten() {
                assert!(told.chars().count() <= THROWN && !told.contains("s3"), "{before}");
            }
            assert_eq!(cleaner.strikes, 2);
        }
    }

    #[test]
    fn keys_of_a_wrong_result_hold_no_secret() {
        for secret in ["s3cret/with/slashes", "s3cret~1~0"] {
            let striker = Arc::new(Striker::new([secret]).unwrap());
            let checker =
                Checker::compile(&json!({"additionalProperties": {"type": "object", "maxProperties": 0}})).unwrap();
            let around = "k".repeat(290);
            for result in [json!({(secret): 1}), json!({(secret): {"a": 1}}), json!({(format!("{around}{secret}")): 1})]
            {
                let mut cleaner = Cleaner { strikers: vec![Arc::clone(&striker)], strikes: 0 };
                let failure = bad_result(&checker.check(&result).unwrap_err(), &mut cleaner);
                assert!(!failure.body.message.contains("s3cret"), "{}", failure.body.message);
                assert_eq!(cleaner.strikes, 1);
            }
            let closed = Checker::compile(&json!({"properties": {"a": {}}, "additionalProperties": false})).unwrap();
            for before in 200..300 {
                let result = json!({(format!("{}{secret}", "k".repeat(before))): 1});
                let mut cleaner = Cleaner { strikers: vec![Arc::clone(&striker)], strikes: 0 };
                let failure = bad_result(&closed.check(&result).unwrap_err(), &mut cleaner);
                assert!(!failure.body.message.contains("s3"), "{}", failure.body.message);
            }
        }
    }
}
