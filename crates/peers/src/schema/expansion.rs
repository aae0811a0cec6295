//! How large a schema is once its references are followed.
//!
//! Forty definitions that each refer twice to the next one are a small document and a trillion checks. So references
//! are followed once, before a schema is compiled, and what grows too much is refused. So is a schema that contains
//! itself: `{"allOf": [{"$ref": "#"}, {"$ref": "#"}]}` below a property takes time that doubles with each level of a value
//! (measured: no answer in a minute at 40 levels).

use std::collections::HashMap;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::SchemaFault;
use super::patterns::Patterns;
use super::reads::{Price, Reads};
use super::work::Size;

/// Subschemas after following references.
const SUBSCHEMAS: usize = 10_000;

/// References within references. Together with the depth of values it bounds the validator's stack.
const NESTED: usize = 32;

/// Keywords whose schemas hold for the same value, or whose matches `unevaluatedItems` asks for again.
const IN_PLACE: [&str; 10] =
    ["allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "contains", "$ref"];

/// How often a keyword of [`UNEVALUATED`] checks them again. Measured: each level of nesting takes 2.5 times as long.
const AGAIN: usize = 2;

const UNEVALUATED: [&str; 2] = ["unevaluatedItems", "unevaluatedProperties"];

/// Values of `enum` and `const` that cost as much as one part. Measured: 10 ns and 5 to 50 ns.
const OPTIONS: usize = 4;

/// What a schema that passed asks of a validator.
#[derive(Debug)]
pub(super) struct Expanded {
    /// Subschemas and keywords once references are followed.
    pub parts: usize,
    /// It has `anyOf` or `oneOf`, for which the validator collects the errors of every branch.
    pub branches: bool,
    /// What its patterns and formats read.
    pub reads: Reads,
}

/// Refuses references that leave the schema or the bounds, and patterns that leave theirs.
pub(super) fn check(schema: &Value, patterns: &mut Patterns) -> Result<Expanded, SchemaFault> {
    let mut walk = Walk {
        root: schema,
        inside: Vec::new(),
        followed: HashMap::new(),
        patterns,
        units: HashMap::new(),
        visited: 0,
        unchecked: 0,
        options: 0,
        branches: false,
    };
    let reads = walk.subschema(schema, "")?;
    // Without the definitions below: nothing is checked against those that no reference leads to.
    let parts = walk.visited - walk.unchecked + walk.options / OPTIONS;
    let expanded = Expanded { parts, branches: walk.branches, reads };
    let definitions = ["$defs", "definitions"].into_iter().filter_map(|key| Some((key, schema.get(key)?.as_object()?)));
    for (key, members) in definitions {
        for (name, definition) in members {
            walk.subschema(definition, &format!("/{key}/{}", escape(name)))?;
        }
    }
    Ok(expanded)
}

/// The part of `root` that a local reference such as `#/$defs/Name` means.
pub(crate) fn resolve<'a>(root: &'a Value, reference: &str) -> Option<&'a Value> {
    let pointer = percent_decode_str(reference.strip_prefix('#')?).decode_utf8().ok()?;
    root.pointer(&pointer)
}

struct Walk<'a> {
    root: &'a Value,
    inside: Vec<&'a str>,
    /// What references lead to, by the reference.
    followed: HashMap<&'a str, Arc<Reads>>,
    patterns: &'a mut Patterns,
    /// Of each pattern of this schema. The validator compiles it once.
    units: HashMap<&'a str, usize>,
    visited: usize,
    /// Those of `visited` that cost no check of their own.
    unchecked: usize,
    /// Values of `enum` and `const`.
    options: usize,
    branches: bool,
}

