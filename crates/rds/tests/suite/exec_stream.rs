//! `/v1/vms/{id}/exec/stream`: output as it comes.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Api, World, cases};

cases![
    output_comes_as_it_is_written,
    a_stream_is_not_cut_at_the_collecting_limit,
    a_time_limit_is_told,
    a_caller_who_leaves_ends_the_command,
    characters_are_not_cut,
];

/// The events of a stream as (name, data), with the moment at which each came.
async fn events(api: &Api, vm: &str, body: Value) -> Vec<(String, Value, Duration)> {
    let begun = Instant::now();
    let request = api.request(Method::POST, &format!("/v1/vms/{vm}/exec/stream")).json(&body);
    let reply = request.send().await.expect("a reply");
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.headers()["content-type"], "text/event-stream");
    let (mut pieces, mut text, mut events) = (reply.bytes_stream(), Vec::new(), Vec::new());
    while let Some(piece) = pieces.next().await {
        text.extend_from_slice(&piece.expect("no broken stream"));
        while let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = text.drain(..end + 2).collect();
            let block = String::from_utf8(block).expect("UTF-8");
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim_start);
            if let (Some(name), Some(data)) = (field("event:"), field("data:")) {
                events.push((name.to_owned(), serde_json::from_str(data).expect("JSON"), begun.elapsed()));
            }
        }
    }
    events
}

fn joined(events: &[(String, Value, Duration)], wanted: &str) -> String {
    events.iter().filter(|(name, ..)| name == wanted).filter_map(|(_, data, _)| data.as_str()).collect()
}

async fn output_comes_as_it_is_written(world: &World) {
    let (api, vm) = world.vm().await;
    let events = events(&api, vm, json!({"cmd": "echo one; echo err >&2; sleep 2; echo two; exit 7"})).await;
    assert_eq!((joined(&events, "stdout"), joined(&events, "stderr")), ("one\ntwo\n".into(), "err\n".into()));
    let (name, data, end) = events.last().expect("an end");
    assert_eq!((name.as_str(), data), ("exit", &json!({"exitCode": 7, "timedOut": false, "truncated": false})));
    let first = events.iter().find(|(name, ..)| name == "stdout").expect("output").2;
    assert!(*end - first > Duration::from_millis(1500), "the first line came with the last: {events:?}");
}

async fn a_stream_is_not_cut_at_the_collecting_limit(world: &World) {
    let (api, vm) = world.vm().await;
    let events = events(&api, vm, json!({"cmd": "head -c 3000000 /dev/zero | tr '\\0' x"})).await;
    assert_eq!(joined(&events, "stdout").len(), 3_000_000);
    assert_eq!(events.last().expect("an end").1["exitCode"], 0);
}

async fn a_time_limit_is_told(world: &World) {
    let (api, vm) = world.vm().await;
    let events = events(&api, vm, json!({"cmd": "echo a; sleep 60", "timeoutMs": 1000})).await;
    let (_, exit, _) = events.last().expect("an end");
    assert_eq!((&exit["exitCode"], &exit["timedOut"]), (&json!(-1), &json!(true)));
}

async fn a_caller_who_leaves_ends_the_command(world: &World) {
    let (api, vm) = world.vm().await;
    let body = json!({"cmd": "echo here; exec sleep 2222", "timeoutMs": 100_000});
    let request = api.request(Method::POST, &format!("/v1/vms/{vm}/exec/stream")).json(&body);
    let mut pieces = request.send().await.expect("a reply").bytes_stream();
    pieces.next().await.expect("output").expect("output");
    drop(pieces);
    let begun = Instant::now();
    while api.exec(vm, "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c '^.*sleep 222[2]'").await["stdout"] != "0\n" {
        assert!(begun.elapsed().as_secs() < 10, "it runs on");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn characters_are_not_cut(world: &World) {
    let (api, vm) = world.vm().await;
    let cmd = "for i in $(seq 3); do printf '\\360\\237'; sleep 0.3; printf '\\230\\200'; done; printf '\\377'";
    let events = events(&api, vm, json!({"cmd": cmd})).await;
    assert_eq!(joined(&events, "stdout"), "😀😀😀\u{fffd}");
}
