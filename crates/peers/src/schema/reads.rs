//! What patterns and formats cost for one value, before it is checked.
//!
//! Most texts of a value are read by no pattern, or by a small one. So this follows the schema as the validator does,
//! and counts for each text the patterns that may read it.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::Arc;

use serde_json::Value;

/// Bytes of text whose square costs one unit where it has to be a regular expression. Measured: names of groups are
/// compared with each other, 7 s for a megabyte of them.
const SQUARE: usize = 4096;

/// The patterns and formats of a schema, by what they read of a value.
///
/// Schemas that a reference leads to are shared, so it is no larger than the schema.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Of the value, if it is a text. Includes what [`Self::same`] says.
    pub text: Price,
    /// Of the name of each property. Includes what [`Self::same`] says.
    pub names: Price,
    same: Vec<Arc<Self>>,
    properties: BTreeMap<String, Vec<Arc<Self>>>,
    each: Vec<Arc<Self>>,
}

/// Units of work for one text.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Price {
    /// For each byte.
    bytes: usize,
    /// For each [`SQUARE`] of its square.
    squares: usize,
}

impl Reads {
    /// Adds a schema for the same value.
    pub(super) fn add_same(&mut self, other: Arc<Self>) {
        self.text += other.text;
        self.names += other.names;
        if !other.ends_here() {
            self.same.push(other);
        }
    }

    /// Adds a schema for the property of that name.
    pub(super) fn add_property(&mut self, name: &str, other: Arc<Self>) {
        if !other.is_empty() {
            self.properties.entry(name.to_owned()).or_default().push(other);
        }
    }

    /// Adds a schema for items and properties, whichever they are.
    pub(super) fn add_each(&mut self, other: Arc<Self>) {
        if !other.is_empty() {
            self.each.push(other);
        }
    }

    /// Units of work for a value. Looks at each value once for each schema that holds for it.
    pub(super) fn work(&self, value: &Value) -> usize {
        match value {
            Value::String(text) => self.text.of(text),
            Value::Object(members) if self.names != Price::default() => {
                members.keys().fold(self.below(value), |work, name| work.saturating_add(self.names.of(name)))
            }
            Value::Array(_) | Value::Object(_) => self.below(value),
            _ => 0,
        }
    }

    /// Without the value's own names.
    fn below(&self, value: &Value) -> usize {
        let same: usize = sum(self.same.iter().map(|reads| reads.below(value)));
        let here = match value {
            Value::Array(items) if !self.each.is_empty() => sum(items.iter().map(|item| work(&self.each, item))),
            Value::Object(members) if !self.each.is_empty() || !self.properties.is_empty() => {
                sum(members.iter().map(|(name, member)| {
                    let named = self.properties.get(name).map_or(0, |reads| work(reads, member));
                    named.saturating_add(work(&self.each, member))
                }))
            }
            _ => 0,
        };
        same.saturating_add(here)
    }

    fn ends_here(&self) -> bool {
        self.same.is_empty() && self.properties.is_empty() && self.each.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.ends_here() && self.text == Price::default() && self.names == Price::default()
    }
}

impl Price {
    pub(super) fn of_pattern(units: usize) -> Self {
        Self { bytes: units, squares: 0 }
    }

    pub(super) fn of_format(format: &str) -> Self {
        Self { bytes: 1, squares: usize::from(format == "regex") }
    }

    pub(super) fn times(self, factor: usize) -> Self {
        Self { bytes: self.bytes.saturating_mul(factor), squares: self.squares.saturating_mul(factor) }
    }

    /// An empty text is not free.
    fn of(self, text: &str) -> usize {
        let length = text.len() + 1;
        let squares = self.squares.saturating_mul(length.saturating_mul(length) / SQUARE);
        self.bytes.saturating_mul(length).saturating_add(squares)
    }
}

impl AddAssign for Price {
    fn add_assign(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.squares = self.squares.saturating_add(other.squares);
    }
}

fn work(reads: &[Arc<Reads>], value: &Value) -> usize {
    sum(reads.iter().map(|reads| reads.work(value)))
}

fn sum(units: impl Iterator<Item = usize>) -> usize {
    units.fold(0, usize::saturating_add)
}
