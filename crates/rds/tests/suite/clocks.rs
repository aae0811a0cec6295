//! The host's clock is set back while the server runs. What happens across a restart is in `warm_faults`.

use std::fs;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::harness::{World, cases, create};
use crate::pause::{assert_clock_of, state};

cases![a_clock_that_is_set_back_while_the_server_runs_changes_no_duration];

const BACK: Duration = Duration::from_secs(3600);

async fn a_clock_that_is_set_back_while_the_server_runs_changes_no_duration(world: &World) {
    let dir = tempfile::tempdir().expect("a directory");
    let shift = dir.path().join("shift");
    fs::write(&shift, "0").expect("a file");
    let fault = format!("clock-in:{}", shift.display());
    let server = world.own_server(&[("RDS_FAULT", &fault), ("ENABLE_SNAPSHOTS", "false")]).await;
    let api = server.api();
    let once = json!({"cpu": 1, "memMb": 128, "allowIps": []});
    let keyed = || api.send(api.request(Method::POST, "/v1/vms").header("idempotency-key", "order").json(&once));
    let first = keyed().await.status(201).json();
    let vm = first["id"].as_str().expect("an id");
    let (mortal, idle) = tokio::join!(
        create(&api, json!({"memMb": 128, "ttlSeconds": 20})),
        create(&api, json!({"memMb": 128, "idleTimeoutSeconds": 3, "idleAction": "delete"}))
    );
    api.sh(vm, "echo before").await;
    let begun = Instant::now();

    fs::write(&shift, format!("-{}", BACK.as_secs())).expect("a file");
    // Its task looks at the time anew.
    let none = api.request(Method::PUT, &format!("/v1/vms/{mortal}/secrets")).json(&json!({"secretEnv": []}));
    api.send(none).await.status(204);
    api.sh(vm, "echo after").await;
    let entries = api.get(&format!("/v1/vms/{vm}/exec-logs?limit=1")).await.ok().json();
    assert_eq!(entries["entries"][0]["input"]["cmd"], "echo after", "the newest is not first: {entries}");
    assert_eq!(keyed().await.status(201).json(), first);
    // What stands still or comes up has the server's time.
    api.poke(&format!("/v1/vms/{vm}/pause")).await.status(204);
    api.poke(&format!("/v1/vms/{vm}/resume")).await.status(204);
    assert_clock_of(&api, vm, BACK).await;
    let fork = api.post(&format!("/v1/vms/{vm}/fork"), &json!({})).await.status(201).json();
    let fork = fork["vms"][0]["id"].as_str().expect("an id").to_owned();
    for vm in [vm, &fork] {
        assert_clock_of(&api, vm, BACK).await;
    }
    for (vm, limit) in [(&idle, 30), (&mortal, 60)] {
        while is_there(&api, vm).await {
            assert!(begun.elapsed() < Duration::from_secs(limit), "{vm} lives on");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    // It is told of when all of the VM is gone.
    loop {
        let newest = api.get("/v1/admin/activity?limit=1").await.ok().json();
        if (&newest[0]["type"], &newest[0]["entityId"]) == (&json!("vm.deleted"), &json!(mortal)) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(70), "the newest event is not first: {newest}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(state(&api, vm).await, "RUNNING");
    api.remove(&[vm, &fork]).await;
    server.assert_no_trace().await;
}

async fn is_there(api: &crate::harness::Api, vm: &str) -> bool {
    api.get(&format!("/v1/vms/{vm}")).await.status != 404
}
