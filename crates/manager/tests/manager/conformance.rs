//! Holds every reply of the tests against the OpenAPI document.

use std::sync::LazyLock;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

static DOCUMENT: LazyLock<Value> = LazyLock::new(rds_manager::api::openapi::document);

/// Panics if the document does not know this status or this body for the call.
pub(crate) fn check(method: &Method, path: &str, status: StatusCode, body: &Value) {
    let Some(operation) = operation(method, path) else {
        assert!([401, 400, 404, 405].contains(&status.as_u16()), "{method} {path} is not documented, and is {status}");
        return;
    };
    let response = &operation["responses"][status.as_str()];
    assert!(response.is_object(), "{method} {path}: {status} is not documented");
    let schema = &response["content"]["application/json"]["schema"];
    if schema.is_null() {
        assert!(body.is_null() || response.get("content").is_some(), "{method} {path}: {status} should have no body");
        return;
    }
    let schema = json!({ "allOf": [schema], "components": DOCUMENT["components"] });
    let validator = jsonschema::draft4::new(&schema).expect("the document's schemas are sound");
    let faults: Vec<_> = validator.iter_errors(body).map(|fault| fault.to_string()).collect();
    assert!(faults.is_empty(), "{method} {path}: {status}: {faults:?} in {body}");
}

fn operation(method: &Method, path: &str) -> Option<&'static Value> {
    let paths = DOCUMENT["paths"].as_object()?;
    let matching = paths.iter().find(|(template, _)| matches(template, path));
    matching.and_then(|(_, methods)| methods.get(method.as_str().to_lowercase()))
}

fn matches(template: &str, path: &str) -> bool {
    let (mut expected, mut found) = (template.split('/'), path.split('/'));
    loop {
        match (expected.next(), found.next()) {
            (None, None) => return true,
            (Some(expected), Some(found)) if expected == found => {}
            (Some(expected), Some(found)) if expected.starts_with('{') && !found.is_empty() => {}
            _ => return false,
        }
    }
}
