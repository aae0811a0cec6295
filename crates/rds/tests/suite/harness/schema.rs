//! The served OpenAPI document as a judge of replies.
//!
//! Stricter than the document: an object whose properties are listed may have no others.

use std::collections::HashMap;
use std::sync::Mutex;

use jsonschema::Validator;
use serde_json::{Map, Value, json};

/// A server's OpenAPI document.
#[derive(Debug, Default)]
pub(crate) struct Document {
    /// The document as it was served.
    pub(crate) value: Value,
    validators: Mutex<HashMap<String, std::sync::Arc<Validator>>>,
}

impl Document {
    /// Fetches the document of a server.
    pub(crate) async fn fetch(base: &str) -> Self {
        let reply = reqwest::get(format!("{base}/openapi.json")).await.expect("the server serves its document");
        Self { value: reply.json().await.expect("the document is JSON"), validators: Mutex::default() }
    }

    /// Every documented path with each of its methods, in lower case.
    pub(crate) fn operations(&self) -> Vec<(String, String)> {
        let Some(paths) = self.value["paths"].as_object() else { return Vec::new() };
        let methods = ["get", "put", "post", "patch", "delete"];
        let all = paths.iter().flat_map(|(path, item)| methods.map(|method| (path, item, method)));
        all.filter(|(_, item, method)| item.get(method).is_some())
            .map(|(path, _, method)| (path.clone(), method.to_owned()))
            .collect()
    }

    /// Whether a reply is as documented. A path that is not documented must be refused with a JSON error.
    pub(crate) fn check(&self, method: &str, path: &str, status: u16, kind: &str, body: &[u8]) -> Result<(), String> {
        let method = method.to_lowercase();
        let Some(template) = self.template(path, &method) else {
            let refused = (400..500).contains(&status) && is_error(body);
            return if refused || !path.starts_with("/v1") { Ok(()) } else { Err("the path is not documented".into()) };
        };
        let responses = &self.value["paths"][&template][&method]["responses"];
        let status = status.to_string();
        let Some(response) = responses.get(&status).or_else(|| responses.get("default")) else {
            return Err(format!("status {status} is not documented for {method} {template}"));
        };
        let response = self.resolved(response);
        let Some(content) = response.get("content").and_then(Value::as_object) else {
            return if body.is_empty() { Ok(()) } else { Err("a body where none is documented".into()) };
        };
        let kind = kind.split(';').next().unwrap_or_default().trim();
        let Some(media) = content.get(kind) else { return Err(format!("content type `{kind}` is not documented")) };
        if kind != "application/json" {
            return Ok(());
        }
        let value: Value = serde_json::from_slice(body).map_err(|error| format!("no JSON: {error}"))?;
        let key = format!("{method} {template} {status}");
        let validator = self.validator(&key, &media["schema"])?;
        let faults: Vec<String> =
            validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect();
        if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
    }

    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        let reference = value.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix('#'));
        reference.and_then(|pointer| self.value.pointer(pointer)).unwrap_or(value)
    }

    /// The documented path that a request's path is an instance of; one without parameters goes first.
    fn template(&self, path: &str, method: &str) -> Option<String> {
        let paths = self.value["paths"].as_object()?;
        let mut found: Vec<&String> = paths
            .iter()
            .filter(|(template, item)| matches(template, path) && item.get(method).is_some())
            .map(|(template, _)| template)
            .collect();
        found.sort_by_key(|template| template.matches('{').count());
        found.first().map(|template| (*template).clone())
    }

    fn validator(&self, key: &str, schema: &Value) -> Result<std::sync::Arc<Validator>, String> {
        let mut validators = self.validators.lock().expect("nobody panics in here");
        if let Some(validator) = validators.get(key) {
            return Ok(validator.clone());
        }
        let mut whole = strict(schema);
        if let Some(root) = whole.as_object_mut() {
            root.insert("components".into(), strict_components(&self.value["components"]));
        }
        let options = jsonschema::options().with_draft(jsonschema::Draft::Draft202012);
        let validator = options.build(&whole).map_err(|error| format!("the schema of {key} is unusable: {error}"))?;
        let validator = std::sync::Arc::new(validator);
        validators.insert(key.to_owned(), validator.clone());
        Ok(validator)
    }
}

fn is_error(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|value| value["message"].is_string() && value["code"].is_string())
}

fn matches(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len()
        && template.iter().zip(&path).all(|(wanted, given)| wanted.starts_with('{') || wanted == given)
}

fn strict_components(components: &Value) -> Value {
    let schemas = components["schemas"].as_object().cloned().unwrap_or_default();
    let schemas: Map<String, Value> = schemas.iter().map(|(name, schema)| (name.clone(), strict(schema))).collect();
    let open: Map<String, Value> = schemas.iter().map(|(name, schema)| (name.clone(), open(schema))).collect();
    json!({ "schemas": schemas, "open": open })
}

/// A part of an `allOf`: what it does not list, another part may.
fn open(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(fields) = schema.as_object_mut() {
        if fields.get("additionalProperties") == Some(&json!(false)) {
            fields.remove("additionalProperties");
        }
        if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
            let reference = reference.replace("#/components/schemas/", "#/components/open/");
            fields.insert("$ref".into(), json!(reference));
        }
    }
    schema
}

/// An OpenAPI 3.0 schema as a JSON Schema that allows nothing unlisted.
fn strict(schema: &Value) -> Value {
    let Value::Object(fields) = schema else { return schema.clone() };
    let mut out = Map::new();
    for (name, value) in fields {
        let value = match (name.as_str(), value) {
            ("nullable" | "example" | "xml" | "discriminator", _) => continue,
            ("properties", Value::Object(members)) => {
                Value::Object(members.iter().map(|(name, schema)| (name.clone(), strict(schema))).collect())
            }
            ("allOf", Value::Array(parts)) => Value::Array(parts.iter().map(open).collect()),
            ("oneOf" | "anyOf", Value::Array(parts)) => Value::Array(parts.iter().map(strict).collect()),
            ("items" | "additionalProperties" | "not", schema) => strict(schema),
            (_, other) => other.clone(),
        };
        out.insert(name.clone(), value);
    }
    if out.contains_key("properties") && !out.contains_key("additionalProperties") {
        out.insert("additionalProperties".into(), json!(false));
    }
    if out.contains_key("allOf") {
        out.insert("unevaluatedProperties".into(), json!(false));
    }
    let schema = Value::Object(out);
    if fields.get("nullable") == Some(&json!(true)) { json!({"anyOf": [{"type": "null"}, schema]}) } else { schema }
}
