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

/// Parts of one type; beyond them it is `unknown`.
const PARTS: usize = 1_000;

/// Types within each other; beyond them it is `unknown`.
const DEPTH: usize = 24;

/// Whether the descriptions of properties become comments in the type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Docs {
    Shown,
    Hidden,
}

/// The type of a schema's values.
pub(super) fn type_of(schema: &Value, docs: Docs) -> String {
    Types { root: schema, docs, parts: 0 }.of(schema, 0).text
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

struct Types<'a> {
    root: &'a Value,
    docs: Docs,
    parts: usize,
}

impl Types<'_> {
    fn of(&mut self, schema: &Value, depth: usize) -> Type {
        self.parts += 1;
        if self.parts > PARTS || depth > DEPTH {
            return Type::unknown();
        }
        match schema {
            Value::Bool(false) => Type::new("never"),
            Value::Object(members) => self.of_object_schema(members, depth + 1),
            _ => Type::unknown(),
        }
    }

    fn of_object_schema(&mut self, schema: &Map<String, Value>, depth: usize) -> Type {
        if let Some(value) = schema.get("const") {
            return self.literal(value, depth);
        }
        if let Some(Value::Array(values)) = schema.get("enum") {
            return union(values.iter().map(|value| self.literal(value, depth)).collect());
        }
        let mut parts = vec![self.base(schema, depth)];
        if let Some(Value::String(reference)) = schema.get("$ref") {
            let target = resolve(self.root, reference).cloned();
            parts.push(target.map_or_else(Type::unknown, |target| self.of(&target, depth)));
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(Value::Array(choices)) = schema.get(key) {
                parts.push(union(choices.iter().map(|choice| self.of(choice, depth)).collect()));
            }
        }
        if let Some(Value::Array(all)) = schema.get("allOf") {
            parts.extend(all.iter().map(|each| self.of(each, depth)).collect::<Vec<_>>());
        }
        intersection(parts)
    }

    fn base(&mut self, schema: &Map<String, Value>, depth: usize) -> Type {
        let named: Vec<&str> = match schema.get("type") {
            Some(Value::String(name)) => vec![name],
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ if ["properties", "required", "additionalProperties"].iter().any(|key| schema.contains_key(*key)) => {
                vec!["object"]
            }
            _ if ["items", "prefixItems"].iter().any(|key| schema.contains_key(*key)) => vec!["array"],
            _ => return Type::unknown(),
        };
        union(named.into_iter().map(|name| self.named(name, schema, depth)).collect())
    }

    fn named(&mut self, name: &str, schema: &Map<String, Value>, depth: usize) -> Type {
        match name {
            "string" | "boolean" | "null" => Type::new(name),
            "number" | "integer" => Type::new("number"),
            "array" => self.array(schema, depth),
            "object" => self.object(schema, depth),
            _ => Type::unknown(),
        }
    }

    fn array(&mut self, schema: &Map<String, Value>, depth: usize) -> Type {
        let rest = schema.get("items").map_or_else(Type::unknown, |items| self.of(items, depth));
        let Some(Value::Array(first)) = schema.get("prefixItems") else {
            return Type::new(format!("{}[]", rest.atom()));
        };
        let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(0);
        let mut items: Vec<String> = Vec::new();
        for (index, item) in first.iter().enumerate() {
            let optional = if (index as u64) < least { "" } else { "?" };
            items.push(format!("{}{optional}", self.of(item, depth).atom()));
        }
        if rest.text != "never" {
            items.push(format!("...{}[]", rest.atom()));
        }
        Type::new(format!("[{}]", items.join(", ")))
    }

    fn object(&mut self, schema: &Map<String, Value>, depth: usize) -> Type {
        let empty = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let required: Vec<&str> =
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let mut members: Vec<String> = Vec::new();
        for (name, property) in properties {
            let kind = self.of(property, depth).text;
            members.push(format!(
                "{}{}",
                self.doc(property),
                property_text(name, required.contains(&name.as_str()), &kind)
            ));
        }
        let unnamed = required.iter().filter(|name| !properties.contains_key(**name));
        members.extend(unnamed.map(|name| property_text(name, true, "unknown")));
        let others = match schema.get("additionalProperties") {
            Some(Value::Bool(false)) => None,
            None if !members.is_empty() && !schema.contains_key("patternProperties") => None,
            Some(others @ Value::Object(_)) if members.is_empty() => Some(self.of(others, depth).text),
            _ => Some("unknown".to_owned()),
        };
        members.extend(others.map(|kind| format!("[key: string]: {kind}")));
        if members.is_empty() {
            return Type::new("{ [key: string]: never }");
        }
        Type::new(format!("{{ {} }}", members.join("; ")))
    }

    fn doc(&self, property: &Value) -> String {
        let description = property.get("description").and_then(Value::as_str).map(text::comment);
        match description.filter(|text| self.docs == Docs::Shown && !text.is_empty()) {
            Some(text) => format!("/** {text} */ "),
            None => String::new(),
        }
    }

    fn literal(&mut self, value: &Value, depth: usize) -> Type {
        self.parts += 1;
        if self.parts > PARTS || depth > DEPTH {
            return Type::unknown();
        }
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => Type::new(value.to_string()),
            Value::String(text) => Type::new(text::literal(text)),
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(|item| self.literal(item, depth + 1).text).collect();
                Type::new(format!("[{}]", items.join(", ")))
            }
            Value::Object(members) => {
                let member =
                    |(name, value): (&String, &Value)| property_text(name, true, &self.literal(value, depth + 1).text);
                Type::new(format!("{{ {} }}", members.iter().map(member).collect::<Vec<_>>().join("; ")))
            }
        }
    }
}

fn property_text(name: &str, required: bool, kind: &str) -> String {
    let key = if name.is_ascii() && is_identifier(name) { name.to_owned() } else { text::literal(name) };
    format!("{key}{}: {kind}", if required { "" } else { "?" })
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
}
