//! Snapshots of consumers and providers: what a VM that is made from one has, and what it has not.

use serde_json::json;

use super::sdk::{export, javascript};
use super::stage::{consumer, invoke, link, node, token};
use crate::harness::{World, cases, create};

cases![a_vm_from_a_snapshot_has_links_and_secrets_of_its_own_create_alone];

async fn a_vm_from_a_snapshot_has_links_and_secrets_of_its_own_create_alone(world: &World) {
    let api = world.api().await;
    let anonymous = world.server().await.anonymous();
    let code = "import process from 'node:process'; export const key = () => (process.env.KEY ?? '').length;";
    let sdk = javascript(code, &[export("key", &[], json!({"type": "integer"}))]);
    let provider = sdk.provide(&api, json!({"secretEnv": ["KEY=1234567"]})).await;
    let linked = json!({"alias": "k", "vmId": provider, "sourceMode": "mounted"});
    let first = consumer(&api, std::slice::from_ref(&linked)).await;
    let old = token(&api, &first).await;
    api.sh(&first, "echo mine > own && cp .rds/peer-bridge.json kept.json && sync").await;
    let snapshot = async |vm: &str| {
        let made = api.poke(&format!("/v1/vms/{vm}/snapshots")).await.status(201).json();
        made["id"].as_str().expect("an id").to_owned()
    };
    let of_consumer = snapshot(&first).await;
    let program = "import { key } from 'file:///workspace/peers/k/proxy/sdk/small.mjs'; result.set(await key())";

    // With links: fresh trees, a fresh token.
    let second = create(&api, json!({"memMb": 512, "peerLinks": [linked], "userOverlaySnapshotId": of_consumer})).await;
    assert_eq!(api.sh(&second, "cat own; ls peers/k/source/sdk").await, "mine\nsmall.mjs");
    assert_ne!(token(&api, &second).await, old);
    assert_eq!(node(&api, &second, program).await, 7);

    // Without: an empty index, and nothing of the old bridge works.
    let third = create(&api, json!({"memMb": 512, "userOverlaySnapshotId": of_consumer})).await;
    assert_eq!(api.sh(&third, "cat own peers/index.json | tr -d ' \\n'").await, "mine{\"peers\":[]}");
    for left in ["ls peers/k", "cat .rds/peer-bridge.json"] {
        assert_ne!(api.exec(&third, left).await["exitCode"], 0, "{left}");
    }
    let theft = "const { url, token } = JSON.parse(require('fs').readFileSync('/workspace/kept.json'));
        fetch(url, { method: 'POST', headers: { authorization: `Bearer ${token}` },
                     body: JSON.stringify({ alias: 'k', modulePath: '/workspace/sdk/small.mjs', exportName: 'key' }) })
          .then((reply) => result.set(reply.status), () => result.set('nobody listens'));";
    assert_eq!(node(&api, &third, theft).await, "nobody listens");
    // The token is still that of the first consumer, which runs, and of nobody else.
    let body = json!({"alias": "k", "modulePath": "/workspace/sdk/small.mjs", "exportName": "key"});
    invoke(&anonymous, &old, &body).await.ok();
    api.delete(&format!("/v1/vms/{first}")).await.status(204);
    invoke(&anonymous, &old, &body).await.status(401);

    // A provider from a snapshot has the secrets of its own create alone.
    let of_provider = snapshot(&provider).await;
    let without = create(&api, json!({"userOverlaySnapshotId": of_provider})).await;
    assert_eq!(api.sh(&without, "echo \"[$KEY]\"").await, "[]");
    let wish = json!({"userOverlaySnapshotId": of_provider, "secretEnv": ["KEY=123"]});
    let with = create(&api, wish).await;
    let fourth = consumer(&api, &[link("k", &with)]).await;
    assert_eq!(node(&api, &fourth, program).await, 3);
    for vm in [&second, &third, &fourth, &without, &with, &provider] {
        api.delete(&format!("/v1/vms/{vm}")).await.status(204);
    }
    for id in [of_consumer, of_provider] {
        api.delete(&format!("/v1/snapshots/{id}")).await.status(204);
    }
}
