//! The two doors of a call: the agent's bridge on loopback, and the manager's own API with a bearer token.

use reqwest::Method;
use serde_json::json;

use super::sdk::{export, javascript};
use super::stage::{consumer, invoke, link, node, raw_calls, stage, token};
use crate::harness::{World, cases};

cases![
    a_call_by_either_door_has_the_same_answer,
    a_call_needs_the_token_of_its_vms_present_start,
    what_is_no_call_is_refused_at_both_doors,
    the_managers_api_is_not_reachable_from_a_guest,
];

async fn a_call_by_either_door_has_the_same_answer(world: &World) {
    let stage = stage(world).await;
    let anonymous = world.server().await.anonymous();
    let token = token(&stage.api, &stage.consumer).await;
    let body =
        json!({"alias": "mail", "modulePath": "/workspace/sdk/mail.ts", "exportName": "search", "args": ["q", 1]});
    let reply = invoke(&anonymous, &token, &body).await.ok().json();
    assert_eq!(reply, json!({"result": [{"id": "q-0"}]}));
    let inside = node(&stage.api, &stage.consumer, &raw_calls(&[&format!("send(JSON.stringify({body}))")])).await;
    assert_eq!(inside, json!([[200, reply]]));
    let failing =
        json!({"alias": "mail", "modulePath": "/workspace/sdk/mail.mjs", "exportName": "fail", "args": ["N", "m"]});
    let reply = invoke(&anonymous, &token, &failing).await.status(502).json();
    assert_eq!((&reply["message"], &reply["name"], &reply["code"]), (&json!("m"), &json!("N"), &json!("peer_threw")));
    let inside = node(&stage.api, &stage.consumer, &raw_calls(&[&format!("send(JSON.stringify({failing}))")])).await;
    assert_eq!(inside, json!([[502, reply]]));
}

async fn a_call_needs_the_token_of_its_vms_present_start(world: &World) {
    let api = world.api().await;
    let anonymous = world.server().await.anonymous();
    let sdk = javascript("export const one = () => 1;", &[export("one", &[], json!({}))]);
    let provider = sdk.provide(&api, json!({})).await;
    let vm = consumer(&api, &[link("one", &provider)]).await;
    let body = json!({"alias": "one", "modulePath": "/workspace/sdk/small.mjs", "exportName": "one"});
    let first = token(&api, &vm).await;
    invoke(&anonymous, &first, &body).await.ok();
    for wrong in ["", "x", &first.to_uppercase(), &format!("{first}x"), crate::harness::API_KEY] {
        invoke(&anonymous, wrong, &body).await.status(401);
    }
    api.send(api.request(Method::POST, "/internal/v1/peer/invoke").json(&body)).await.status(401);
    // Another consumer's token knows no such alias.
    let stage = stage(world).await;
    let others = token(&api, &stage.consumer).await;
    invoke(&anonymous, &others, &body).await.status(403);
    let theft = raw_calls(&[&format!("send(call({{}}), {{ authorization: 'Bearer {others}' }})")]);
    assert_eq!(node(&api, &vm, &theft).await[0][0], 401, "the agent takes its own VM's token alone");

    api.poke(&format!("/v1/vms/{vm}/stop")).await.status(204);
    invoke(&anonymous, &first, &body).await.status(401);
    api.poke(&format!("/v1/vms/{vm}/start")).await.status(204);
    invoke(&anonymous, &first, &body).await.status(401);
    let second = token(&api, &vm).await;
    invoke(&anonymous, &second, &body).await.ok();
    api.poke(&format!("/v1/vms/{vm}/peers/sync")).await.status(204);
    let synced = token(&api, &vm).await;
    invoke(&anonymous, &synced, &body).await.ok();

    api.poke(&format!("/v1/vms/{provider}/stop")).await.status(204);
    let refused = invoke(&anonymous, &synced, &body).await.status(409);
    assert!(refused.message().starts_with("Peer alias one: "), "{}", refused.message());
    api.delete(&format!("/v1/vms/{provider}")).await.status(204);
    invoke(&anonymous, &synced, &body).await.status(409);
    api.delete(&format!("/v1/vms/{vm}")).await.status(204);
    invoke(&anonymous, &synced, &body).await.status(401);
}

async fn what_is_no_call_is_refused_at_both_doors(world: &World) {
    let stage = stage(world).await;
    let anonymous = world.server().await.anonymous();
    let token = token(&stage.api, &stage.consumer).await;
    let path = "/internal/v1/peer/invoke";
    let refused = anonymous.get(path).await.status(405);
    assert_eq!(refused.json()["code"], "method_not_allowed");
    for body in
        ["", "[]", "null", "{", "{\"alias\":1}", "{\"alias\":\"mail\"}", "{\"alias\":\"mail\",\"modulePath\":\"\"}"]
    {
        let request =
            anonymous.request(Method::POST, path).bearer_auth(&token).header("content-type", "application/json");
        anonymous.send(request.body(body)).await.status(400);
    }
    let inside = raw_calls(&[
        "send('', undefined, 'GET')",
        "send(call(), undefined, 'PUT')",
        "send(call(), {})",
        "send(call(), { authorization: 'Basic x' })",
        "send(call(), undefined, 'POST', url.replace('invoke', 'other'))",
        "send(call(), undefined, 'POST', url.replace(/internal.*/, 'v1/vms'))",
        "send('[]')",
        "send('{')",
        "send(call({ args: {} }))",
        "send(call({ timeoutMs: 'x' }))",
        "send(call())",
    ]);
    let replies = node(&stage.api, &stage.consumer, &inside).await;
    let statuses: Vec<_> = replies.as_array().expect("a list").iter().map(|reply| reply[0].clone()).collect();
    assert_eq!(json!(statuses), json!([405, 405, 401, 401, 404, 404, 400, 400, 400, 400, 200]), "{replies}");
    for (index, code) in [(0, "method_not_allowed"), (2, "unauthorized"), (4, "not_found"), (6, "invalid_request")] {
        assert_eq!(replies[index][1]["code"], code, "{replies}");
    }
}

async fn the_managers_api_is_not_reachable_from_a_guest(world: &World) {
    let stage = stage(world).await;
    let port = world.server().await.url().rsplit(':').next().expect("a port").to_owned();
    let program = format!(
        "const net = require('net');
         const probe = (host) => new Promise((resolve) => {{
           const socket = net.connect({{ host, port: {port}, timeout: 1500 }});
           for (const event of ['connect', 'timeout', 'error']) socket.once(event, () => {{ socket.destroy(); resolve(event); }});
         }});
         Promise.all(['127.0.0.1', '172.16.0.1', '10.0.2.2', '10.0.2.15', '192.168.0.1', '169.254.169.254'].map(probe)).then((found) => result.set(found));"
    );
    let found = node(&stage.api, &stage.consumer, &program).await;
    assert!(found.as_array().expect("a list").iter().all(|event| event != "connect"), "{found}");
}
