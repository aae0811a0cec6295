//! Rate limits.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::test_app::{KEY, TestApp, answer};

#[tokio::test]
async fn a_caller_who_asks_too_often_is_told_when_to_come_back() {
    let test = TestApp::with(&["--rate-limit-default", "3"]).await;
    for remaining in ["2", "1", "0"] {
        let reply = test.request(Method::GET, "/v1/images").send().await.unwrap();
        assert_eq!(reply.status(), 200);
        assert_eq!(reply.headers()["x-ratelimit-limit"], "3");
        assert_eq!(reply.headers()["x-ratelimit-remaining"], remaining);
        assert!(reply.headers()["x-ratelimit-reset"].to_str().unwrap().parse::<u64>().unwrap() <= 60);
    }
    let reply = test.request(Method::GET, "/v1/images").send().await.unwrap();
    assert_eq!(reply.status(), StatusCode::TOO_MANY_REQUESTS);
    let wait: u64 = reply.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=20).contains(&wait), "{wait}");
    assert_eq!(reply.headers()["x-ratelimit-remaining"], "0");
    assert_eq!(reply.json::<serde_json::Value>().await.unwrap()["code"], "too_many_requests");
    for free in ["/healthz", "/", "/openapi.json"] {
        assert_eq!(test.anonymous(Method::GET, free).send().await.unwrap().status(), 200, "{free}");
    }
}

#[tokio::test]
async fn classes_are_counted_apart() {
    let test = TestApp::with(&["--rate-limit-create-vm", "1", "--rate-limit-exec", "2"]).await;
    let create = || answer(test.request(Method::POST, "/v1/vms").json(&json!({})));
    assert_eq!(create().await.0, 400);
    assert_eq!(create().await.0, 429);
    let exec = || {
        answer(
            test.request(Method::POST, "/v1/vms/00000000-0000-4000-8000-000000000000/exec")
                .json(&json!({"cmd": "true"})),
        )
    };
    assert_eq!(exec().await.0, 404);
    assert_eq!(exec().await.0, 404);
    assert_eq!(exec().await.0, 429);
    assert_eq!(test.get("/v1/vms").await.0, 200);
}

#[tokio::test]
async fn sign_ins_and_wrong_keys_are_limited_by_address() {
    let test =
        TestApp::with(&["--rate-limit-login", "2", "--rate-limit-default", "2", "--trusted-proxies", "127.0.0.1"])
            .await;
    let wrong = json!({ "email": "a", "password": "b" });
    let login = |from: &'static str| {
        answer(test.anonymous(Method::POST, "/auth/login").header("x-forwarded-for", from).json(&wrong))
    };
    assert_eq!(login("203.0.113.1").await.0, 401);
    assert_eq!(login("203.0.113.1").await.0, 401);
    assert_eq!(login("203.0.113.1").await.0, 429);
    assert_eq!(login("203.0.113.2").await.0, 401, "another address has its own");
    let with = |key: &'static str, from: &'static str| {
        let request = test.anonymous(Method::GET, "/v1/images").header("x-api-key", key);
        answer(request.header("x-forwarded-for", from))
    };
    assert_eq!(with(KEY, "203.0.113.3").await.0, 200);
    for from in ["203.0.113.3", "203.0.113.4"] {
        assert_eq!(with("guess", from).await.0, 401);
        assert_eq!(with("guess", from).await.0, 401);
        assert_eq!(with("guess", from).await.0, 429);
    }
    assert_eq!(with(KEY, "203.0.113.4").await.0, 429, "a guess that is right is not looked at either");
    assert_eq!(with(KEY, "203.0.113.3").await.0, 200, "a client that was there before is not kept out");
}

#[tokio::test]
async fn every_route_with_a_class_of_its_own_exists() {
    let document = rds_manager::api::openapi::document();
    for (method, path) in rds_manager::api::limited_apart() {
        assert!(document["paths"][path][method.to_lowercase()].is_object(), "{method} {path}");
    }
}