impl<'a> Walk<'a> {
    fn subschema(&mut self, value: &'a Value, at: &str) -> Result<Reads, SchemaFault> {
        self.visited += 1;
        if self.visited > SUBSCHEMAS {
            return Err(fault(
                at,
                format!("the schema has more than {SUBSCHEMAS} parts once its references are followed"),
            ));
        }
        let mut reads = Reads::default();
        match value {
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    reads.add_same(Arc::new(self.subschema(item, &format!("{at}/{index}"))?));
                }
            }
            Value::Object(members) => {
                members.iter().try_for_each(|(key, member)| self.member(key, member, at, &mut reads))?;
                let again = AGAIN * UNEVALUATED.iter().filter(|key| members.contains_key(**key)).count();
                reads.names = reads.names.times(1 + again);
                let in_place = || IN_PLACE.iter().filter_map(|key| members.get_key_value(*key));
                for _ in 0..again {
                    in_place().try_for_each(|(key, member)| self.member(key, member, at, &mut reads))?;
                }
            }
            _ => {}
        }
        Ok(reads)
    }

    fn member(&mut self, key: &str, value: &'a Value, at: &str, reads: &mut Reads) -> Result<(), SchemaFault> {
        let at_member = || format!("{at}/{}", escape(key));
        self.unchecked += match (key, value) {
            ("title" | "description" | "$comment", Value::String(_)) => 1,
            ("type", Value::Array(types)) => types.len(),
            _ => 0,
        };
        self.branches |= matches!(key, "anyOf" | "oneOf");
        match (key, value) {
            ("$ref", Value::String(reference)) => reads.add_same(self.reference(reference, &at_member())?),
            ("$dynamicRef" | "$recursiveRef", Value::String(_)) => {
                return Err(fault(&at_member(), "is not supported; use a $ref like \"#/$defs/Name\""));
            }
            ("$id", Value::String(_)) if !at.is_empty() => {
                return Err(fault(&at_member(), "is allowed at the top of a schema only"));
            }
            ("const" | "enum", _) => self.options += Size::of(value).values,
            ("default" | "examples" | "$defs" | "definitions", _) => {}
            // Names chosen by the author, not keywords: a property may well be called `default`.
            ("properties" | "patternProperties" | "dependentSchemas" | "dependencies", Value::Object(named)) => {
                for (name, schema) in named {
                    let at = format!("{}/{}", at_member(), escape(name));
                    if key == "patternProperties" {
                        reads.names += self.pattern(name, &at)?;
                    }
                    let inner = Arc::new(self.subschema(schema, &at)?);
                    match key {
                        "properties" => reads.add_property(name, inner),
                        "patternProperties" => reads.add_each(inner),
                        _ => reads.add_same(inner),
                    }
                }
            }
            _ => {
                let inner = Arc::new(self.subschema(value, &at_member())?);
                match (key, value) {
                    ("pattern", Value::String(pattern)) => reads.text += self.pattern(pattern, &at_member())?,
                    ("format", Value::String(format)) => reads.text += Price::of_format(format),
                    ("propertyNames", _) => reads.names += inner.text,
                    ("allOf" | "anyOf" | "oneOf" | "not" | "if" | "then" | "else", _) => reads.add_same(inner),
                    _ => reads.add_each(inner),
                }
            }
        }
        Ok(())
    }

    fn pattern(&mut self, pattern: &'a str, at: &str) -> Result<Price, SchemaFault> {
        let units = match self.units.get(pattern) {
            Some(units) => *units,
            None => self.patterns.add(pattern).map_err(|message| fault(at, message))?,
        };
        self.units.insert(pattern, units);
        Ok(Price::of_pattern(units))
    }

    fn reference(&mut self, reference: &'a str, at: &str) -> Result<Arc<Reads>, SchemaFault> {
        if self.inside.contains(&reference) {
            return Err(fault(at, "the schema contains itself; recursive types are not supported"));
        }
        if self.inside.len() == NESTED {
            return Err(fault(at, format!("references are nested more than {NESTED} deep")));
        }
        let local = reference == "#" || reference.starts_with("#/");
        let target = if local { resolve(self.root, reference) } else { None };
        let Some(target) = target else {
            return Err(fault(at, "must refer to a part of the same schema, like \"#/$defs/Name\""));
        };
        self.inside.push(reference);
        let reads = self.subschema(target, at)?;
        self.inside.pop();
        Ok(Arc::clone(self.followed.entry(reference).or_insert_with(|| Arc::new(reads))))
    }
}

fn fault(at: &str, message: impl Into<String>) -> SchemaFault {
    SchemaFault { pointer: at.to_owned(), message: message.into() }
}

fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
