//! How large a schema is once its references are followed.
//!
//! Forty definitions that each refer twice to the next one are a small document and a trillion checks. So references
//! are followed once, before a schema is compiled, and what grows too much is refused. So is a schema that contains
//! itself: `{"allOf": [{"$ref": "#"}, {"$ref": "#"}]}` below a property takes time that doubles with each level of a value
//! (measured: no answer in a minute at 40 levels).

use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::SchemaFault;
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
#[derive(Debug, Clone, Copy)]
pub(super) struct Expanded {
    /// Subschemas and keywords once references are followed.
    pub parts: usize,
    /// It has `anyOf` or `oneOf`, for which the validator collects the errors of every branch.
    pub branches: bool,
}

/// Refuses references that leave the schema or the bounds.
pub(super) fn check(schema: &Value) -> Result<Expanded, SchemaFault> {
    let mut walk = Walk { root: schema, inside: Vec::new(), visited: 0, unchecked: 0, options: 0, branches: false };
    walk.subschema(schema, "")?;
    // Without the definitions below: nothing is checked against those that no reference leads to.
    let expanded = Expanded { parts: walk.visited - walk.unchecked + walk.options / OPTIONS, branches: walk.branches };
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
    visited: usize,
    /// Those of `visited` that cost no check of their own.
    unchecked: usize,
    /// Values of `enum` and `const`.
    options: usize,
    branches: bool,
}

impl<'a> Walk<'a> {
    fn subschema(&mut self, value: &'a Value, at: &str) -> Result<(), SchemaFault> {
        self.visited += 1;
        if self.visited > SUBSCHEMAS {
            return Err(fault(
                at,
                format!("the schema has more than {SUBSCHEMAS} parts once its references are followed"),
            ));
        }
        match value {
            Value::Array(items) => {
                items.iter().enumerate().try_for_each(|(index, item)| self.subschema(item, &format!("{at}/{index}")))
            }
            Value::Object(members) => {
                members.iter().try_for_each(|(key, member)| self.member(key, member, at))?;
                let again = AGAIN * UNEVALUATED.iter().filter(|key| members.contains_key(**key)).count();
                let in_place = || IN_PLACE.iter().filter_map(|key| members.get_key_value(*key));
                (0..again).try_for_each(|_| in_place().try_for_each(|(key, member)| self.member(key, member, at)))
            }
            _ => Ok(()),
        }
    }

    fn member(&mut self, key: &str, value: &'a Value, at: &str) -> Result<(), SchemaFault> {
        let at_member = || format!("{at}/{}", escape(key));
        self.unchecked += match (key, value) {
            ("title" | "description" | "$comment", Value::String(_)) => 1,
            ("type", Value::Array(types)) => types.len(),
            _ => 0,
        };
        self.branches |= matches!(key, "anyOf" | "oneOf");
        match (key, value) {
            ("$ref", Value::String(reference)) => self.reference(reference, &at_member()),
            ("$dynamicRef" | "$recursiveRef", Value::String(_)) => {
                Err(fault(&at_member(), "is not supported; use a $ref like \"#/$defs/Name\""))
            }
            ("$id", Value::String(_)) if !at.is_empty() => {
                Err(fault(&at_member(), "is allowed at the top of a schema only"))
            }
            ("const" | "enum", _) => {
                self.options += Size::of(value).values;
                Ok(())
            }
            ("default" | "examples" | "$defs" | "definitions", _) => Ok(()),
            // Names chosen by the author, not keywords: a property may well be called `default`.
            ("properties" | "patternProperties" | "dependentSchemas" | "dependencies", Value::Object(named)) => named
                .iter()
                .try_for_each(|(name, schema)| self.subschema(schema, &format!("{}/{}", at_member(), escape(name)))),
            _ => self.subschema(value, &at_member()),
        }
    }

    fn reference(&mut self, reference: &'a str, at: &str) -> Result<(), SchemaFault> {
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
        let answer = self.subschema(target, at);
        self.inside.pop();
        answer
    }
}

fn fault(at: &str, message: impl Into<String>) -> SchemaFault {
    SchemaFault { pointer: at.to_owned(), message: message.into() }
}

fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
