//! What a policy asks of arguments.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Pattern;

/// Asks something of one place in the arguments of some exports. All tests that it names must hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ArgumentRule {
    /// The exports it is about.
    pub exports: Pattern,
    /// JSON pointer into the array of arguments: `/0` is the first one, `/0/to` its member `to`.
    pub pointer: String,
    /// It holds as well when there is nothing at that place.
    #[serde(default)]
    pub or_absent: bool,
    /// The value is this one. Numbers are compared as numbers.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub equals: Option<Value>,
    /// The value is one of these.
    #[serde(default, rename = "in", skip_serializing_if = "Option::is_none")]
    pub one_of: Option<Vec<Value>>,
    /// The value is a string that begins like this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The value is a number within these bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<Bounds>,
    /// The value is a string of so many characters, or an array of so many items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<Bounds>,
}

/// Bounds, both included. One may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// The least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

/// `"equals": null` asks for null; without this it would ask for nothing.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Bounds {
    fn hold(&self, number: f64) -> bool {
        self.min.is_none_or(|min| number >= min) && self.max.is_none_or(|max| number <= max)
    }

    fn is_empty(&self) -> bool {
        matches!((self.min, self.max), (None, None))
            || matches!((self.min, self.max), (Some(min), Some(max)) if min > max)
    }
}

impl ArgumentRule {
    /// What is wrong with the rule itself.
    pub(super) fn check(&self) -> Result<(), String> {
        if !self.pointer.starts_with('/') {
            return Err("needs a pointer like \"/0\" or \"/0/to\"".to_owned());
        }
        let tests = [
            self.equals.is_some(),
            self.one_of.is_some(),
            self.prefix.is_some(),
            self.range.is_some(),
            self.length.is_some(),
        ];
        if !tests.contains(&true) {
            return Err("needs at least one of equals, in, prefix, range and length".to_owned());
        }
        if [self.range, self.length].into_iter().flatten().any(|bounds| bounds.is_empty()) {
            return Err("has bounds that nothing can keep: give min, max or both, min first".to_owned());
        }
        Ok(())
    }

    /// What the arguments lack, in words without any of them.
    pub(super) fn judge(&self, args: &[Value]) -> Result<(), String> {
        let pointer = &self.pointer;
        let Some(value) = look_up(args, pointer) else {
            return if self.or_absent { Ok(()) } else { Err(format!("the argument {pointer} is missing")) };
        };
        let broken = |test: &str| Err(format!("the argument {pointer} breaks {test}"));
        if self.equals.as_ref().is_some_and(|wanted| !same(wanted, value)) {
            return broken("equals");
        }
        if self.one_of.as_ref().is_some_and(|wanted| !wanted.iter().any(|wanted| same(wanted, value))) {
            return broken("in");
        }
        if self.prefix.as_ref().is_some_and(|prefix| !value.as_str().is_some_and(|text| text.starts_with(prefix))) {
            return broken("prefix");
        }
        if self.range.is_some_and(|range| !value.as_f64().is_some_and(|number| range.hold(number))) {
            return broken("range");
        }
        if self.length.is_some_and(|length| !size(value).is_some_and(|size| length.hold(size))) {
            return broken("length");
        }
        Ok(())
    }
}

fn look_up<'a>(args: &'a [Value], pointer: &str) -> Option<&'a Value> {
    let path = pointer.strip_prefix('/')?;
    let (index, rest) = path.split_once('/').map_or((path, None), |(index, rest)| (index, Some(rest)));
    let plain = !index.is_empty()
        && index.bytes().all(|byte| byte.is_ascii_digit())
        && (index == "0" || !index.starts_with('0'));
    let value = args.get(index.parse::<usize>().ok().filter(|_| plain)?)?;
    rest.map_or(Some(value), |rest| value.pointer(&format!("/{rest}")))
}

#[expect(clippy::cast_precision_loss, reason = "no string or array has 2^53 parts")]
fn size(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => Some(text.chars().count() as f64),
        Value::Array(items) => Some(items.len() as f64),
        _ => None,
    }
}

/// Equality as JavaScript's programs see it: 1 and 1.0 are one number.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, value)| other.get(key).is_some_and(|other| same(value, other)))
        }
        _ => one == other,
    }
}
