//! Patterns for exports.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest pattern in bytes.
const LONGEST: usize = 1024;

/// `module#export`, such as `sdk/mail.ts#send`. A `*` stands for any number of any characters but `#`, so `*#*` is
/// every export and `sdk/*#get*` every export with such a name anywhere under `sdk`. Upper and lower case differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(String);

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let ends = text.split_once('#').filter(|(module, export)| !module.is_empty() && !export.is_empty());
        match ends {
            Some((_, export)) if !export.contains('#') && text.len() <= LONGEST => Ok(Self(text)),
            _ => Err("a pattern is \"module#export\", such as \"sdk/mail.ts#send\" or \"*#get*\"".to_owned()),
        }
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Pattern {
    /// Whether it matches `target`, a module's path, `#` and an export's name.
    pub(super) fn matches(&self, target: &str) -> bool {
        // A path may hold a `#` of its own; an export's name can not.
        let (Some((module, export)), Some((path, name))) = (self.0.split_once('#'), target.rsplit_once('#')) else {
            return false;
        };
        glob(module, path) && glob(export, name)
    }
}

/// Whether `pattern` matches the whole of `text`. The pieces between stars are looked for from left to right.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((first, pieces)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let (middle, last) = pieces.rsplit_once('*').unwrap_or(("", pieces));
    for piece in middle.split('*') {
        let Some((_, after)) = rest.split_once(piece) else { return false };
        rest = if piece.is_empty() { rest } else { after };
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, target: &str) -> bool {
        Pattern::try_from(pattern.to_owned()).unwrap().matches(target)
    }

    #[test]
    fn stars_stand_for_anything_on_their_side() {
        assert!(matches("*#*", "sdk/mail.ts#send") && matches("sdk/*#s*d", "sdk/a/b.ts#send"));
        assert!(matches("a*b*c#x", "a--b--b--c#x") && matches("**#**", "a.ts#x") && matches("*.ts#*", "a#b.ts#x"));
        assert!(!matches("a.ts#send", "a.ts#sends") && !matches("*a*#x", "bcd.ts#x") && !matches("a*ba#x", "aba.ts#x"));
        assert!(
            !matches("ab*ba#x", "aba#x") && !matches("sdk/*#*", "other/sdk/a.ts#x") && !matches("*#SEND", "a.ts#send")
        );
        for wrong in ["", "*", "a.ts", "#x", "a.ts#", "a#b#c"] {
            assert!(Pattern::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn as_a_plain_search_would(pattern in "[ab*]{1,8}", text in "[ab]{0,8}") {
            prop_assert_eq!(glob(&pattern, &text), slow(pattern.as_bytes(), text.as_bytes()));
        }
    }

    fn slow(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|skip| slow(rest, &text[skip..])),
            Some((byte, rest)) => text.split_first().is_some_and(|(first, text)| first == byte && slow(rest, text)),
        }
    }
}
