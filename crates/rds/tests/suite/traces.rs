//! Traces: one through the API, the server and the agent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{World, cases, create};

cases![a_trace_leads_from_the_caller_to_the_agent];

type Spans = Arc<Mutex<Vec<Span>>>;

/// Takes what a server exports.
async fn collector() -> (String, Spans, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let spans = Spans::default();
    let kept = Arc::clone(&spans);
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(take(stream, Arc::clone(&kept)));
        }
    });
    (url, spans, task)
}

async fn take(stream: TcpStream, spans: Spans) {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let before = head.len();
            if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                return;
            }
            let line = head.get(before..).unwrap_or_default().trim_end();
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().expect("a number");
            }
        }
        assert!(head.starts_with("POST /v1/traces "), "{head}");
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.expect("a body");
        let request = ExportTraceServiceRequest::decode(body.as_slice()).expect("an export");
        let of_scope = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        spans.lock().expect("not poisoned").extend(of_scope.flat_map(|scope| scope.spans));
        let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        stream.get_mut().write_all(answer).await.expect("the server reads");
    }
}

/// The spans of a trace once there are `names` among them.
async fn seen(spans: &Spans, trace: &str, names: &[&str]) -> Vec<Span> {
    let begun = Instant::now();
    loop {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let all = spans.lock().expect("not poisoned").clone();
        let found: Vec<Span> = all.into_iter().filter(|span| hex(&span.trace_id) == trace).collect();
        let there: Vec<&str> = found.iter().map(|span| span.name.as_str()).collect();
        if names.iter().all(|name| there.contains(name)) {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{names:?} are not all in {there:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn a_trace_leads_from_the_caller_to_the_agent(world: &World) {
    let (url, spans, task) = collector().await;
    let settings = [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let server = world.own_server(&settings).await;
    let api = server.api();
    let traced = async |path: &str, body, trace: &str| {
        let header = format!("00-{trace}-00f067aa0ba902b7-01");
        api.send(api.request(Method::POST, path).header("traceparent", header).json(&body)).await
    };
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let body = json!({"cpu": 1, "memMb": 256, "allowIps": [], "secretEnv": ["SECRET=canary-4c"]});
    let vm = traced("/v1/vms", body, trace).await.status(201).json()["id"].as_str().expect("an id").to_owned();
    let names = ["POST /v1/vms", "create", "start", "come_up", "configure", "guest", "agent /v1/configure"];
    let created = seen(&spans, trace, &names).await;
    let by_id: HashMap<&[u8], &Span> = created.iter().map(|span| (span.span_id.as_slice(), span)).collect();
    let caller = [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7];
    for span in &created {
        let parent = by_id.get(span.parent_span_id.as_slice());
        assert_eq!(span.name == "POST /v1/vms", parent.is_none(), "{} hangs in the air", span.name);
        let Some(parent) = parent else {
            assert_eq!(span.parent_span_id, caller);
            continue;
        };
        let inside = parent.start_time_unix_nano <= span.start_time_unix_nano
            && span.end_time_unix_nano <= parent.end_time_unix_nano;
        assert!(inside, "{} is not within {}", span.name, parent.name);
        assert!(!span.name.starts_with("agent ") || parent.name == "guest");
    }

    let trace = "4bf92f3577b34da6a3ce929d0e0e4737";
    traced(&format!("/v1/vms/{vm}/exec"), json!({"cmd": "echo canary-4c", "env": {"A": "canary-4c"}}), trace)
        .await
        .ok();
    let ran = seen(&spans, trace, &["POST /v1/vms/{id}/exec", "run", "agent /v1/exec"]).await;
    assert!(!format!("{created:?}{ran:?}").contains("canary-4c"), "a text of the client is in a trace");

    let trace = "4bf92f3577b34da6a3ce929d0e0e4739";
    traced(&format!("/v1/vms/{vm}/snapshots"), json!({}), trace).await.status(201);
    seen(&spans, trace, &["POST /v1/vms/{id}/snapshots", "snapshot", "save", "agent /v1/freeze"]).await;

    let trace = "4bf92f3577b34da6a3ce929d0e0e473a";
    traced(&format!("/v1/vms/{vm}/stop"), json!({}), trace).await.status(204);
    seen(&spans, trace, &["POST /v1/vms/{id}/stop", "agent /v1/sync"]).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4738";
    traced(&format!("/v1/vms/{vm}/start"), json!({}), trace).await.status(204);
    seen(&spans, trace, &["POST /v1/vms/{id}/start", "start", "configure", "agent /v1/configure"]).await;

    let free = create(&api, json!({"memMb": 128})).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e473b";
    let forks = traced(&format!("/v1/vms/{free}/fork"), json!({}), trace).await.status(201).json();
    let names = ["POST /v1/vms/{id}/fork", "fork", "save", "start", "agent /v1/rename"];
    seen(&spans, trace, &names).await;
    let fork = forks["vms"][0]["id"].as_str().expect("an id").to_owned();
    api.remove(&[fork, free]).await;

    // Nobody waits for a collector that has gone.
    task.abort();
    for _ in 0..3 {
        assert_eq!(api.sh(&vm, "echo alive").await, "alive");
    }
    api.delete(&format!("/v1/vms/{vm}")).await.status(204);
}
