//! Striking a provider's secret values out of what leaves it: errors, results, output.
//!
//! A value is found as it is, in base64 (standard and URL alphabet, padded or not, also inside a longer encoded text), in
//! hex (also with spaces between the bytes), as a list of its bytes in decimal, and all of these with any of their
//! characters escaped as in URLs (`%2F`), JSON or JavaScript (`\/`, `\u002f`, `\x2f`), three levels deep. In JSON, also as a
//! number and as an array of bytes. One pass per level: the time grows with the length of the text alone.
//!
//! **What it is not.** It catches mistakes: an SDK that puts a token into an error's message. A provider that wants to
//! give its secret away can (reversed, in two halves, encrypted); its code was trusted with it. Values shorter than
//! [`SHORTEST`] are not struck: they stand in too many innocent texts.
//!
//! Owns the encodings. Must not know where secrets come from. A [`Striker`] holds copies of them in memory that are not
//! wiped: keep it only where the secrets are held anyway.

mod escapes;

use std::collections::BTreeSet;
use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind, BuildError, MatchKind};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use escapes::View;

/// Length in bytes of the shortest value that is struck.
pub const SHORTEST: usize = 6;

/// What stands for a struck value.
pub const STRUCK: &str = "[redacted]";

/// Escapes within escapes that are looked through.
const LEVELS: usize = 3;

/// Something with the secrets struck out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Struck<T> {
    /// The text or value that may be passed on.
    pub value: T,
    /// How many places were struck.
    pub strikes: usize,
}

/// Finds values as they are, and in no other form.
pub struct Verbatim(AhoCorasick);

impl Verbatim {
    /// Prepares for values that are not empty. Fails if they are too many or too long for one automaton (gigabytes).
    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Result<Self, BuildError> {
        let distinct: BTreeSet<&str> = values.into_iter().filter(|value| !value.is_empty()).collect();
        // Of two that begin at the same place the longer one, so that no part of it stays.
        builder().match_kind(MatchKind::LeftmostLongest).build(distinct).map(Self)
    }

    /// A text with [`STRUCK`] in the place of each value.
    pub fn text(&self, text: &str) -> String {
        let mut struck = String::with_capacity(text.len());
        self.0.replace_all_with(text, &mut struck, |_, _, struck| {
            struck.push_str(STRUCK);
            true
        });
        struck
    }

    /// Whether a text has one.
    pub fn is_in(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

/// Finds the secrets of one provider.
pub struct Striker {
    patterns: AhoCorasick,
    /// For each pattern: its neighbours in base64 hold a few bits of the secret, too.
    is_base64: Vec<bool>,
}

impl std::fmt::Debug for Striker {
    /// Never shows a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Striker").field("patterns", &self.is_base64.len()).finish_non_exhaustive()
    }
}

impl Striker {
    /// Prepares for secret values, which takes some 300 bytes of memory and 10 µs for each byte of them. Fails if they are too
    /// many or too long for one automaton (gigabytes).
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Result<Self, BuildError> {
        let mut patterns: Vec<(Vec<u8>, bool)> = Vec::new();
        for secret in secrets.into_iter().filter(|secret| secret.len() >= SHORTEST) {
            let mut forms: Vec<Vec<u8>> = vec![secret.as_bytes().to_vec(), secret.replace(' ', "+").into_bytes()];
            // A text's escapes are undone together with those that the secret itself happens to contain.
            let mut view = View::of(secret.as_bytes());
            while let Some(decoded) = view.decoded().filter(|_| forms.len() < LEVELS + 2) {
                forms.push(decoded.bytes().to_vec());
                view = decoded;
            }
            forms.retain(|form| form.len() >= SHORTEST);
            patterns.extend(forms.into_iter().map(|form| (form, false)));
            patterns.extend(hex(secret.as_bytes()).map(|form| (form, false)));
            patterns.extend(lists(secret.as_bytes()).map(|form| (form, false)));
            patterns.extend(base64(secret.as_bytes()).map(|form| (form, true)));
        }
        patterns.sort();
        patterns.dedup();
        let (texts, is_base64): (Vec<_>, Vec<_>) = patterns.into_iter().unzip();
        Ok(Self { patterns: builder().build(texts)?, is_base64 })
    }

    /// Strikes secrets out of a text.
    pub fn text(&self, text: &str) -> Struck<String> {
        let found = self.find(text);
        let mut value = String::with_capacity(text.len());
        let mut kept = 0;
        for place in &found {
            value.push_str(text.get(kept..place.start).unwrap_or_default());
            value.push_str(STRUCK);
            kept = place.end;
        }
        value.push_str(text.get(kept..).unwrap_or_default());
        Struck { value, strikes: found.len() }
    }

    /// Strikes secrets out of every string, key, number and array of bytes of a value.
    pub fn json(&self, value: Value) -> Struck<Value> {
        let mut strikes = 0;
        let value = self.json_counting(value, &mut strikes);
        Struck { value, strikes }
    }

