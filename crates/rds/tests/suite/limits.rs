//! Rate limits, body sizes and quotas.

use reqwest::Method;
use serde_json::json;

use crate::harness::{World, cases};

cases![
    a_caller_who_asks_too_often_is_told_when_to_come_back,
    signing_in_is_limited,
    the_proxy_tells_who_is_asking,
    bodies_over_their_size_are_read_and_refused,
    more_vms_than_the_quota_are_refused,
    broken_json_is_a_400
];

async fn a_caller_who_asks_too_often_is_told_when_to_come_back(world: &World) {
    let server = world.own_server(&[("RATE_LIMIT_DEFAULT", "3"), ("RATE_LIMIT_EXEC", "2")]).await;
    let api = server.api();
    for remaining in ["2", "1", "0"] {
        let reply = api.get("/v1/vms").await.ok();
        assert_eq!((reply.header("x-ratelimit-limit"), reply.header("x-ratelimit-remaining")), ("3", remaining));
        assert!(reply.header("x-ratelimit-reset").parse::<u64>().is_ok());
    }
    let refused = api.get("/v1/vms").await.status(429);
    let wait: u64 = refused.header("retry-after").parse().expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(refused.header("x-ratelimit-remaining"), "0");
    // Another class has its own allowance, and a bad VM id counts as a call.
    let exec = "/v1/vms/0d6bd3a4-6f0c-4a54-8f42-9a1fbe1f2d3e/exec";
    for status in [404, 404, 429] {
        api.post(exec, &json!({"cmd": "true"})).await.status(status);
    }
    for _ in 0..10 {
        api.get("/openapi.json").await.ok();
        api.get("/healthz").await.ok();
    }
}

async fn signing_in_is_limited(world: &World) {
    let server = world.own_server(&[("RATE_LIMIT_LOGIN", "3")]).await;
    let api = server.anonymous();
    let body = json!({"email": "admin@example.org", "password": "guess"});
    for status in [401, 401, 401, 429, 429] {
        api.post("/auth/login", &body).await.status(status);
    }
}

async fn the_proxy_tells_who_is_asking(world: &World) {
    let settings = [("RATE_LIMIT_LOGIN", "1"), ("TRUSTED_PROXIES", "127.0.0.0/8")];
    let server = world.own_server(&settings).await;
    let api = server.anonymous();
    let body = json!({"email": "admin@example.org", "password": "guess"});
    let from = |address: &str| api.request(Method::POST, "/auth/login").header("x-forwarded-for", address).json(&body);
    api.send(from("198.51.100.1")).await.status(401);
    api.send(from("198.51.100.1")).await.status(429);
    api.send(from("198.51.100.2")).await.status(401);
}

async fn bodies_over_their_size_are_read_and_refused(world: &World) {
    let (api, vm) = world.vm().await;
    let text = |size: usize| "x".repeat(size);
    let exec = format!("/v1/vms/{vm}/exec");
    let cases = [
        ("/auth/login".to_owned(), json!({"email": text(16 * 1024), "password": ""})),
        ("/v1/vms".to_owned(), json!({"cpu": 1, "memMb": 256, "allowIps": [], "name": text(64 * 1024)})),
        ("/v1/images".to_owned(), json!({"name": "x", "description": text(64 * 1024)})),
        (exec.clone(), json!({"cmd": text(1024 * 1024)})),
        (format!("/v1/vms/{vm}/run-ts"), json!({"code": text(1024 * 1024)})),
        (format!("/v1/vms/{vm}/run-js"), json!({"code": text(1024 * 1024)})),
    ];
    for (path, body) in cases {
        let reply = api.post(&path, &body).await.status(413);
        assert_eq!(reply.json()["code"], "too_large", "{path}");
    }
    // Just under the limit is a matter of the route alone.
    let line = format!(": {}", text(100_000));
    assert_eq!(api.exec(vm, &line).await["exitCode"], 0);
}

async fn more_vms_than_the_quota_are_refused(world: &World) {
    let server = world.own_server(&[("MAX_VMS", "1")]).await;
    let api = server.api();
    let body = json!({"cpu": 1, "memMb": 128, "allowIps": []});
    let (first, second) = tokio::join!(api.post("/v1/vms", &body), api.post("/v1/vms", &body));
    let (made, refused) = if first.status == 201 { (first, second) } else { (second, first) };
    assert_eq!(refused.status(429).message(), "VM quota exceeded (maxVms=1)");
    let id = made.status(201).json()["id"].as_str().expect("an id").to_owned();
    api.delete(&format!("/v1/vms/{id}")).await.status(204);
    let id = api.post("/v1/vms", &body).await.status(201).json()["id"].as_str().expect("an id").to_owned();
    api.delete(&format!("/v1/vms/{id}")).await.status(204);
    server.assert_no_trace().await;
}

async fn broken_json_is_a_400(world: &World) {
    let (api, vm) = world.vm().await;
    let deep = format!("{{\"cmd\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let wide = format!("{{{}\"cmd\":1}}", "\"a\":1,".repeat(50_000));
    for path in [format!("/v1/vms/{vm}/exec"), format!("/v1/vms/{vm}/exec/stream")] {
        for body in
            ["", "{", "[]", "null", "\"x\"", "{\"cmd\":1}", "{\"cmd\":\"x\"", "{\"cmd\":\"\\ud800\"}", &deep, &wide]
        {
            api.post_raw(&path, body.to_owned()).await.status(400);
        }
        api.post_raw(&path, vec![b'{', 0xff, 0xfe, b'}']).await.status(400);
    }
    for body in ["{}", "{\"cpu\":\"1\",\"memMb\":256,\"allowIps\":[]}", "{\"cpu\":1,\"memMb\":256,\"allowIps\":{}}"] {
        api.post_raw("/v1/vms", body).await.status(400);
    }
}
