//! What a link allows beyond what the provider offers: exports, arguments, rates, sizes, a person's approval.
//!
//! ```json
//! {
//!   "mode": "enforce",
//!   "allow": ["sdk/mail.ts#*"],
//!   "deny": ["*#delete*"],
//!   "arguments": [{ "exports": "*#send", "pointer": "/0/to", "prefix": "team-", "length": { "max": 80 } }],
//!   "callsPerMinute": 60, "concurrentCalls": 4, "maxBytes": 65536, "maxSeconds": 20,
//!   "require": "approval"
//! }
//! ```
//!
//! Every field may be left out; an empty policy allows every declared export. Without `allow`, all are allowed; `deny`
//! wins over it. Owns the rules and the decision. Has no clock and counts nothing: the caller says how much is going on.

mod pattern;
mod predicate;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::manifest::{ExportName, ModulePath};

pub use pattern::Pattern;
pub use predicate::{ArgumentRule, Bounds};

/// Entries of each list in a policy.
const ENTRIES: usize = 100;

/// Longest time of a call in seconds (section 7 of the wire contract).
const SECONDS: u32 = 120;

/// When to ask again for what other calls must end for: nobody knows when they do.
const SOON: Duration = Duration::from_secs(1);

/// The policy of one link.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Policy {
    /// Whether broken rules stop a call.
    pub mode: Mode,
    /// Exports that may be called; all, if there is no such list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<Pattern>>,
    /// Exports that may not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Pattern>,
    /// What arguments must be like.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<ArgumentRule>,
    /// Calls that may begin within any 60 seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls_per_minute: Option<u32>,
    /// Calls at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent_calls: Option<u32>,
    /// Bytes of a call's arguments as JSON, and of its result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// Seconds that a call may take, 1 to 120.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_seconds: Option<u32>,
    /// What else a call needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require: Option<Requirement>,
}

/// What happens to a call that breaks a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It is refused.
    #[default]
    Enforce,
    /// It is made, and the rules it breaks are told.
    Warn,
}

/// What a call needs besides keeping the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Requirement {
    /// A person who says yes to it.
    Approval,
}

/// A policy that is refused; the message is for its author.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("invalid policy: {0}")]
pub struct PolicyError(String);

/// A call that the provider's manifest allows.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Its module.
    pub module: &'a ModulePath,
    /// Its export.
    pub export: &'a ExportName,
    /// Its arguments.
    pub args: &'a [Value],
    /// Bytes of the arguments as JSON.
    pub bytes: u64,
}

/// What else the same link is doing, this call not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Calls that began within the last 60 seconds.
    pub last_minute: u32,
    /// Calls that are under way.
    pub running: u32,
    /// How long until the oldest of `last_minute` is none of them any more.
    pub frees_in: Duration,
}

/// A rule that a call breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The rule as the policy names it, such as `deny` or `arguments/0`; for the audit log, too.
    pub rule: String,
    /// When the call may pass; `None` if waiting does not help.
    pub retry_after: Option<Duration>,
    /// What the rule asks for. It holds no argument.
    pub message: String,
}

/// What is to be done with a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Make it.
    Allow,
    /// Make it, and tell which rules it breaks.
    Warn(Vec<Refusal>),
    /// Do not make it; the provider is not entered.
    Refuse(Refusal),
    /// Hold it until a person has decided. It keeps every other rule.
    NeedsApproval,
}

impl Policy {
    /// Reads a policy as clients send it.
    pub fn parse(value: &Value) -> Result<Self, PolicyError> {
        // A list would be read as the fields in their order.
        if !value.is_object() {
            return Err(PolicyError("it must be an object".to_owned()));
        }
        let policy = Self::deserialize(value).map_err(|error| PolicyError(error.to_string()))?;
        let lists = [policy.allow.as_ref().map_or(0, Vec::len), policy.deny.len(), policy.arguments.len()];
        if lists.into_iter().any(|length| length > ENTRIES) {
            return Err(PolicyError(format!("a list may have at most {ENTRIES} entries")));
        }
        for (index, rule) in policy.arguments.iter().enumerate() {
            rule.check().map_err(|message| PolicyError(format!("arguments/{index} {message}")))?;
        }
        if policy.max_seconds.is_some_and(|seconds| !(1..=SECONDS).contains(&seconds)) {
            return Err(PolicyError(format!("maxSeconds must be 1 to {SECONDS}")));
        }
        Ok(policy)
    }

    /// The time that a call gets if its caller asks for `asked`.
    pub fn time_limit(&self, asked: Duration) -> Duration {
        self.max_seconds.map_or(asked, |seconds| asked.min(Duration::from_secs(seconds.into())))
    }

    /// Decides about a call. In `warn` mode nothing stops it, a missing approval neither.
    pub fn decide(&self, call: &Call<'_>, usage: Usage) -> Decision {
        let mut broken = self.broken(call, usage);
        match (self.require, self.mode) {
            (Some(Requirement::Approval), Mode::Enforce) if broken.is_empty() => return Decision::NeedsApproval,
            (Some(Requirement::Approval), Mode::Warn) => {
                broken.push(refusal("require", None, "the call needs a person's approval".to_owned()));
            }
            _ => {}
        }
        self.judge(broken)
    }

    /// Judges a result by its size as JSON, like [`Self::decide`].
    pub fn decide_result(&self, bytes: u64) -> Decision {
        self.judge(self.too_large("result", bytes).into_iter().collect())
    }

    fn judge(&self, mut broken: Vec<Refusal>) -> Decision {
        match self.mode {
            _ if broken.is_empty() => Decision::Allow,
            Mode::Warn => Decision::Warn(broken),
            Mode::Enforce => Decision::Refuse(broken.swap_remove(0)),
        }
    }

    fn too_large(&self, what: &str, bytes: u64) -> Option<Refusal> {
        let limit = self.max_bytes.filter(|limit| bytes > *limit)?;
        Some(refusal("maxBytes", None, format!("the {what} may have at most {limit} bytes")))
    }

    fn broken(&self, call: &Call<'_>, usage: Usage) -> Vec<Refusal> {
        let target = format!("{}#{}", call.module, call.export);
        let mut broken = Vec::new();
        if let Some(pattern) = self.deny.iter().find(|pattern| pattern.matches(&target)) {
            broken.push(refusal("deny", None, format!("{target} is denied by {pattern}")));
        }
        if self.allow.as_ref().is_some_and(|allowed| !allowed.iter().any(|pattern| pattern.matches(&target))) {
            broken.push(refusal("allow", None, format!("{target} is not among the allowed exports")));
        }
        for (index, rule) in self.arguments.iter().enumerate().filter(|(_, rule)| rule.exports.matches(&target)) {
            if let Err(message) = rule.judge(call.args) {
                broken.push(refusal(&format!("arguments/{index}"), None, message));
            }
        }
        broken.extend(self.too_large("arguments", call.bytes));
        if let Some(limit) = self.concurrent_calls.filter(|limit| usage.running >= *limit) {
            broken.push(refusal("concurrentCalls", Some(SOON), format!("at most {limit} calls at once")));
        }
        if let Some(limit) = self.calls_per_minute.filter(|limit| usage.last_minute >= *limit) {
            broken.push(refusal("callsPerMinute", Some(usage.frees_in), format!("at most {limit} calls a minute")));
        }
        broken
    }
}

fn refusal(rule: &str, retry_after: Option<Duration>, message: String) -> Refusal {
    Refusal { rule: rule.to_owned(), retry_after, message }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