    fn json_counting(&self, value: Value, strikes: &mut usize) -> Value {
        match value {
            Value::String(text) => Value::String(self.text_counting(&text, strikes)),
            Value::Number(number) if !self.find(&number.to_string()).is_empty() => {
                *strikes += 1;
                STRUCK.into()
            }
            Value::Array(items) if self.holds_bytes(&items) => {
                *strikes += 1;
                STRUCK.into()
            }
            Value::Array(items) => items.into_iter().map(|item| self.json_counting(item, strikes)).collect(),
            Value::Object(members) if self.holds_numbered_bytes(&members) => {
                *strikes += 1;
                STRUCK.into()
            }
            Value::Object(members) => {
                let mut object = Map::new();
                for (key, member) in members {
                    object.insert(self.text_counting(&key, strikes), self.json_counting(member, strikes));
                }
                Value::Object(object)
            }
            other => other,
        }
    }

    fn text_counting(&self, text: &str, strikes: &mut usize) -> String {
        let struck = self.text(text);
        *strikes += struck.strikes;
        struck.value
    }

    fn holds_bytes(&self, items: &[Value]) -> bool {
        let bytes: Option<Vec<u8>> = items.iter().map(byte).collect();
        bytes.is_some_and(|bytes| self.patterns.is_match(&bytes))
    }

    /// As `JSON.stringify` writes a `Uint8Array`: `{"0":104,"1":117}`.
    fn holds_numbered_bytes(&self, members: &Map<String, Value>) -> bool {
        let numbered = (0..members.len()).map(|index| members.get(&index.to_string()).and_then(byte));
        let bytes: Option<Vec<u8>> = numbered.collect();
        bytes.is_some_and(|bytes| self.patterns.is_match(&bytes))
    }

    /// The places of secrets in a text: in order, apart from each other, at boundaries of characters.
    fn find(&self, text: &str) -> Vec<Range<usize>> {
        let mut places: Vec<Range<usize>> = Vec::new();
        let mut view = View::of(text.as_bytes());
        for level in 0..=LEVELS {
            for found in self.patterns.find_overlapping_iter(view.bytes()) {
                let place = view.original(found.range());
                let place =
                    if self.is_base64[found.pattern().as_usize()] { widen(text.as_bytes(), place) } else { place };
                let place = text.floor_char_boundary(place.start)..text.ceil_char_boundary(place.end);
                // Matches come in the order of their ends, so overlapping ones are mostly neighbours.
                match places.last_mut() {
                    Some(last) if place.start >= last.start && place.start <= last.end => {
                        last.end = last.end.max(place.end);
                    }
                    _ => places.push(place),
                }
            }
            match view.decoded() {
                Some(decoded) if level < LEVELS => view = decoded,
                _ => break,
            }
        }
        merge(places)
    }
}

/// What the library chooses for few patterns takes a kilobyte for each byte of them.
fn builder() -> AhoCorasickBuilder {
    let mut builder = AhoCorasick::builder();
    builder.kind(Some(AhoCorasickKind::ContiguousNFA));
    builder
}

fn byte(value: &Value) -> Option<u8> {
    value.as_u64().and_then(|number| u8::try_from(number).ok())
}

fn merge(mut places: Vec<Range<usize>>) -> Vec<Range<usize>> {
    places.sort_by_key(|place| place.start);
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(places.len());
    for place in places {
        match merged.last_mut() {
            Some(last) if place.start <= last.end => last.end = last.end.max(place.end),
            _ => merged.push(place),
        }
    }
    merged
}

/// Takes in the characters on both sides that hold the remaining bits, and the padding.
fn widen(text: &[u8], place: Range<usize>) -> Range<usize> {
    let is_base64 = |at: usize| text.get(at).is_some_and(|byte| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte));
    let start = place.start - usize::from(place.start > 0 && is_base64(place.start - 1));
    let end = place.end + usize::from(is_base64(place.end));
    let padding = text[end..].iter().take(2).take_while(|byte| **byte == b'=').count();
    start..end + padding
}

fn hex(secret: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    [hex::encode_upper(secret), hex::encode(secret)].map(String::into_bytes).into_iter()
}

/// As runtimes print an array of bytes: `<Buffer 68 75>`, `104,117`, `[ 104, 117 ]`.
fn lists(secret: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let hex: Vec<String> = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let decimal: Vec<String> = secret.iter().map(u8::to_string).collect();
    [hex.join(" "), decimal.join(","), decimal.join(", ")].map(String::into_bytes).into_iter()
}

/// The characters that a secret determines by itself in base64, for each place of its first byte in a group of three.
fn base64(secret: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let of = |before: usize| {
        let padded = [vec![0; before], secret.to_vec()].concat();
        let whole = (before * 8).div_ceil(6)..padded.len() * 8 / 6;
        [STANDARD_NO_PAD.encode(&padded), URL_SAFE_NO_PAD.encode(&padded)]
            .map(|encoded| encoded.as_bytes()[whole.clone()].to_vec())
    };
    [of(0), of(1), of(2)].into_iter().flatten()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
