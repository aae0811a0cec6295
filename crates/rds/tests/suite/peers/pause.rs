//! Consumers and providers that are paused.

use std::time::Duration;

use serde_json::json;

use super::sdk::{export, javascript};
use super::stage::{consumer, invoke, link, node, token};
use crate::harness::{World, cases};
use crate::pause::state;

cases![a_call_wakes_its_provider];

async fn a_call_wakes_its_provider(world: &World) {
    let api = world.api().await;
    let code = "let calls = 0;
        export const next = () => ++calls;
        export const sleep = async (ms) => { await new Promise((wake) => setTimeout(wake, ms)); return ms; };";
    let exports = [export("next", &[], json!({})), export("sleep", &[("ms", json!({}))], json!({}))];
    let provider = javascript(code, &exports).provide(&api, json!({})).await;
    let vm = consumer(&api, &[link("n", &provider)]).await;
    let import = "import { next, sleep } from 'file:///workspace/peers/n/proxy/sdk/small.mjs';";
    let call = format!("{import} result.set(await next())");
    assert_eq!(node(&api, &vm, &call).await, 1);
    for (paused, expected) in [(&[&provider] as &[_], 2), (&[&vm], 3), (&[&provider, &vm], 4)] {
        for id in paused {
            api.poke(&format!("/v1/vms/{id}/pause")).await.status(204);
        }
        assert_eq!(node(&api, &vm, &call).await, expected, "the worker was not kept");
        assert_eq!((state(&api, &provider).await, state(&api, &vm).await), (json!("RUNNING"), json!("RUNNING")));
    }
    // Who acts for a consumer from outside needs nothing of its guest.
    let token = token(&api, &vm).await;
    api.poke(&format!("/v1/vms/{vm}/pause")).await.status(204);
    let body = json!({"alias": "n", "modulePath": "/workspace/sdk/small.mjs", "exportName": "next"});
    let reply = invoke(&world.server().await.anonymous(), &token, &body).await.ok().json();
    assert_eq!((&reply["result"], state(&api, &vm).await), (&json!(5), json!("PAUSED")));
    // A program in the background calls: neither end can be paused meanwhile.
    let program =
        format!("{import} await sleep(4000); await (await import('node:fs')).promises.writeFile('done', 'x')");
    api.sh(&vm, &format!("cat > slow.mjs <<'END'\n{program}\nEND\nnode slow.mjs >/dev/null 2>&1 &")).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    api.poke(&format!("/v1/vms/{vm}/pause")).await.status(409);
    api.poke(&format!("/v1/vms/{provider}/pause")).await.status(409);
    tokio::time::sleep(Duration::from_millis(3500)).await;
    assert_eq!(api.sh(&vm, "cat done").await, "x");
    for id in [vm, provider] {
        api.delete(&format!("/v1/vms/{id}")).await.status(204);
    }
}
