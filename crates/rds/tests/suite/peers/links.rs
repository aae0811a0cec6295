//! `peerLinks` of a create: what is refused, and that a create that fails leaves nothing.

use serde_json::{Value, json};

use super::sdk::{Sdk, export, javascript, typescript};
use super::stage::{link, stage};
use crate::harness::{Api, Reply, World, cases, create};

cases![
    senseless_links_are_refused,
    a_provider_without_a_manifest_fails_the_create,
    a_provider_that_does_not_run_fails_the_create,
    exports_that_cannot_be_called_fail_the_create,
    every_fault_of_a_manifest_is_told_at_once,
    modules_that_are_no_files_fail_the_create,
    manifests_that_are_no_plain_files_are_refused,
];

const NOBODY: &str = "00000000-0000-4000-8000-000000000000";

async fn try_link(api: &Api, links: &Value) -> Reply {
    api.post("/v1/vms", &json!({"cpu": 1, "memMb": 256, "allowIps": [], "peerLinks": links})).await
}

/// Tries to link to a provider as `X`; the create fails as a whole. Gives the message.
async fn refused(api: &Api, provider: &str, status: u16) -> String {
    let reply = try_link(api, &json!([link("X", provider)])).await.status(status);
    let after = api.get("/v1/vms").await.ok().json();
    let linked = after.as_array().expect("a list").iter().any(|vm| vm["peerLinks"][0]["vmId"] == json!(provider));
    assert!(!linked, "the VM is left: {after}");
    reply.message()
}

async fn senseless_links_are_refused(world: &World) {
    let stage = stage(world).await;
    let provider = &stage.provider;
    for links in [
        json!({}),
        json!("x"),
        json!([1]),
        json!([{}]),
        json!([{"alias": "a"}]),
        json!([{"vmId": provider}]),
        json!([link("", provider)]),
        json!([link("a b", provider)]),
        json!([link("a/b", provider)]),
        json!([link("..", provider)]),
        json!([link("é", provider)]),
        json!([link("a", NOBODY)]),
        json!([link("a", "")]),
        json!([link("a", "../x")]),
        json!([link("a", provider), link("a", provider)]),
        json!([{"alias": "a", "vmId": provider, "sourceMode": "open"}]),
        json!([{"alias": "a", "vmId": provider, "sourceMode": null, "policy": []}]),
        json!([{"alias": "a", "vmId": provider, "policy": {"mode": "off"}}]),
    ] {
        let reply = try_link(&stage.api, &links).await;
        assert_eq!(reply.status, 400, "{links}: {reply:?}");
    }
}

async fn a_provider_without_a_manifest_fails_the_create(world: &World) {
    let api = world.api().await;
    let provider = create(&api, json!({})).await;
    let message = refused(&api, &provider, 400).await;
    assert!(message.starts_with("Peer alias X: missing provider manifest"), "{message}");
    api.delete(&format!("/v1/vms/{provider}")).await.status(204);
}

async fn a_provider_that_does_not_run_fails_the_create(world: &World) {
    let api = world.api().await;
    let provider = create(&api, json!({"memMb": 128})).await;
    api.poke(&format!("/v1/vms/{provider}/stop")).await.status(204);
    let message = refused(&api, &provider, 409).await;
    assert!(message.starts_with("Peer alias X: "), "{message}");
    api.delete(&format!("/v1/vms/{provider}")).await.status(204);
}

async fn exports_that_cannot_be_called_fail_the_create(world: &World) {
    let api = world.api().await;
    let provider = create(&api, json!({"memMb": 512})).await;
    let number = [export("Y", &[], json!({}))];
    let many: Vec<_> = (0..1000).map(|n| export(&format!("Y{n}"), &[], json!({}))).collect();
    for (sdk, word) in [
        (javascript("throw new Error('at length '.repeat(200));", &many), "at length"),
        (javascript("export const Y = 7;", &number), "number"),
        (javascript("export const other = () => 7;", &number), "no such export"),
        (javascript("throw new Error('broken inside');", &number), "broken inside"),
        (javascript("export const Y = () => {", &number), ""),
        (javascript("import 'nowhere'; export const Y = () => 1;", &number), "nowhere"),
        (javascript("process.exit(0); export const Y = () => 1;", &number), "ended"),
        (javascript("export const Y = { call() {} };", &number), "object"),
        (javascript("export const x = () => 1;", &[export("toString", &[], json!({}))]), ""),
        (typescript("export const Y: number = 7;", &number), "number"),
        (typescript("throw new Error('broken inside');", &number), "broken inside"),
        (typescript("export type Y = () => void;", &number), "no such export"),
        (
            Sdk::new("C").module("sdk/c.cjs", "module.exports = { get Y() { throw new Error('a getter'); } }", &number),
            "a getter",
        ),
    ] {
        sdk.upload(&api, &provider).await;
        let name = if word.is_empty() { "" } else { "Y" };
        let message = refused(&api, &provider, 400).await;
        assert!(message.starts_with(&format!("Peer alias X: declared export {name}")), "{message}");
        assert!(message.contains("is not callable") && message.contains(word), "{word}: {message}");
    }
    api.delete(&format!("/v1/vms/{provider}")).await.status(204);
}

