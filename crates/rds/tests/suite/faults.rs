//! Creates that fail, and managers that die, at every step. `RDS_FAULT` names the step.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Api, TestServer, World, cases};

cases![
    a_create_that_fails_at_any_step_leaves_nothing,
    a_manager_that_dies_at_any_step_leaves_nothing_half_made,
    a_start_that_fails_keeps_the_disk,
    an_unknown_step_stops_the_server
];

const STEPS: [&str; 8] = ["directory", "disk", "tap", "rules", "boot", "connect", "configure", "ready"];

async fn try_create(api: &Api) -> Result<u16, reqwest::Error> {
    let request = api.request(reqwest::Method::POST, "/v1/vms");
    let reply = request.json(&json!({"cpu": 1, "memMb": 128, "allowIps": []})).send().await?;
    Ok(reply.status().as_u16())
}

async fn a_create_that_fails_at_any_step_leaves_nothing(world: &World) {
    let mut server: Option<TestServer> = None;
    for step in STEPS {
        match &mut server {
            // Its VMs are booted; those of the server below come from a seed.
            None => server = Some(world.bare_server(&[("RDS_FAULT", step)]).await),
            Some(server) => {
                server.stop().await;
                server.restart(&[("RDS_FAULT", Some(step))]).await;
            }
        }
        let server = server.as_ref().expect("just started");
        let reply = server.api().post("/v1/vms", &json!({"cpu": 1, "memMb": 128, "allowIps": []})).await;
        assert!(matches!(reply.status, 500 | 503), "{step}: {reply:?}");
        server.assert_no_trace().await;
    }
    let mut server = server.expect("started");
    server.stop().await;
    server.restart(&[("RDS_FAULT", None)]).await;
    let vm = crate::harness::create(&server.api(), json!({"memMb": 128})).await;
    server.api().delete(&format!("/v1/vms/{vm}")).await.status(204);
    server.assert_no_trace().await;
}

async fn a_manager_that_dies_at_any_step_leaves_nothing_half_made(world: &World) {
    let mut server = world.own_server(&[]).await;
    let standing = crate::harness::create(&server.api(), json!({"memMb": 128})).await;
    for step in STEPS {
        server.stop().await;
        server.restart(&[("RDS_FAULT", Some(&format!("kill:{step}")))]).await;
        let reply = try_create(&server.api()).await;
        assert!(reply.is_err(), "{step}: the manager answered {reply:?}");
        server.wait_until_ended(Duration::from_secs(10)).await;
        server.restart(&[("RDS_FAULT", None)]).await;
        let list = server.api().get("/v1/vms").await.ok().json();
        let ids: Vec<&str> = list.as_array().expect("a list").iter().filter_map(|vm| vm["id"].as_str()).collect();
        assert_eq!(ids, [standing.as_str()], "{step}");
        assert_eq!(server.vm_directories().len(), 1, "{step}: {:?}", server.vm_directories());
        assert_eq!(server.vm_processes().len(), 1, "{step}");
        assert_eq!(server.api().sh(&standing, "echo alive").await, "alive", "{step}");
    }
    server.api().delete(&format!("/v1/vms/{standing}")).await.status(204);
    server.assert_no_trace().await;
}

async fn a_start_that_fails_keeps_the_disk(world: &World) {
    let mut server = world.own_server(&[]).await;
    let vm = crate::harness::create(&server.api(), json!({"memMb": 128})).await;
    server.api().sh(&vm, "echo kept > f").await;
    server.api().poke(&format!("/v1/vms/{vm}/stop")).await.status(204);
    server.stop().await;
    server.restart(&[("RDS_FAULT", Some("connect"))]).await;
    let reply = server.api().poke(&format!("/v1/vms/{vm}/start")).await;
    assert!(matches!(reply.status, 500 | 503), "{reply:?}");
    assert!(server.vm_processes().is_empty(), "a process is left");
    server.stop().await;
    server.restart(&[("RDS_FAULT", None)]).await;
    let api = server.api();
    let state = api.get(&format!("/v1/vms/{vm}")).await.ok().json()["state"].clone();
    assert!(state == "STOPPED" || state == "ERROR", "{state}");
    if state == "STOPPED" {
        api.poke(&format!("/v1/vms/{vm}/start")).await.status(204);
        assert_eq!(api.sh(&vm, "cat f").await, "kept");
    }
    api.delete(&format!("/v1/vms/{vm}")).await.status(204);
    server.assert_no_trace().await;
}

async fn an_unknown_step_stops_the_server(world: &World) {
    let root = tempfile::tempdir().expect("a directory");
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_rds"))
        .args(["serve", "--port", "0", "--network", "off", "--storage-root"])
        .arg(root.path())
        .env("RDS_FAULT", "nonsense")
        .env("RDS_AGENT_PATH", &world.found.agent)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(60), output).await.expect("it ends").expect("it runs");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("RDS_FAULT"), "{output:?}");
}
