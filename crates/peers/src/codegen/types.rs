//! TypeScript types from JSON Schemas.
//!
//! A type is never narrower than its schema, with two exceptions that catch mistakes: an object that names its
//! properties and does not say whether others are allowed is typed without others, and a schema that names properties
//! or items without a `type` is typed as an object or array. What has no type in TypeScript (`not`, `if`, patterns,
//! ranges) is left to the validator; what is too large becomes `unknown`.

use serde_json::{Map, Value};

use super::text;
use crate::manifest::is_identifier;
use crate::schema::resolve;

/// Parts of one type, with the names that it only requires. One that has more is `unknown` as a whole.
const PARTS: usize = 1_000;

/// Bytes of one type: a short definition that holds a long text can be referred to hundreds of times.
const BYTES: usize = 64 * 1024;

/// Types within each other; beyond them it is `unknown`.
const DEPTH: usize = 24;

/// Whether the descriptions of properties become comments in the type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Docs {
    Shown,
    Hidden,
}

/// The type of a schema's values: a few times 64 KiB at most.
pub(super) fn type_of(schema: &Value, docs: Docs) -> String {
    let mut types = Types { root: schema, docs, parts: PARTS, bytes: BYTES };
    types.of(schema, 0).unwrap_or_else(Type::unknown).text
}

struct Type {
    text: String,
    /// A union or intersection, which needs parentheses inside another type.
    compound: bool,
}

impl Type {
    fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), compound: false }
    }

    fn unknown() -> Self {
        Self::new("unknown")
    }

    fn atom(self) -> String {
        if self.compound { format!("({})", self.text) } else { self.text }
    }
}

fn union(types: Vec<Type>) -> Type {
    if types.iter().any(|member| member.text == "unknown") {
        return Type::unknown();
    }
    join(types, " | ", "never")
}

fn intersection(mut types: Vec<Type>) -> Type {
    types.retain(|member| member.text != "unknown");
    join(types, " & ", "unknown")
}

fn join(types: Vec<Type>, operator: &str, none: &str) -> Type {
    let mut members: Vec<Type> = Vec::new();
    for member in types {
        if members.iter().all(|known| known.text != member.text) {
            members.push(member);
        }
    }
    if members.len() <= 1 {
        return members.pop().unwrap_or_else(|| Type::new(none));
    }
    let text = members.into_iter().map(Type::atom).collect::<Vec<_>>().join(operator);
    Type { text, compound: true }
}

/// Each method gives `None` when the type has become too large.
struct Types<'a> {
    root: &'a Value,
    docs: Docs,
    /// Parts that it may still have.
    parts: usize,
    /// Bytes that its names and texts may still have.
    bytes: usize,
}

impl<'a> Types<'a> {
    fn of(&mut self, schema: &'a Value, depth: usize) -> Option<Type> {
        self.part()?;
        if depth > DEPTH {
            return Some(Type::unknown());
        }
        match schema {
            Value::Bool(false) => Some(Type::new("never")),
            Value::Object(members) => self.of_object_schema(members, depth + 1),
            _ => Some(Type::unknown()),
        }
    }

    fn of_each(&mut self, schemas: &'a [Value], depth: usize) -> Option<Vec<Type>> {
        schemas.iter().map(|schema| self.of(schema, depth)).collect()
    }

    fn of_object_schema(&mut self, schema: &'a Map<String, Value>, depth: usize) -> Option<Type> {
        if let Some(value) = schema.get("const") {
            return self.literal(value, depth);
        }
        if let Some(Value::Array(values)) = schema.get("enum") {
            return Some(union(values.iter().map(|value| self.literal(value, depth)).collect::<Option<_>>()?));
        }
        let mut parts = vec![self.base(schema, depth)?];
        if let Some(Value::String(reference)) = schema.get("$ref") {
            parts.push(match resolve(self.root, reference) {
                Some(target) => self.of(target, depth)?,
                None => Type::unknown(),
            });
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(Value::Array(choices)) = schema.get(key) {
                parts.push(union(self.of_each(choices, depth)?));
            }
        }
        if let Some(Value::Array(all)) = schema.get("allOf") {
            parts.extend(self.of_each(all, depth)?);
        }
        Some(intersection(parts))
    }

