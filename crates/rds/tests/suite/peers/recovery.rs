//! Managers that end while VMs call each other.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use super::sdk::{export, javascript};
use super::stage::{consumer, invoke, link, node, raw_calls, token};
use crate::harness::{World, cases};

cases![
    calls_go_on_with_the_next_manager,
    a_sync_that_fails_after_a_restart_takes_no_token_away,
    a_call_does_not_wait_longer_than_it_may_for_its_provider_to_load,
];

async fn calls_go_on_with_the_next_manager(world: &World) {
    let mut server = world.own_server(&[]).await;
    let api = server.api();
    let code = "import process from 'node:process';
        let calls = 0;
        export const next = () => [++calls, process.env.KEY.length];
        export const sleep = async (ms) => { await new Promise((wake) => setTimeout(wake, ms)); return ms; };";
    let exports = [export("next", &[], json!({})), export("sleep", &[("ms", json!({}))], json!({}))];
    let provider = javascript(code, &exports).provide(&api, json!({"secretEnv": ["KEY=123456789"]})).await;
    let vm = consumer(&api, &[link("n", &provider)]).await;
    let patch =
        api.request(Method::PATCH, &format!("/v1/vms/{vm}/peers/n")).json(&json!({"policy": {"deny": ["*#nothing"]}}));
    api.send(patch).await.status(204);
    let token = token(&api, &vm).await;
    let program = "import { next } from 'file:///workspace/peers/n/proxy/sdk/small.mjs'; result.set(await next())";
    assert_eq!(node(&api, &vm, program).await, json!([1, 9]));
    // A program that goes on calling while there is no manager: every call has an answer.
    let steady = "import { sleep } from 'file:///workspace/peers/n/proxy/sdk/small.mjs';
        import fs from 'node:fs';
        const until = Date.now() + 25000;
        const count = {};
        let last;
        while (Date.now() < until) {
          last = await sleep(20).then(() => 200, (error) => error.status ?? error.code);
          count[last] = (count[last] ?? 0) + 1;
          if (last !== 200) await new Promise((wake) => setTimeout(wake, 200));
          fs.writeFileSync('/workspace/steady.json', JSON.stringify({ count, last }));
        }";
    api.sh(&vm, &format!("cat > steady.mjs <<'END'\n{steady}\nEND\nnode steady.mjs >/dev/null 2>&1 &")).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    server.kill();
    server.restart(&[]).await;
    let body = json!({"alias": "n", "modulePath": "/workspace/sdk/small.mjs", "exportName": "next"});
    let reply = invoke(&server.anonymous(), &token, &body).await.ok().json();
    assert_eq!(reply["result"][1], 9, "the token is still that of the VM's present start");
    assert!(reply["result"][0].as_u64() >= Some(2), "the worker was kept: {reply}");
    let shown = server.api().get(&format!("/v1/vms/{vm}")).await.ok().json()["peerLinks"].clone();
    assert_eq!(shown[0]["policy"]["deny"], json!(["*#nothing"]));
    tokio::time::sleep(Duration::from_secs(22)).await;
    let steady: serde_json::Value = serde_json::from_str(&server.api().sh(&vm, "cat steady.json").await).expect("JSON");
    assert_eq!(steady["last"], 200, "{steady}");
    assert!(steady["count"]["200"].as_u64() > Some(20), "{steady}");
    let head = server.api().get("/v1/audit/head").await.ok().json();
    assert!(head["records"].as_u64() > Some(20), "{head}");
    // Sync, stop and start work as before.
    server.api().poke(&format!("/v1/vms/{vm}/peers/sync")).await.status(204);
    assert_eq!(node(&server.api(), &vm, program).await[1], 9);
    for vm in [&vm, &provider] {
        server.api().delete(&format!("/v1/vms/{vm}")).await.status(204);
    }
    server.assert_no_trace().await;
}

/// The next manager knows the hash of the token alone, and makes a new one.
async fn a_sync_that_fails_after_a_restart_takes_no_token_away(world: &World) {
    let mut server = world.own_server(&[]).await;
    let sdk = javascript("export const one = () => 1;", &[export("one", &[], json!({}))]);
    let provider = sdk.provide(&server.api(), json!({})).await;
    let linked = json!({"alias": "n", "vmId": provider, "sourceMode": "mounted"});
    let vm = consumer(&server.api(), &[linked]).await;
    let first = token(&server.api(), &vm).await;
    server.kill();
    server.restart(&[]).await;
    let api = server.api();
    api.sh(&provider, "truncate -s 300M large").await;
    let refused = api.poke(&format!("/v1/vms/{vm}/peers/sync")).await.status(400).message();
    assert!(refused.starts_with("Peer alias n: ") && refused.contains("too large"), "{refused}");
    let program = "import { one } from 'file:///workspace/peers/n/proxy/sdk/small.mjs'; result.set(await one())";
    assert_eq!(node(&api, &vm, program).await, 1, "what the files say still holds");
    api.sh(&provider, "rm large && touch \"$(printf 'caf\\351')\"").await;
    api.poke(&format!("/v1/vms/{vm}/peers/sync")).await.status(204);
    assert_eq!(node(&api, &vm, program).await, 1);
    assert_ne!(token(&api, &vm).await, first);
    let old = format!("send(call(), {{ authorization: 'Bearer {first}' }})");
    assert_eq!(node(&api, &vm, &raw_calls(&[&old])).await[0][0], 401, "the old one is dead now");
    let found = api.sh(&vm, "ls peers/n/source").await;
    assert_eq!(found, "sdk", "a file whose name is no text is left out");
    api.remove(&[&vm, &provider]).await;
}

async fn a_call_does_not_wait_longer_than_it_may_for_its_provider_to_load(world: &World) {
    let api = world.api().await;
    let anonymous = world.server().await.anonymous();
    let code = "await new Promise((wake) => setTimeout(wake, 8000)); export const one = () => 1;";
    let provider = javascript(code, &[export("one", &[], json!({}))]).provide(&api, json!({})).await;
    let vm = consumer(&api, &[link("n", &provider)]).await;
    let token = token(&api, &vm).await;
    api.poke(&format!("/v1/vms/{provider}/stop")).await.status(204);
    api.poke(&format!("/v1/vms/{provider}/start")).await.status(204);
    let call = |timeout_ms: u64| json!({"alias": "n", "modulePath": "/workspace/sdk/small.mjs", "exportName": "one", "timeoutMs": timeout_ms});
    let begun = Instant::now();
    let late = invoke(&anonymous, &token, &call(1000)).await.status(504);
    assert_eq!(late.json()["code"], "peer_timeout");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(invoke(&anonymous, &token, &call(60_000)).await.ok().json(), json!({"result": 1}));
    api.remove(&[&vm, &provider]).await;
}
