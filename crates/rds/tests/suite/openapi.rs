//! The document itself, and its page.

use std::collections::BTreeSet;

use crate::harness::{World, cases};

cases![
    the_document_names_every_endpoint,
    an_independent_validator_accepts_the_document needs "OPENAPI_VALIDATOR",
    the_page_works_without_the_internet,
];

async fn an_independent_validator_accepts_the_document(world: &World) {
    let server = world.server().await;
    let file = tempfile::Builder::new().suffix(".json").tempfile().expect("a file");
    std::fs::write(file.path(), server.document().value.to_string()).expect("it is written");
    let validator = std::env::var_os("OPENAPI_VALIDATOR").expect("checked before");
    let output = tokio::process::Command::new(validator).arg(file.path()).output().await.expect("it runs");
    assert!(output.status.success(), "{output:?}");
}

async fn the_document_names_every_endpoint(world: &World) {
    let server = world.server().await;
    let document = &server.document().value;
    assert_eq!(document["openapi"], "3.0.3");
    assert!(document["info"]["version"].is_string());
    let operations: BTreeSet<String> =
        server.document().operations().iter().map(|(path, method)| format!("{method} {path}")).collect();
    for wanted in [
        "get /v1/vms",
        "post /v1/vms",
        "get /v1/vms/{id}",
        "delete /v1/vms/{id}",
        "post /v1/vms/{id}/start",
        "post /v1/vms/{id}/stop",
        "get /v1/vms/{id}/logs",
        "get /v1/vms/{id}/exec-logs",
        "post /v1/vms/{id}/exec",
        "post /v1/vms/{id}/exec/stream",
        "get /v1/vms/{id}/pty",
        "post /v1/vms/{id}/run-ts",
        "post /v1/vms/{id}/run-js",
        "post /v1/vms/{id}/files/upload",
        "get /v1/vms/{id}/files/download",
        "get /v1/vms/{id}/files/content",
        "put /v1/vms/{id}/files/content",
        "get /v1/vms/{id}/files/list",
        "get /v1/vms/{id}/files/stat",
        "get /v1/images",
        "post /v1/images",
        "delete /v1/images/{id}",
        "put /v1/images/{id}/kernel",
        "put /v1/images/{id}/rootfs",
        "put /v1/images/{id}/bundle",
        "post /v1/images/{id}/set-default",
        "get /v1/admin/overview",
        "get /v1/admin/activity",
        "get /v1/admin/events",
        "get /v1/admin/api-keys",
        "post /v1/admin/api-keys",
        "post /v1/admin/api-keys/{id}/revoke",
        "post /auth/login",
        "post /auth/logout",
        "get /auth/me",
    ] {
        assert!(operations.contains(wanted), "{wanted} is missing in {operations:#?}");
    }
}

async fn the_page_works_without_the_internet(world: &World) {
    let server = world.server().await;
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let page = http.get(format!("{}/swagger", server.url())).send().await.expect("a reply");
    assert_eq!(page.status().as_u16(), 200);
    let base = page.url().clone();
    let html = page.text().await.expect("text");
    let names = html.split(['"', '\'']).filter(|part| part.ends_with(".js") || part.ends_with(".css"));
    let assets: Vec<&str> = names.collect();
    assert!(!assets.is_empty(), "{html}");
    for asset in assets {
        let url = base.join(asset).expect("a URL");
        assert_eq!(url.host_str(), base.host_str(), "{asset} is elsewhere");
        assert_eq!(http.get(url).send().await.expect("a reply").status().as_u16(), 200, "{asset}");
    }
}
