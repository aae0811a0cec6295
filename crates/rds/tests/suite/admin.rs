//! `/v1/admin/…`: the state of the server and what happened in it.

use std::time::Duration;

use futures_util::StreamExt;
use reqwest::Method;
use serde_json::json;

use crate::auth::sign_in;
use crate::harness::{World, cases};

cases![the_overview_counts, what_happens_is_remembered, events_come_as_they_happen, health_needs_no_key];

async fn the_overview_counts(world: &World) {
    let (api, _) = world.vm().await;
    let overview = api.get("/v1/admin/overview").await.ok().json();
    assert!(overview["counts"]["activeVms"].as_u64().is_some_and(|count| count >= 1), "{overview}");
    assert!(overview["cpu"]["usagePct"].as_f64().is_some_and(|usage| (0.0..=1.0).contains(&usage)), "{overview}");
    for part in ["memory", "storage"] {
        let (used, all) = (overview[part]["usedBytes"].as_u64(), overview[part]["capacityBytes"].as_u64());
        assert!(used.is_some_and(|used| used > 0) && used <= all, "{overview}");
    }
}

async fn what_happens_is_remembered(world: &World) {
    let (api, vm) = world.own_vm(json!({"memMb": 128})).await;
    for call in ["stop", "start"] {
        api.poke(&format!("/v1/vms/{vm}/{call}")).await.status(204);
    }
    api.delete(&format!("/v1/vms/{vm}")).await.status(204);
    let image = api.post("/v1/images", &json!({"name": "x", "description": ""})).await.status(201).json();
    let image = image["id"].as_str().expect("an id");
    api.delete(&format!("/v1/images/{image}")).await.status(204);
    let events = api.get("/v1/admin/activity?limit=200").await.ok().json();
    let of = |id: &str| -> Vec<String> {
        let all = events.as_array().expect("a list").iter().filter(|event| event["entityId"] == id);
        all.map(|event| event["type"].as_str().expect("a type").to_owned()).collect()
    };
    assert_eq!(of(&vm), ["vm.deleted", "vm.started", "vm.stopped", "vm.created"], "newest first");
    assert_eq!(of(image), ["image.deleted", "image.created"]);
    assert_eq!(api.get("/v1/admin/activity?limit=1").await.ok().json().as_array().map(Vec::len), Some(1));
    for query in ["limit=0", "limit=x", "limit=-1"] {
        api.get(&format!("/v1/admin/activity?{query}")).await.status(400);
    }
}

async fn events_come_as_they_happen(world: &World) {
    let server = world.server().await;
    let api = server.anonymous();
    let cookie = sign_in(&api).await;
    let request = api.request(Method::GET, "/v1/admin/events").header("cookie", &cookie);
    let reply = request.send().await.expect("a reply");
    assert_eq!((reply.status().as_u16(), reply.headers()["content-type"].as_bytes()), (200, &b"text/event-stream"[..]));
    let mut pieces = reply.bytes_stream();
    let image = server.api().post("/v1/images", &json!({"name": "seen", "description": ""})).await.status(201).json();
    let image = image["id"].as_str().expect("an id");
    let seen = tokio::time::timeout(Duration::from_secs(10), async {
        let mut text = String::new();
        while let Some(piece) = pieces.next().await {
            text.push_str(&String::from_utf8_lossy(&piece.expect("a piece")));
            if text.contains(image) {
                return text;
            }
        }
        text
    });
    let text = seen.await.expect("the event comes");
    assert!(text.contains("event: activity") && text.contains("image.created"), "{text}");
    server.api().delete(&format!("/v1/images/{image}")).await.status(204);
}

async fn health_needs_no_key(world: &World) {
    let api = world.server().await.anonymous();
    api.get("/healthz").await.ok();
    api.get("/readyz").await.ok();
    api.get("/v1/admin/overview").await.status(401);
}
