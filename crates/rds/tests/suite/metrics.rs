//! `/metrics`: what the server counts.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::harness::{Api, World, cases, create, prerequisites};

cases![
    everything_that_ends_is_counted,
    what_monitors_count_is_counted needs "Firecracker",
    metrics_are_for_whoever_may_see_them,
];

const TOKEN: &str = "metrics-token-3b7e";

async fn metrics(api: &Api) -> String {
    let request = api.request(Method::GET, "/metrics").bearer_auth(TOKEN);
    let reply = api.send(request).await.ok();
    assert!(reply.header("content-type").starts_with("application/openmetrics-text"));
    String::from_utf8(reply.body.to_vec()).expect("text")
}

/// Firecracker tells once a minute.
async fn what_monitors_count_is_counted(world: &World) {
    let server = world.own_server(&[("METRICS_TOKEN", TOKEN)]).await;
    let api = server.api();
    let vm = create(&api, json!({})).await;
    api.sh(&vm, "head -c 3000000 /dev/urandom > written && sync && cat written | md5sum").await;
    let begun = std::time::Instant::now();
    let text = loop {
        let text = metrics(&api).await;
        if text.contains("rds_vm_disk_bytes_total{direction=\"written\"}") {
            break text;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "{text}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    assert!(value(&text, "rds_vm_disk_bytes_total{direction=\"written\"}") >= 3e6, "{text}");
    for series in [
        "disk_bytes_total{direction=\"read\"}",
        "channel_bytes_total{direction=\"in\"}",
        "channel_bytes_total{direction=\"out\"}",
    ] {
        assert!(value(&text, &format!("rds_vm_{series}")) > 0.0, "{series} in\n{text}");
    }
    assert!(!text.contains("rds_monitor_faults_total{"), "{text}");
    api.remove(&[vm]).await;
}

/// The value of the one series that begins like this.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let line = line.unwrap_or_else(|| panic!("no {series} in\n{text}"));
    line.parse().expect("a number")
}

async fn everything_that_ends_is_counted(world: &World) {
    let server = world.bare_server(&[("METRICS_TOKEN", TOKEN), ("MAX_VMS", "1")]).await;
    let api = server.api();
    let begun = std::time::Instant::now();
    while value(&metrics(&api).await, "rds_seeds") < 1.0 {
        assert!(begun.elapsed() < Duration::from_secs(120), "no seed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let vm = create(&api, json!({"secretEnv": ["SECRET=canary-8d1f"], "name": "canary-name"})).await;
    api.post("/v1/vms", &json!({"cpu": 1, "memMb": 256, "allowIps": []})).await.status(429);
    api.sh(&vm, "echo canary-output").await;
    assert_eq!(api.exec(&vm, "exit 3").await["exitCode"], 3);
    let slow = json!({"cmd": "sleep 5 # canary-command", "timeoutMs": 200});
    assert_eq!(api.exec_with(&vm, slow).await["exitCode"], -1);
    api.post(&format!("/v1/vms/{vm}/run-js"), &json!({"code": "result.set(1)"})).await.ok();
    api.poke(&format!("/v1/vms/{vm}/snapshots")).await.status(201);
    // It has secrets.
    api.post(&format!("/v1/vms/{vm}/fork"), &json!({})).await.status(409);
    api.get("/v1/vms/canary-id").await.status(404);
    api.raw(b"CANARY / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    api.get("/canary-path").await.status(404);
    let text = metrics(&api).await;
    for (series, least) in [
        ("rds_vm_creates_total{outcome=\"ok\"}", 1.0),
        ("rds_vm_creates_total{outcome=\"too_many_requests\"}", 1.0),
        ("rds_vm_start_seconds_count{started_from=\"seed\"}", 1.0),
        ("rds_vm_start_step_seconds_count{started_from=\"seed\",step=\"queue\"}", 1.0),
        ("rds_vm_start_step_seconds_count{started_from=\"seed\",step=\"disk\"}", 1.0),
        ("rds_vm_start_step_seconds_count{started_from=\"seed\",step=\"restore\"}", 1.0),
        ("rds_vm_start_step_seconds_count{started_from=\"seed\",step=\"agent\"}", 1.0),
        ("rds_vm_start_step_seconds_count{started_from=\"seed\",step=\"peers\"}", 1.0),
        ("rds_runs_total{kind=\"exec\",outcome=\"ok\"}", 1.0),
        ("rds_runs_total{kind=\"exec\",outcome=\"failed\"}", 1.0),
        ("rds_runs_total{kind=\"exec\",outcome=\"timeout\"}", 1.0),
        ("rds_runs_total{kind=\"run-js\",outcome=\"ok\"}", 1.0),
        ("rds_run_seconds_count{kind=\"exec\"}", 3.0),
        ("rds_seed_builds_total{outcome=\"ok\"}", 1.0),
        ("rds_snapshots_taken_total{outcome=\"ok\"}", 1.0),
        ("rds_vm_stood_still_seconds_count{copy=\"disk\"}", 1.0),
        ("rds_vm_forks_total{outcome=\"conflict\"}", 1.0),
        ("rds_events_total{kind=\"vm.created\"}", 1.0),
        ("rds_events_total{kind=\"snapshot.created\"}", 1.0),
        ("rds_http_requests_total{method=\"GET\",route=\"/v1/vms/{id}\",status=\"404\"}", 1.0),
        ("rds_http_requests_total{method=\"POST\",route=\"/v1/vms\",status=\"201\"}", 1.0),
        ("rds_vms{state=\"RUNNING\"}", 1.0),
        ("rds_pool_machines", 0.0),
    ] {
        assert!(value(&text, series) >= least, "{series} in\n{text}");
    }
    let monitor = format!("hypervisor=\"{}\"", prerequisites::monitor());
    assert!(text.lines().any(|line| line.starts_with("rds_server{") && line.contains(&monitor)), "{text}");
    assert!(!text.to_lowercase().contains("canary") && !text.contains(&vm), "{text}");
    // A peer's call that nobody answers, by the token door, is one too.
    let request = api.request(Method::POST, "/internal/v1/peer/invoke").bearer_auth("nobody");
    assert_eq!(api.send(request.json(&json!({}))).await.status, 401);
    api.delete(&format!("/v1/vms/{vm}")).await.status(204);
    assert!((value(&metrics(&api).await, "rds_vms{state=\"RUNNING\"}")).abs() < 0.5);
}

async fn metrics_are_for_whoever_may_see_them(world: &World) {
    world.server().await.anonymous().get("/metrics").await.status(404);
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("an address").to_string();
    drop(free);
    let server = world.own_server(&[("METRICS_TOKEN", TOKEN), ("METRICS_ADDR", &address)]).await;
    let api = server.anonymous();
    api.get("/metrics").await.status(401);
    api.send(api.request(Method::GET, "/metrics").bearer_auth("metrics-token-3b7f")).await.status(401);
    server.api().get("/metrics").await.status(401);
    assert!(metrics(&api).await.ends_with("# EOF\n"));
    let apart = reqwest::get(format!("http://{address}/metrics")).await.expect("a reply");
    assert_eq!(apart.status(), 200);
    assert!(apart.text().await.expect("text").contains("rds_vms{"));
    let other = reqwest::get(format!("http://{address}/v1/vms")).await.expect("a reply");
    assert_eq!(other.status(), 404, "nothing else is served there");
}
