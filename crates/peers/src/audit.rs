//! The audit log of calls: who called what, when, how it ended, never with which values; each record seals those before.
//!
//! A record's hash is taken over the hash before it and over its own canonical JSON, so nobody changes, drops, swaps or
//! inserts a record without every later hash being wrong. Whoever can rewrite the whole log can compute the hashes
//! anew: keep the last hash somewhere else ([`Head::end`] takes it).
//!
//! Owns the record's shape and the chain. Must not know where records are stored.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use thiserror::Error;

/// What sets these hashes apart from others, and this shape of records from later ones.
const DOMAIN: &[u8] = b"rds.audit.v1\0";

/// A call at its place in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Place in the log, from 0, without gaps.
    pub sequence: u64,
    /// What is recorded there.
    #[serde(flatten)]
    pub call: Call,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// When the call came: RFC 3339, milliseconds, `Z`.
    pub time: String,
    /// Id of the calling VM.
    pub consumer: String,
    /// The alias it called.
    pub alias: String,
    /// Id of the VM behind the alias, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Module as called, shortened if it is not a declared one.
    pub module: String,
    /// Export as called, shortened if it is not a declared one.
    pub export: String,
    /// Bytes of the arguments as JSON.
    pub args_bytes: u64,
    /// Bytes of the result as JSON; 0 without one.
    pub result_bytes: u64,
    /// From the call's arrival to its answer, in microseconds.
    pub duration_us: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// The policy's rule that refused it or was warned about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Generation of the provider's secrets that it ran with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_version: Option<u64>,
    /// Places where a secret was struck out of the answer.
    #[serde(default)]
    pub strikes: u64,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The function returned.
    Returned,
    /// The function threw.
    Threw,
    /// It was refused before the provider was entered: not declared, not linked, arguments, policy.
    Refused,
    /// It was not done at its time limit.
    TimedOut,
    /// Its caller gave it up.
    Cancelled,
    /// The provider or its worker was not there, or went away.
    Failed,
}

impl Outcome {
    /// Its name in a record.
    pub fn name(self) -> &'static str {
        match self {
            Self::Returned => "returned",
            Self::Threw => "threw",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

/// Hash of a record, 64 lower-case hex digits as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChainHash([u8; 32]);

impl ChainHash {
    /// What comes before the first record.
    pub const START: Self = Self([0; 32]);
}

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChainHash({self})")
    }
}

/// A text that is no hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("an audit hash is 64 lower-case hex digits")]
pub struct NoHash;

impl FromStr for ChainHash {
    type Err = NoHash;

    fn from_str(text: &str) -> Result<Self, NoHash> {
        let mut hash = Self::START;
        hex::decode_to_slice(text, &mut hash.0).map_err(|_| NoHash)?;
        // Every hash has one text.
        if hash.to_string() == text { Ok(hash) } else { Err(NoHash) }
    }
}

/// One line of the log: what is stored and exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Canonical JSON of the [`Entry`]; keep these very bytes.
    pub text: String,
    /// Its hash.
    pub hash: ChainHash,
}

impl Record {
    /// A record in an export: a line of JSON, without its end, that holds these very bytes. They are not looked at: what
    /// was tampered with is exported as it is.
    pub fn line(hash: &str, text: &str) -> String {
        format!("{LINE_BEGIN}{hash}{LINE_MIDDLE}{text}{LINE_END}")
    }

    /// Reads a line of an export; `None` if it is none.
    pub fn from_line(line: &str) -> Option<Self> {
        let (hash, text) = line.strip_prefix(LINE_BEGIN)?.strip_suffix(LINE_END)?.split_once(LINE_MIDDLE)?;
        Some(Self { text: text.to_owned(), hash: hash.parse().ok()? })
    }
}

/// A line of an export after a record that is not kept as it was written, though its text may be: what it is searched by is
/// not what it says.
pub fn damaged_line(sequence: impl fmt::Display) -> String {
    format!("{DAMAGED_BEGIN}{sequence}{LINE_END}")
}

const DAMAGED_BEGIN: &str = r#"{"damaged":"#;
const LINE_BEGIN: &str = r#"{"hash":""#;
const LINE_MIDDLE: &str = r#"","record":"#;
const LINE_END: &str = "}";

/// The end of a log, or of as much of it as was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Records so far.
    pub records: u64,
    /// Hash of the last one.
    pub hash: ChainHash,
}

impl Head {
    /// Before the first record.
    pub const START: Self = Self { records: 0, hash: ChainHash::START };

    /// Makes the next record, and moves behind it.
    pub fn append(&mut self, call: Call) -> Record {
        let value = serde_json::to_value(Entry { sequence: self.records, call });
        let text = canonical(&value.expect("strings and integers serialise"));
        let hash = link(self.hash, &text);
        *self = Self { records: self.records + 1, hash };
        Record { text, hash }
    }

    /// Checks the next line of an export, and moves behind it.
    pub fn follow_line(&mut self, line: &str) -> Result<(), Broken> {
        if let Some(record) = Record::from_line(line) {
            return self.follow(&record.text, record.hash);
        }
        let damaged = line.strip_prefix(DAMAGED_BEGIN).and_then(|rest| rest.strip_suffix(LINE_END)?.parse().ok());
        Err(match damaged {
            Some(at) => Broken::Record { at, why: "what it is searched by is not what it says" },
            None => Broken::Record { at: self.records, why: "it is no line of an export" },
        })
    }

