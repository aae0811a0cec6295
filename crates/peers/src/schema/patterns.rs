//! What regular expressions cost to compile and to run.
//!
//! The engine has no look-around and no back references, and its time is linear in the text. It is linear in the
//! compiled pattern, too: `[ab]*a[ab]{3000}[^ab]` is 200 KiB, and takes 12 µs for each byte of a text that avoids all
//! short cuts. So a pattern's size is found out when its schema is compiled, and a call pays for it.
//!
//! To compile a pattern costs as well, in time and in memory, so all patterns of a manifest share one allowance.

use std::collections::HashMap;

use jsonschema::{Draft, PatternOptions, ValidationOptions};
use serde_json::{Value, json};

/// Bytes of one pattern. Also bounds what its check against ECMA's grammar takes, which is quadratic.
const LONGEST: usize = 16 * 1024;

/// Memory in bytes for one compiled pattern, in each direction in which it is searched.
const LARGEST: usize = SIZES[SIZES.len() - 1];

/// Sizes that are told apart, in bytes. Few, as each one tried compiles the pattern anew.
const SIZES: [usize; 6] = [512, 2048, 8192, 24_576, 65_536, 262_144];

/// Bytes of a compiled pattern that cost one unit of work for each byte of text. Measured: 15 to 30 ns, and again if the
/// value does not fit.
const UNIT: usize = 256;

/// How many bytes of a compiled pattern cost as much as one of its text does where the validator compares alternatives
/// instead of compiling. Measured: 0.5 ns.
const COMPARED: usize = 4;

/// Bytes of all patterns of a manifest. Measured: at most 50 µs for each, on a busy machine.
const TEXT: usize = 128 * 1024;

/// Memory in bytes for all compiled patterns of a manifest. Measured: at most 0.12 ms for each KiB.
const COMPILED: usize = 32 * 1024 * 1024;

/// What a character counts of [`TEXT`] that may start a large class in a pattern with flags. Measured: 5 ms for
/// `\p{any}` in a pattern that ignores case.
const FOLDED: usize = 2048;

/// The patterns of a manifest, or of one schema.
#[derive(Debug, Default)]
pub(crate) struct Patterns {
    sizes: HashMap<String, usize>,
    text: usize,
    compiled: usize,
}

impl Patterns {
    /// Counts one more pattern, and tells the units of work that it takes for each byte of text. An error says why
    /// it is one too many.
    ///
    /// One that the engine refuses counts as the largest; what is wrong with it is for the validator to say.
    pub(super) fn add(&mut self, pattern: &str) -> Result<usize, String> {
        if pattern.len() > LONGEST {
            return Err(format!("is a pattern of more than {LONGEST} bytes"));
        }
        self.text = self.text.saturating_add(effort(pattern));
        if self.text > TEXT {
            return Err(format!(
                "is one pattern too many: all of a manifest may have {TEXT} bytes; after flags such as (?i), each \\p, \
                 \\x, \\u and each character beyond ASCII counts {FOLDED}, and each \\c counts the whole pattern again"
            ));
        }
        let size = self.size(pattern);
        self.compiled = self.compiled.saturating_add(size);
        if self.compiled > COMPILED {
            return Err(format!("is one pattern too many: all of a manifest may have {COMPILED} bytes once compiled"));
        }
        Ok(size.max(COMPARED * pattern.len()).div_ceil(UNIT))
    }

    /// The engine does not tell the size. It tells whether a limit suffices.
    fn size(&mut self, pattern: &str) -> usize {
        if let Some(size) = self.sizes.get(pattern) {
            return *size;
        }
        let schema = json!({ "pattern": pattern });
        let suffices = |limit: usize| options(limit).build(&schema).is_ok();
        let size = SIZES.get(SIZES.partition_point(|limit| !suffices(*limit))).copied().unwrap_or(LARGEST);
        self.sizes.insert(pattern.to_owned(), size);
        size
    }
}

/// How schemas are compiled.
pub(super) fn validator(schema: &Value) -> Result<jsonschema::Validator, jsonschema::ValidationError<'_>> {
    options(LARGEST).build(schema)
}

fn options(largest_pattern: usize) -> ValidationOptions<'static> {
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .should_validate_formats(true)
        .offline()
        .with_pattern_options(PatternOptions::regex().size_limit(largest_pattern).dfa_size_limit(LARGEST))
}

/// What a pattern counts of [`TEXT`].
fn effort(pattern: &str) -> usize {
    let pairs = || pattern.as_bytes().windows(2);
    // The translation from ECMA's grammar starts anew after each. Measured: 10 s for 16 KiB of them.
    let controls = pairs().filter(|pair| pair == b"\\c").count();
    let flags = pattern.as_bytes().windows(3).any(|three| three.starts_with(b"(?") && three[2].is_ascii_alphabetic());
    let folded = if flags {
        let escapes = pairs().filter(|pair| matches!(pair, [b'\\', b'p' | b'P' | b'x' | b'u' | b'U']));
        escapes.count() + pattern.chars().filter(|c| !c.is_ascii()).count()
    } else {
        0
    };
    pattern.len() * (1 + controls) + FOLDED * folded
}
