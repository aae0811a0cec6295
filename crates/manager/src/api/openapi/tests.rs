use std::path::Path;

use super::*;

/// The committed copy, for people and for generators of clients. `UPDATE_OPENAPI=1 cargo test` writes it anew.
const COPY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");

#[test]
fn the_committed_copy_is_current() {
    let text = format!("{:#}\n", document());
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::create_dir_all(Path::new(COPY).parent().unwrap()).unwrap();
        std::fs::write(COPY, &text).unwrap();
    }
    let copy = std::fs::read_to_string(COPY).unwrap_or_default();
    assert!(copy == text, "docs/openapi.json is stale: run UPDATE_OPENAPI=1 cargo test -p rds-manager openapi");
}

#[test]
fn every_operation_is_described() {
    let document = document();
    let mut ids = std::collections::HashSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let name = format!("{method} {path}");
            assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{name} has no summary");
            assert!(operation["tags"].as_array().is_some_and(|tags| tags.len() == 1), "{name} has no tag");
            assert!(ids.insert(operation["operationId"].to_string()), "{name}: its operationId is taken");
            let statuses = operation["responses"].as_object().unwrap();
            assert!(!path.starts_with("/v1") || statuses.contains_key("401"), "{name} does not say 401");
            assert!(!path.starts_with("/v1") || statuses.contains_key("429"), "{name} does not say 429");
        }
    }
}
