//! Overview, activity and events.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};

use crate::test_app::{TestApp, answer};

#[tokio::test]
async fn the_overview_counts_and_measures() {
    let test = TestApp::start().await;
    let (status, overview) = test.get("/v1/admin/overview").await;
    assert_eq!(status, 200);
    assert_eq!(overview["counts"], json!({ "activeVms": 0, "snapshots": 0, "templates": 0 }));
    let usage = overview["cpu"]["usagePct"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&usage));
    for (part, field) in
        [("cpu", "capacityCores"), ("memory", "usedBytes"), ("memory", "capacityBytes"), ("storage", "capacityBytes")]
    {
        assert!(overview[part][field].as_u64().unwrap() > 0, "{part}.{field}");
    }
}

#[tokio::test]
async fn what_happens_is_listed_newest_first() {
    let test = TestApp::start().await;
    for name in ["first", "second"] {
        answer(test.request(Method::POST, "/v1/images").json(&json!({ "name": name }))).await;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let (_, events) = test.get("/v1/admin/activity").await;
    let messages: Vec<_> = events.as_array().unwrap().iter().map(|event| event["message"].as_str().unwrap()).collect();
    assert!(messages[0].contains("second") && messages[1].contains("first"), "{messages:?}");
    assert_eq!(events[0]["type"], "image.created");
    assert_eq!(events[0]["entityType"], "image");
    assert_eq!(test.get("/v1/admin/activity?limit=1").await.1.as_array().unwrap().len(), 1);
    for bad in ["0", "1001", "-1", "x", ""] {
        assert_eq!(test.get(&format!("/v1/admin/activity?limit={bad}")).await.0, 400, "{bad:?}");
    }
}

#[tokio::test]
async fn events_are_streamed_and_end_with_the_server() {
    let test = TestApp::start().await;
    let cookie = test.cookie().await;
    let reply = test.anonymous(Method::GET, "/v1/admin/events").header("cookie", &cookie).send().await.unwrap();
    assert_eq!(reply.headers()["content-type"], "text/event-stream");
    let mut stream = reply.bytes_stream();
    test.app.activity.record("vm.created", "some-id", "made", Some(json!({ "cpu": 1 }))).await;
    let chunk = tokio::time::timeout(Duration::from_secs(5), stream.next()).await.unwrap().unwrap().unwrap();
    let text = String::from_utf8(chunk.to_vec()).unwrap();
    let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    assert!(text.contains("event: activity\n"), "{text}");
    let event: Value = serde_json::from_str(data).unwrap();
    assert_eq!(
        (&event["type"], &event["entityId"], &event["meta"]),
        (&json!("vm.created"), &json!("some-id"), &json!({"cpu": 1}))
    );
    test.stop().await;
}
