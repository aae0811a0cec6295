//! JSON from a guest, read so that nothing hostile gets further: bounded in size and depth, no key twice, no number
//! that the other end would silently see as another one.
//!
//! Owns the rules that hold for every JSON text of a guest. Must not know what the text is about.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use thiserror::Error;

/// Deepest nesting of arrays and objects in arguments, results and manifests.
///
/// Far above what an SDK's values need, and low enough for every recursive reader: `serde_json` stops at 128.
pub const MAX_DEPTH: usize = 64;

/// Arrays and objects in one text.
///
/// `{"":0}` are 6 bytes of text and 650 of memory, so this is at most 65 MB. A megabyte of records has 50,000; numbers and
/// strings need no bound, as they take at most 20 times the bytes of their text.
pub const MAX_CONTAINERS: usize = 100_000;

/// How much of a JSON text is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the text.
    pub bytes: usize,
    /// Arrays and objects within each other, at most [`MAX_DEPTH`].
    pub depth: usize,
}

/// A JSON text that is refused. The messages quote at most a short piece of it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JsonError {
    /// More bytes than allowed.
    #[error("the JSON has {bytes} bytes; at most {limit} are allowed")]
    Size {
        /// Its size.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Nested too deeply.
    #[error("the JSON is nested more than {limit} levels deep")]
    Depth {
        /// The limit in levels.
        limit: usize,
    },
    /// Too many arrays and objects.
    #[error("the JSON has more than {MAX_CONTAINERS} arrays and objects")]
    Containers,
    /// JavaScript would read another number than the one that is written.
    #[error("the number {literal} does not fit a JavaScript number exactly; send it as a string")]
    Number {
        /// The number as written, shortened.
        literal: String,
    },
    /// Not JSON, or an object with the same key twice.
    #[error("not valid JSON: {0}")]
    Syntax(String),
}

/// Reads one JSON value.
pub fn parse(text: &[u8], limits: Limits) -> Result<Value, JsonError> {
    if text.len() > limits.bytes {
        return Err(JsonError::Size { bytes: text.len(), limit: limits.bytes });
    }
    scan(text, limits.depth.min(MAX_DEPTH))?;
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Strict.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    value.map_err(|error| JsonError::Syntax(error.to_string()))
}

/// Depth of a value: 0 for a scalar.
pub fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// One pass over the tokens for what `serde_json` does not tell: depth before recursing, containers before they take
/// memory, and numbers as written.
fn scan(text: &[u8], limit: usize) -> Result<(), JsonError> {
    let (mut depth, mut containers, mut at) = (0_usize, 0_usize, 0);
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => at = string_end(text, at + 1),
            b'[' | b'{' => {
                depth += 1;
                if depth > limit {
                    return Err(JsonError::Depth { limit });
                }
                containers += 1;
                if containers > MAX_CONTAINERS {
                    return Err(JsonError::Containers);
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'-' | b'0'..=b'9' => {
                let length = text[at..].iter().take_while(|byte| is_number_byte(**byte)).count();
                check_number(&text[at..at + length])?;
                at += length - 1;
            }
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// Index of the quote that ends a string, or the end of the text.
fn string_end(text: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => return at,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

fn is_number_byte(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

/// Refuses integers that a double cannot hold and that no JavaScript program would have written for a double it has,
/// and numbers beyond a double's range. A fraction is rounded to the nearest double, as everywhere.
fn check_number(literal: &[u8]) -> Result<(), JsonError> {
    /// Every integer of so few digits is a double.
    const EXACT_DIGITS: usize = 15;
    if literal.len() <= EXACT_DIGITS && !literal.iter().any(|byte| matches!(byte, b'e' | b'E')) {
        return Ok(());
    }
    let text = String::from_utf8_lossy(literal);
    let Ok(number) = text.parse::<f64>() else { return Ok(()) };
    let is_integer = literal.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'-'));
    let kept = number.is_finite() && (!is_integer || text == format!("{number}") || text == format!("{number:.0}"));
    if kept { Ok(()) } else { Err(JsonError::Number { literal: text.chars().take(40).collect() }) }
}

/// Builds a [`Value`] and refuses an object that names a key twice: two readers of it could each believe another one.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(Self)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            let value = members.next_value_seed(Self)?;
            if object.contains_key(&key) {
                let short: String = key.chars().take(40).collect();
                return Err(A::Error::custom(format_args!("the key {short:?} is there twice")));
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { bytes: 100_000, depth: MAX_DEPTH };

    fn read(text: &str) -> Result<Value, JsonError> {
        parse(text.as_bytes(), LIMITS)
    }

    #[test]
    fn depth_is_bounded_before_anything_recurses() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert_eq!(depth(&read(&deep(MAX_DEPTH)).unwrap()), MAX_DEPTH);
        assert_eq!(read(&deep(MAX_DEPTH + 1)), Err(JsonError::Depth { limit: MAX_DEPTH }));
        assert_eq!(read(&"[".repeat(90_000)), Err(JsonError::Depth { limit: MAX_DEPTH }));
        read(r#"["[[[[\"[[[", "{{{{"]"#).unwrap();
    }

    #[test]
    fn a_number_is_itself_or_refused() {
        for kept in [
            "0",
            "-1",
            "9007199254740991",
            "18446744073709551616",
            "18446744073709552000",
            "100000000000000000000",
            "1e308",
            "0.1000000000000000055511151231257827",
            "-9007199254740992",
        ] {
            read(kept).unwrap_or_else(|error| panic!("{kept}: {error}"));
        }
        for lost in ["9007199254740993", "12345678901234567890123", "1e309", "-1e999", "18446744073709551615"] {
            assert!(matches!(read(lost), Err(JsonError::Number { .. })), "{lost}");
        }
        assert!(matches!(read("NaN"), Err(JsonError::Syntax(_))));
        assert!(matches!(read("1-2"), Err(JsonError::Syntax(_))));
    }

    #[test]
    fn a_key_may_be_there_once() {
        let error = read(r#"{"a":1,"b":{"x":1,"x":2}}"#).unwrap_err();
        assert_eq!(error.to_string(), r#"not valid JSON: the key "x" is there twice at line 1 column 24"#);
        read(r#"{"__proto__":1,"constructor":2}"#).unwrap();
    }

    #[test]
    fn containers_are_bounded() {
        let read = |item: &str, count: usize| {
            let text = format!("[{}]", vec![item; count].join(","));
            parse(text.as_bytes(), Limits { bytes: 2_000_000, depth: MAX_DEPTH })
        };
        assert_eq!(read(r#"{"":0}"#, 131_000), Err(JsonError::Containers));
        assert_eq!(read("[0]", MAX_CONTAINERS), Err(JsonError::Containers));
        read("[0]", MAX_CONTAINERS - 1).unwrap();
        read(r#""[{""#, MAX_CONTAINERS).unwrap();
        // A million bytes.
        read(r#"{"id":12,"n":"ab"}"#, 52_600).unwrap();
        read("255", 250_000).unwrap();
    }

    #[test]
    fn size_comes_first() {
        let error = parse(b"[1,2,3]", Limits { bytes: 6, depth: 1 }).unwrap_err();
        assert_eq!(error, JsonError::Size { bytes: 7, limit: 6 });
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let ours = parse(&text, LIMITS);
            if let Ok(value) = ours {
                prop_assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), value);
            }
        }

        #[test]
        fn what_a_double_prints_is_read(number in any::<f64>().prop_filter("finite", |n| n.is_finite())) {
            let text = serde_json::to_string(&number).unwrap();
            prop_assert_eq!(read(&text).unwrap().as_f64(), Some(number));
        }
    }
}