async fn every_fault_of_a_manifest_is_told_at_once(world: &World) {
    let api = world.api().await;
    let provider = create(&api, json!({})).await;
    let bad = json!({"sdk": {"name": ""}, "modules": [
        {"path": "../escape.ts", "exports": []},
        {"path": "a.txt", "exports": [{"name": "no way", "description": 1, "params": {}, "returns": {"schema": 7}, "examples": []}]},
    ]});
    api.sh(&provider, &format!("mkdir -p .rds-peer && cat > .rds-peer/manifest.json <<'END'\n{bad}\nEND")).await;
    let message = refused(&api, &provider, 400).await;
    assert!(message.starts_with("Peer alias X: "), "{message}");
    for pointer in [
        "/sdk/name",
        "/sdk/description",
        "/modules/0/path",
        "/modules/0/exports",
        "/modules/1/path",
        "/modules/1/exports/0/name",
        "/modules/1/exports/0/description",
        "/modules/1/exports/0/params",
        "/modules/1/exports/0/returns",
        "/modules/1/exports/0/examples",
    ] {
        assert!(message.contains(pointer), "{pointer}: {message}");
    }
    for text in ["", "not json", "[]", "{}", "{\"sdk\":{},\"sdk\":{}}"] {
        api.sh(&provider, &format!("printf %s '{text}' > .rds-peer/manifest.json")).await;
        let message = refused(&api, &provider, 400).await;
        assert!(message.starts_with("Peer alias X: "), "{text}: {message}");
    }
    api.delete(&format!("/v1/vms/{provider}")).await.status(204);
}

async fn modules_that_are_no_files_fail_the_create(world: &World) {
    let api = world.api().await;
    let sdk = javascript("export const Y = () => 7;", &[export("Y", &[], json!({}))]);
    let provider = sdk.provide(&api, json!({})).await;
    for change in [
        "rm sdk/small.mjs",
        "mkdir sdk/small.mjs",
        "rmdir sdk/small.mjs; ln -s /etc/passwd sdk/small.mjs",
        "rm sdk/small.mjs; mkfifo sdk/small.mjs",
        "rm -r sdk; ln -s /etc sdk",
    ] {
        api.sh(&provider, change).await;
        let message = refused(&api, &provider, 400).await;
        assert!(message.starts_with("Peer alias X: ") && message.contains("sdk/small.mjs"), "{change}: {message}");
    }
    api.delete(&format!("/v1/vms/{provider}")).await.status(204);
}

async fn manifests_that_are_no_plain_files_are_refused(world: &World) {
    let api = world.api().await;
    let sdk = javascript("export const Y = () => 7;", &[export("Y", &[], json!({}))]);
    let provider = sdk.provide(&api, json!({"diskSizeMb": 2048})).await;
    for change in [
        "cd .rds-peer && mv manifest.json kept && ln -s kept manifest.json",
        "cd .rds-peer && rm manifest.json && ln -s /etc/shadow manifest.json",
        "cd .rds-peer && rm manifest.json && mkfifo manifest.json",
        "cd .rds-peer && rm manifest.json && mkdir manifest.json",
        "cd .rds-peer && rmdir manifest.json && truncate -s 1G manifest.json",
        "rm -r .rds-peer && ln -s /proc/self .rds-peer",
    ] {
        api.sh(&provider, change).await;
        let begun = std::time::Instant::now();
        let message = refused(&api, &provider, 400).await;
        assert!(message.starts_with("Peer alias X: "), "{change}: {message}");
        assert!(begun.elapsed().as_secs() < 20, "{change} took {:?}", begun.elapsed());
    }
    api.delete(&format!("/v1/vms/{provider}")).await.status(204);
}