    fn base(&mut self, schema: &'a Map<String, Value>, depth: usize) -> Option<Type> {
        let named: Vec<&str> = match schema.get("type") {
            Some(Value::String(name)) => vec![name],
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ if ["properties", "required", "additionalProperties"].iter().any(|key| schema.contains_key(*key)) => {
                vec!["object"]
            }
            _ if ["items", "prefixItems"].iter().any(|key| schema.contains_key(*key)) => vec!["array"],
            _ => return Some(Type::unknown()),
        };
        Some(union(named.into_iter().map(|name| self.named(name, schema, depth)).collect::<Option<_>>()?))
    }

    fn named(&mut self, name: &str, schema: &'a Map<String, Value>, depth: usize) -> Option<Type> {
        match name {
            "string" | "boolean" | "null" => Some(Type::new(name)),
            "number" | "integer" => Some(Type::new("number")),
            "array" => self.array(schema, depth),
            "object" => self.object(schema, depth),
            _ => Some(Type::unknown()),
        }
    }

    fn array(&mut self, schema: &'a Map<String, Value>, depth: usize) -> Option<Type> {
        let rest = match schema.get("items") {
            Some(items) => self.of(items, depth)?,
            None => Type::unknown(),
        };
        let Some(Value::Array(first)) = schema.get("prefixItems") else {
            return Some(Type::new(format!("{}[]", rest.atom())));
        };
        let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(0);
        let mut items: Vec<String> = Vec::new();
        for (index, item) in first.iter().enumerate() {
            let optional = if (index as u64) < least { "" } else { "?" };
            items.push(format!("{}{optional}", self.of(item, depth)?.atom()));
        }
        if rest.text != "never" {
            items.push(format!("...{}[]", rest.atom()));
        }
        Some(Type::new(format!("[{}]", items.join(", "))))
    }

