//! How much memory a JSON text may come to, told before it is parsed, and whether it can be.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::limits::CONTAINERS;

/// Arrays and objects in a JSON text: each may take 660 bytes of memory, however short its text. The text need not be valid.
pub fn containers(text: &[u8]) -> usize {
    let (mut count, mut in_string, mut escaped) = (0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => count += 1,
            _ => {}
        }
    }
    count
}

/// Refuses a text that could not be parsed, or has more than [`CONTAINERS`] arrays and objects. It makes nothing of it, so it
/// takes no memory.
///
/// # Errors
/// Why it is refused.
pub fn check(text: &[u8]) -> serde_json::Result<()> {
    if containers(text) > CONTAINERS {
        return Err(Error::custom(format_args!("more than {CONTAINERS} arrays and objects")));
    }
    serde_json::from_slice(text).map(|Parsed| ())
}

/// Any value, read as it would be if it was kept: numbers, escapes and depth are looked at, unlike in a value to ignore.
struct Parsed;

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Parsed {
    type Value = Self;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while let Some(Self) = items.next_element()? {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        while let Some((Self, Self)) = members.next_entry()? {}
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_what_no_value_can_be_made_of() {
        let (deep, deeper) = (127, 128);
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        for text in ["null", "[1,-2,0.5,1e308,true]", r#"{"a":{"b":"\ud83d\ude00"}}"#, &nested(deep), " 1 "] {
            assert!(check(text.as_bytes()).is_ok(), "{text}");
        }
        for text in
            ["", "{", "[1,]", "1e999", "01", r#""\ud800""#, r#"{"\ud800":1}"#, "\"\u{1}\"", &nested(deeper), "1 1"]
        {
            assert!(check(text.as_bytes()).is_err(), "{text}");
            assert!(serde_json::from_str::<serde_json::Value>(text).is_err(), "{text}");
        }
        assert!(check(b"\"\xff\"").is_err());
        let many = format!("[{}0]", "[],".repeat(CONTAINERS));
        assert!(check(many.as_bytes()).is_err());
    }

    #[test]
    fn brackets_in_strings_are_none() {
        assert_eq!(containers(br#"[{"[{\"[":["\\"]},[]]"#), 4);
        assert_eq!(containers(b""), 0);
        assert_eq!(containers(br#""[[["#), 0);
    }
}
