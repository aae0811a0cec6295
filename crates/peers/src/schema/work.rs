//! How much work a check is, before it is done.
//!
//! A validator may hold every part of a schema to every value in a document, and every character of its texts.

use serde_json::Value;

/// Bytes of text that cost as much as one value. Measured: 3 to 20 ns a byte for a format or a plain pattern.
const BYTES: usize = 32;

/// Parts times values, and times each [`BYTES`] of text, for one call or result.
///
/// Measured at 5 to 50 ns each, so at most about two seconds. 4 MiB of records with 50 fields are 31 million.
pub(super) const MOST: usize = 40_000_000;

/// Work of this much and more is not for a thread that serves others: parts times values and bytes.
const LONG: usize = 20_000;

/// Memory in bytes for the errors of one value.
const ERRORS: usize = 32 * 1024 * 1024;

/// Memory in bytes of one error without its pointer. Measured: 458.
const ERROR: usize = 512;

/// What a value consists of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// Values in it, itself included.
    pub values: usize,
    /// Bytes of its strings and keys.
    pub bytes: usize,
}

/// Whether so much work is not for a thread that serves others.
pub(super) fn is_long(work: usize) -> bool {
    work > LONG
}

impl Size {
    /// Recurses as deep as the value.
    pub(super) fn of(value: &Value) -> Self {
        let mut size = Self::default();
        size.add(value);
        size
    }

    fn add(&mut self, value: &Value) {
        self.values += 1;
        match value {
            Value::String(text) => self.bytes += text.len(),
            Value::Array(items) => items.iter().for_each(|item| self.add(item)),
            Value::Object(members) => members.iter().for_each(|(key, member)| {
                self.bytes += key.len();
                self.add(member);
            }),
            _ => {}
        }
    }

    /// To be held to [`MOST`], together with what patterns and formats read.
    pub(super) fn work(self, parts: usize) -> usize {
        (self.values + self.bytes / BYTES).saturating_mul(parts)
    }

    /// Whether checking may take longer than a thread that serves others should be kept.
    pub(super) fn is_long(self, parts: usize) -> bool {
        is_long((self.values + self.bytes).saturating_mul(parts))
    }

    /// Whether the validator may collect all errors. Each may have a pointer as long as all keys.
    pub(super) fn errors_fit(self, parts: usize) -> bool {
        self.values.saturating_mul(parts).saturating_mul(ERROR + self.bytes) <= ERRORS
    }
}