    fn object(&mut self, schema: &'a Map<String, Value>, depth: usize) -> Option<Type> {
        let empty = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object);
        let mut required: Vec<&str> = Vec::new();
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            self.part()?;
            required.extend(name.as_str());
        }
        let mut members: Vec<String> = Vec::new();
        for (name, property) in properties.into_iter().flatten() {
            let kind = self.of(property, depth)?.text;
            members.push(self.doc(property)? + &self.property(name, required.contains(&name.as_str()), &kind)?);
        }
        let properties = properties.unwrap_or(&empty);
        for name in required.into_iter().filter(|name| !properties.contains_key(*name)) {
            members.push(self.property(name, true, "unknown")?);
        }
        let others = match schema.get("additionalProperties") {
            Some(Value::Bool(false)) => None,
            None if !members.is_empty() && !schema.contains_key("patternProperties") => None,
            Some(others @ Value::Object(_)) if members.is_empty() => Some(self.of(others, depth)?.text),
            _ => Some("unknown".to_owned()),
        };
        members.extend(others.map(|kind| format!("[key: string]: {kind}")));
        if members.is_empty() {
            return Some(Type::new("{ [key: string]: never }"));
        }
        Some(Type::new(format!("{{ {} }}", members.join("; "))))
    }

    fn doc(&mut self, property: &Value) -> Option<String> {
        let description = property.get("description").and_then(Value::as_str).filter(|_| self.docs == Docs::Shown);
        let text = self.written(description.unwrap_or_default(), text::comment)?;
        Some(if text.is_empty() { text } else { format!("/** {text} */ ") })
    }

    fn property(&mut self, name: &str, required: bool, kind: &str) -> Option<String> {
        let plain = name.is_ascii() && is_identifier(name);
        let key = self.written(name, if plain { str::to_owned } else { text::literal })?;
        Some(format!("{key}{}: {kind}", if required { "" } else { "?" }))
    }

    fn literal(&mut self, value: &Value, depth: usize) -> Option<Type> {
        self.part()?;
        if depth > DEPTH {
            return Some(Type::unknown());
        }
        Some(Type::new(match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
            Value::String(text) => self.written(text, text::literal)?,
            Value::Array(items) => {
                let item = |item| Some(self.literal(item, depth + 1)?.text);
                format!("[{}]", items.iter().map(item).collect::<Option<Vec<_>>>()?.join(", "))
            }
            Value::Object(members) => {
                let mut texts: Vec<String> = Vec::new();
                for (name, value) in members {
                    let kind = self.literal(value, depth + 1)?.text;
                    texts.push(self.property(name, true, &kind)?);
                }
                format!("{{ {} }}", texts.join("; "))
            }
        }))
    }

    fn part(&mut self) -> Option<()> {
        self.parts = self.parts.checked_sub(1)?;
        Some(())
    }

    /// A text in the form that `write` gives it, which is not asked for one that is too long already.
    fn written(&mut self, text: &str, write: impl FnOnce(&str) -> String) -> Option<String> {
        self.bytes.checked_sub(text.len())?;
        let written = write(text);
        self.bytes = self.bytes.checked_sub(written.len())?;
        Some(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn types_of_schemas() {
        let schemas = [
            json!({}),
            json!({"type": "integer"}),
            json!({"type": ["string", "null"]}),
            json!({"enum": ["a", 1, null, true, ["x", 2], {"k": "*/"}]}),
            json!({"const": "it's \"quoted\"\u{202e}"}),
            json!({"type": "array", "items": {"type": ["string", "number"]}}),
            json!({"type": "array", "prefixItems": [{"type": "number"}, {"type": "string"}], "minItems": 1, "items": false}),
            json!({"prefixItems": [{"type": "number"}], "minItems": 1, "items": {"type": "boolean"}}),
            json!({"type": "object"}),
            json!({"type": "object", "additionalProperties": false}),
            json!({"type": "object", "additionalProperties": {"type": "number"}}),
            json!({"properties": {"to": {"type": "string", "description": "Who */ gets it."}, "a-b": {}, "__proto__": {}}, "required": ["to", "more"]}),
            json!({"properties": {"x": {"type": "number"}}, "additionalProperties": true}),
            json!({"$ref": "#/$defs/P", "$defs": {"P": {"type": "object", "properties": {"x": {"$ref": "#/$defs/N"}}}, "N": {"type": "number"}}}),
            json!({"type": "object", "allOf": [{"properties": {"a": {"type": "string"}}}, {"anyOf": [{"required": ["a"]}, {"type": "null"}]}]}),
            json!({"oneOf": [{"type": "string"}, {"type": "array", "items": {"oneOf": [{"const": 1}, {"const": 2}]}}]}),
            json!({"not": {"type": "string"}}),
        ];
        let lines: Vec<String> = schemas.iter().map(|s| format!("{s}\n  {}", type_of(s, Docs::Shown))).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn a_large_type_ends_in_unknown() {
        let mut schema = json!({"type": "string"});
        for _ in 0..60 {
            schema = json!({"type": "array", "items": schema});
        }
        assert!(type_of(&schema, Docs::Hidden).starts_with("unknown["));
        let wide = json!({"enum": (0..5000).collect::<Vec<_>>()});
        assert_eq!(type_of(&wide, Docs::Hidden), "unknown");
    }

    #[test]
    fn what_is_referred_to_many_times_is_written_within_bounds() {
        let long = "x".repeat(900_000);
        let many = |definition: Value| {
            let items = vec![json!({"$ref": "#/$defs/D"}); 330];
            json!({"$defs": {"D": definition}, "prefixItems": items, "minItems": 330, "items": false})
        };
        for definition in [
            json!({"const": long}),
            json!({"const": {(long.clone()): 1}}),
            json!({"enum": [1, long]}),
            json!({"properties": {"p": {"type": "string", "description": long}}}),
            json!({"properties": {(long.clone()): {}}}),
            json!({"required": [long]}),
            json!({"required": (0..50_000).map(|n| n.to_string()).collect::<Vec<_>>()}),
            json!({"const": "\u{e0001}".repeat(1_500)}),
        ] {
            assert_eq!(type_of(&many(definition), Docs::Shown), "unknown");
        }
        let short = type_of(&many(json!({"const": "x".repeat(190)})), Docs::Shown);
        assert!(
            short.starts_with("[\"xxx") && short.len() > 60_000 && short.len() <= BYTES + 16 * PARTS,
            "{}",
            short.len()
        );
    }
}
