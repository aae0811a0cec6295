//! What a program leaves through the global `result`.

use std::fs::File;
use std::io::Read;
use std::rc::Rc;

use rds_protocol::json::check;
use rds_protocol::limits::{RESULT_BYTES, USER_ID};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use serde::{Deserialize, Deserializer};
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use crate::agent::Vm;
use crate::error::{SystemError, While};
use crate::sandbox::tree::RUNTIME;

/// The file that a program's prelude writes to. The agent made it and reads what it made, so nothing that is put in its
/// place is looked at.
pub(super) struct OutcomeFile {
    vm: Rc<Vm>,
    name: String,
    file: File,
}

/// What was in it.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Outcome {
    #[serde(default, deserialize_with = "present")]
    pub(super) result: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "present")]
    pub(super) error: Option<Box<RawValue>>,
}

/// A present `null` is not an absent value.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::deserialize(from).map(Some)
}

impl OutcomeFile {
    /// Makes one, in a directory of root's, for the user to write to.
    pub(super) fn make(vm: Rc<Vm>, name: String) -> Result<Self, SystemError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&vm.sandbox.tree.results, &name, flags, Mode::from_raw_mode(0o600))
            .while_("make a file")?;
        rustix::fs::fchown(&file, Some(Uid::from_raw(USER_ID)), Some(Gid::from_raw(USER_ID))).while_("give a file")?;
        Ok(Self { vm, name, file: file.into() })
    }

    /// Its path in the sandbox.
    pub(super) fn path(name: &str) -> String {
        format!("/{RUNTIME}/results/{name}")
    }

    /// Reads it.
    pub(super) fn read(&mut self) -> Outcome {
        let mut text = Vec::new();
        match (&self.file).take(RESULT_BYTES + 1).read_to_end(&mut text) {
            Ok(_) => parse(&text),
            Err(error) => unreadable(&error),
        }
    }
}

impl Drop for OutcomeFile {
    fn drop(&mut self) {
        let _ = rustix::fs::unlinkat(&self.vm.sandbox.tree.results, &self.name, AtFlags::empty());
    }
}

/// `{"result":…,"error":…}`, each only if it was set; nothing at all if neither was.
fn parse(text: &[u8]) -> Outcome {
    if text.is_empty() {
        return Outcome::default();
    }
    if text.len() as u64 > RESULT_BYTES {
        return unreadable(&format!("more than {RESULT_BYTES} bytes"));
    }
    if !text.trim_ascii_start().starts_with(b"{") {
        return unreadable(&"not an object");
    }
    match check(text).and_then(|()| serde_json::from_slice(text)) {
        Ok(outcome) => outcome,
        Err(error) => unreadable(&error),
    }
}

fn unreadable(why: &dyn std::fmt::Display) -> Outcome {
    let error = json!({"name": "ResultError", "message": format!("the program's result can't be read: {why}")});
    let error = to_raw_value(&error).expect("two strings have a text");
    Outcome { result: None, error: Some(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    use rds_protocol::limits::CONTAINERS;

    #[test]
    fn what_was_not_set_is_absent_and_null_is_not() {
        let parsed = |text: &str| {
            let Outcome { result, error } = parse(text.as_bytes());
            [result, error].map(|value| value.map(|value| value.get().to_owned()))
        };
        assert_eq!(parsed(""), [None, None]);
        assert_eq!(parsed(r#"{"result":null}"#), [Some("null".into()), None]);
        assert_eq!(parsed(r#" {"error":{"name":"E"},"x":1}"#), [None, Some(r#"{"name":"E"}"#.into())]);
    }

    #[test]
    fn what_can_not_be_read_is_an_error() {
        let many = format!(r#"{{"result":[{}0]}}"#, "[],".repeat(CONTAINERS));
        let deep = format!(r#"{{"result":{}{}}}"#, "[".repeat(200), "]".repeat(200));
        for text in [
            &b"{"[..],
            b"[]",
            b"{\"result\":\"\\ud800\"}",
            b"{\"result\":1e999}",
            &vec![b' '; 5_000_000],
            &b"[".repeat(1000),
            many.as_bytes(),
            deep.as_bytes(),
        ] {
            let outcome = parse(text);
            assert!(outcome.result.is_none() && outcome.error.is_some());
        }
    }
}
