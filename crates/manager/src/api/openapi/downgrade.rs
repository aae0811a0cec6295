//! Turns an OpenAPI 3.1 document into 3.0.3, which more tools read. Only what our documents hold is translated.

use serde_json::{Map, Value, json};

/// Rewrites the document.
pub(super) fn to_3_0(mut document: Value) -> Value {
    document["openapi"] = json!("3.0.3");
    if let Some(root) = document.as_object_mut() {
        root.remove("jsonSchemaDialect");
        root.remove("webhooks");
    }
    for part in ["/info/summary", "/info/license/identifier"] {
        let (parent, key) = part.rsplit_once('/').unwrap_or_default();
        if let Some(parent) = document.pointer_mut(parent).and_then(Value::as_object_mut) {
            parent.remove(key);
        }
    }
    if let Some(Value::Object(schemas)) = document.pointer_mut("/components/schemas") {
        schemas.values_mut().for_each(schema);
    }
    find_schemas(&mut document);
    document
}

/// Outside of schemas, a schema is what stands under a key of that name.
fn find_schemas(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(find_schemas),
        Value::Object(fields) => {
            for (key, value) in fields {
                match key.as_str() {
                    "schema" => schema(value),
                    // Already rewritten, or free text.
                    "schemas" | "example" | "examples" => {}
                    _ => find_schemas(value),
                }
            }
        }
        _ => {}
    }
}

fn schema(value: &mut Value) {
    let Value::Object(fields) = value else {
        // `true` allows anything.
        *value = json!({});
        return;
    };
    for key in ["items", "additionalProperties", "not"] {
        if let Some(inner @ Value::Object(_)) = fields.get_mut(key) {
            schema(inner);
        }
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        if let Some(Value::Array(inner)) = fields.get_mut(key) {
            inner.iter_mut().for_each(schema);
        }
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(schema);
    }
    nullable_type(fields);
    nullable_choice(fields);
    exclusive(fields, "exclusiveMinimum", "minimum");
    exclusive(fields, "exclusiveMaximum", "maximum");
    if let Some(Value::Array(examples)) = fields.remove("examples")
        && let Some(first) = examples.into_iter().next()
    {
        fields.insert("example".into(), first);
    }
    if let Some(constant) = fields.remove("const") {
        fields.insert("enum".into(), json!([constant]));
    }
    fields.remove("propertyNames");
    reference_beside_others(fields);
}

/// `type: [T, null]` → `type: T, nullable: true`. A `type: null` alone stays until its `oneOf` is looked at.
fn nullable_type(fields: &mut Map<String, Value>) {
    let Some(Value::Array(types)) = fields.get("type") else { return };
    let mut others: Vec<_> = types.iter().filter(|name| *name != "null").cloned().collect();
    if others.len() < types.len() {
        fields.insert("nullable".into(), json!(true));
    }
    match others.len() {
        1 => {
            fields.insert("type".into(), others.remove(0));
        }
        _ => {
            fields.remove("type");
        }
    }
}

/// `oneOf: [null, S]` → `allOf: [S], nullable: true`.
fn nullable_choice(fields: &mut Map<String, Value>) {
    for key in ["oneOf", "anyOf"] {
        let Some(Value::Array(choices)) = fields.get_mut(key) else { continue };
        let before = choices.len();
        choices.retain(|choice| choice["type"] != "null");
        if choices.len() == before {
            continue;
        }
        if choices.len() == 1 {
            let rest = fields.remove(key).unwrap_or_default();
            fields.insert("allOf".into(), rest);
        }
        fields.insert("nullable".into(), json!(true));
    }
}

/// `exclusiveMinimum: 0` → `minimum: 0, exclusiveMinimum: true`.
fn exclusive(fields: &mut Map<String, Value>, exclusive: &str, bound: &str) {
    if let Some(number @ Value::Number(_)) = fields.get(exclusive).cloned() {
        fields.insert(bound.into(), number);
        fields.insert(exclusive.into(), json!(true));
    }
}

/// In 3.0 whatever stands beside a `$ref` is ignored.
fn reference_beside_others(fields: &mut Map<String, Value>) {
    if fields.len() > 1
        && let Some(reference) = fields.remove("$ref")
    {
        fields.insert("allOf".into(), json!([{ "$ref": reference }]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_lose_what_3_0_does_not_know() {
        for (new, old) in [
            (json!({"type": ["string", "null"]}), json!({"type": "string", "nullable": true})),
            (
                json!({"oneOf": [{"type": "null"}, {"$ref": "#/x"}]}),
                json!({"allOf": [{"$ref": "#/x"}], "nullable": true}),
            ),
            (
                json!({"type": "number", "exclusiveMinimum": 0}),
                json!({"type": "number", "minimum": 0, "exclusiveMinimum": true}),
            ),
            (json!({"type": "string", "examples": ["a", "b"]}), json!({"type": "string", "example": "a"})),
            (json!({"const": 1}), json!({"enum": [1]})),
            (
                json!({"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": {"type": ["integer", "null"]}}),
                json!({"type": "object", "additionalProperties": {"type": "integer", "nullable": true}}),
            ),
            (
                json!({"properties": {"examples": {"$ref": "#/x", "description": "d"}}}),
                json!({"properties": {"examples": {"allOf": [{"$ref": "#/x"}], "description": "d"}}}),
            ),
        ] {
            let mut value = new;
            schema(&mut value);
            assert_eq!(value, old);
        }
    }

    #[test]
    fn schemas_are_found_wherever_they_are() {
        let nullable = json!({"type": ["string", "null"]});
        let document = json!({
            "openapi": "3.1.0",
            "info": {"license": {"name": "n", "identifier": "i"}},
            "paths": {"/x": {"get": {
                "parameters": [{"schema": nullable}],
                "responses": {"200": {"content": {"a/b": {"schema": nullable, "example": {"schema": 1}}}}},
            }}},
            "components": {"schemas": {"A": nullable}},
        });
        let text = to_3_0(document).to_string();
        assert!(!text.contains("null\"") && !text.contains("identifier"), "{text}");
        assert!(text.contains("{\"schema\":1}"));
    }
}