    /// Checks that a record is the next, and moves behind it.
    pub fn follow(&mut self, text: &str, hash: ChainHash) -> Result<(), Broken> {
        let broken = |why| Broken::Record { at: self.records, why };
        if link(self.hash, text) != hash {
            return Err(broken("its hash does not follow from its text and the hash before"));
        }
        let entry: Entry = serde_json::from_str(text).map_err(|_| broken("it is no audit record"))?;
        if entry.sequence != self.records {
            return Err(broken("its sequence number is not the next"));
        }
        *self = Self { records: self.records + 1, hash };
        Ok(())
    }

    /// Checks that the log ends here. `expected` is its last hash from elsewhere.
    pub fn end(self, expected: ChainHash) -> Result<(), Broken> {
        if self.hash == expected {
            return Ok(());
        }
        Err(Broken::End { records: self.records, found: self.hash, expected })
    }
}

/// Where a log is broken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Broken {
    /// A record was changed, or one before it was removed, inserted or moved.
    #[error("the audit log is broken at record {at}: {why}")]
    Record {
        /// Its place in the log, from 0.
        at: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// All records fit, but the last is another one than expected: some were cut off, or all were made anew.
    #[error("the audit log ends after {records} records with {found}, not with {expected}")]
    End {
        /// Records that were read.
        records: u64,
        /// The last hash found.
        found: ChainHash,
        /// The last hash expected.
        expected: ChainHash,
    },
}

fn link(before: ChainHash, text: &str) -> ChainHash {
    let hash = Sha256::new().chain_update(DOMAIN).chain_update(before.0).chain_update(text.as_bytes());
    ChainHash(hash.finalize().into())
}

/// JSON without spaces, the keys sorted by their bytes. An entry has no fractions, whose texts could differ.
fn canonical(value: &Value) -> String {
    let Value::Object(members) = value else { return value.to_string() };
    let mut members: Vec<_> = members.iter().collect();
    members.sort_by_key(|(key, _)| *key);
    let members: Vec<String> =
        members.iter().map(|(key, member)| format!("{}:{}", Value::from(key.as_str()), canonical(member))).collect();
    format!("{{{}}}", members.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn call() -> Call {
        Call {
            time: "2026-01-02T03:04:05.678Z".to_owned(),
            consumer: "c".to_owned(),
            alias: "mail".to_owned(),
            provider: Some("p".to_owned()),
            module: "sdk/\"mail\".ts".to_owned(),
            export: "send".to_owned(),
            args_bytes: 12,
            result_bytes: 0,
            duration_us: 1500,
            outcome: Outcome::TimedOut,
            rule: None,
            secret_version: Some(3),
            strikes: 0,
        }
    }

    fn log(length: u64) -> Vec<(String, ChainHash)> {
        let mut head = Head::START;
        let record = |_| {
            let Record { text, hash } = head.append(call());
            (text, hash)
        };
        (0..length).map(record).collect()
    }

    fn check(log: &[(String, ChainHash)], expected: Option<ChainHash>) -> Result<ChainHash, Broken> {
        let mut head = Head::START;
        log.iter().try_for_each(|(text, hash)| head.follow(text, *hash))?;
        expected.map_or(Ok(()), |expected| head.end(expected))?;
        Ok(head.hash)
    }

    /// The text and the hash of a record must never change: logs of older versions stay valid.
    #[test]
    fn a_record_stays_the_same() {
        let Record { text, hash } = { Head::START }.append(call());
        insta::assert_snapshot!(format!("{text}\n{hash}"));
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!("g".repeat(64).parse::<ChainHash>(), Err(NoHash));
        assert_eq!("0".repeat(63).parse::<ChainHash>(), Err(NoHash));
        assert_eq!(format!("{}é", "0".repeat(62)).parse::<ChainHash>(), Err(NoHash));
    }

    #[test]
    fn a_log_that_was_tampered_with() {
        let whole = log(5);
        let last = whole[4].1;
        assert_eq!(check(&whole, Some(last)), Ok(last));
        assert_eq!(check(&[], None), Ok(ChainHash::START));
        let at = |log: &[(String, ChainHash)]| match check(log, Some(last)) {
            Err(Broken::Record { at, .. }) => at,
            other => panic!("{other:?}"),
        };
        let mut removed = whole.clone();
        removed.remove(2);
        let mut swapped = whole.clone();
        swapped.swap(1, 2);
        let mut twice = whole.clone();
        twice.insert(3, whole[2].clone());
        assert_eq!([at(&removed), at(&swapped), at(&twice), at(&whole[1..])], [2, 1, 3, 0]);
        assert!(matches!(check(&whole[..4], Some(last)), Err(Broken::End { records: 4, .. })));
        assert!(matches!(check(&log(4), Some(last)), Err(Broken::End { .. })));
    }

    #[test]
    fn a_line_holds_the_record_as_it_is() {
        let record = { Head::START }.append(call());
        let line = Record::line(&record.hash.to_string(), &record.text);
        assert_eq!(Record::from_line(&line), Some(record.clone()));
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["record"]["outcome"], Outcome::TimedOut.name());
        for no_line in ["", "{}", r#"{"hash":"00","record":{}}"#, &record.text] {
            assert_eq!(Record::from_line(no_line), None);
        }
    }

    #[test]
    fn outcomes_have_the_names_that_records_have() {
        use Outcome::*;
        for outcome in [Returned, Threw, Refused, TimedOut, Cancelled, Failed] {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.name());
        }
    }

    proptest! {
        #[test]
        fn one_changed_byte_is_found(record in 0..4_usize, place in any::<prop::sample::Index>(), with in "[ -~]") {
            let mut log = log(4);
            let place = place.index(log[record].0.len());
            let old = log[record].0.clone();
            log[record].0.replace_range(place..=place, &with);
            prop_assume!(log[record].0 != old);
            let why = "its hash does not follow from its text and the hash before";
            prop_assert_eq!(check(&log, None), Err(Broken::Record { at: record as u64, why }));
        }
    }
}
