//! `/v1/vms/{id}/secrets`: replaced while the VM runs, and found nowhere but in its programs.

use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Api, Reply, World, cases, create};

cases![
    new_secrets_take_the_place_of_the_old_ones,
    secrets_of_a_server_that_died_are_given_by_the_next,
    secrets_need_a_key,
    senseless_secrets_are_refused,
];

/// A setting with which a server takes secrets.
const KEY: (&str, &str) = ("VM_SECRET_KEY", "a key of the suite, long enough");

async fn put(api: &Api, vm: &str, secrets: &Value) -> Reply {
    let request = api.request(Method::PUT, &format!("/v1/vms/{vm}/secrets"));
    api.send(request.json(&json!({ "secretEnv": secrets }))).await
}

async fn new_secrets_take_the_place_of_the_old_ones(world: &World) {
    const SHOW: &str = "echo \"$TOKEN,$GONE,$NEW\"";
    let mut server = world.own_server(&[KEY]).await;
    let api = server.api();
    let vm = &create(&api, json!({"memMb": 128, "secretEnv": ["TOKEN=first-1c5e", "GONE=gone-77ab"]})).await;
    assert_eq!(api.sh(vm, SHOW).await, "first-1c5e,gone-77ab,");
    let waiting = {
        let (api, vm) = (api.clone(), vm.clone());
        let cmd = format!("touch begun; until [ -e go ]; do sleep 0.1; done; {SHOW}");
        tokio::spawn(async move { api.sh(&vm, &cmd).await })
    };
    let begun = Instant::now();
    while api.exec(vm, "test -e begun").await["exitCode"] != 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "it does not begin");
    }

    put(&api, vm, &json!(["TOKEN=second-9f02", "NEW=new-40d1"])).await.status(204);
    assert_eq!(api.sh(vm, SHOW).await, "second-9f02,,new-40d1");
    api.sh(vm, "touch go").await;
    assert_eq!(waiting.await.expect("it ends"), "first-1c5e,gone-77ab,", "what runs keeps what it has");

    api.poke(&format!("/v1/vms/{vm}/stop")).await.status(204);
    api.poke(&format!("/v1/vms/{vm}/start")).await.status(204);
    assert_eq!(api.sh(vm, SHOW).await, "second-9f02,,new-40d1");
    server.kill();
    server.restart(&[]).await;
    let api = server.api();
    assert_eq!(api.sh(vm, SHOW).await, "second-9f02,,new-40d1");
    put(&api, vm, &json!([])).await.status(204);
    assert_eq!(api.sh(vm, SHOW).await, ",,");

    let logs = api.get(&format!("/v1/vms/{vm}/exec-logs?limit=200")).await.ok().json();
    let shown = |entry: &&Value| entry["result"]["stdout"].as_str().is_some_and(|text| text.contains("[redacted],"));
    assert_eq!(logs["entries"].as_array().expect("a list").iter().filter(shown).count(), 5, "{logs}");
    for value in ["first-1c5e", "gone-77ab", "second-9f02", "new-40d1"] {
        assert!(!logs.to_string().contains(value), "{value} is in {logs}");
        assert_nowhere(server.root(), value).await;
    }
    api.delete(&format!("/v1/vms/{vm}")).await.status(204);
}

async fn secrets_of_a_server_that_died_are_given_by_the_next(world: &World) {
    let mut server = world.own_server(&[KEY, ("RDS_FAULT", "kill:secrets")]).await;
    let api = server.api();
    let vm = &create(&api, json!({"memMb": 128, "secretEnv": ["TOKEN=first-1c5e"]})).await;
    let boot = api.sh(vm, "cat /proc/sys/kernel/random/boot_id").await;
    let request = api.request(Method::PUT, &format!("/v1/vms/{vm}/secrets"));
    let reply = request.json(&json!({"secretEnv": ["TOKEN=second-9f02"]})).send().await;
    assert!(reply.is_err(), "the server answered {reply:?}");
    server.wait_until_ended(Duration::from_secs(10)).await;
    server.restart(&[("RDS_FAULT", None)]).await;
    let api = server.api();
    assert_eq!(api.sh(vm, "echo $TOKEN").await, "second-9f02");
    assert_eq!(api.sh(vm, "cat /proc/sys/kernel/random/boot_id").await, boot, "it was booted again");
    api.delete(&format!("/v1/vms/{vm}")).await.status(204);
}

/// Fails if a file below `dir` has this text in clear. Lines end with NUL for it: a file full of them is no one line then.
async fn assert_nowhere(dir: &Path, text: &str) {
    let search = tokio::process::Command::new("grep").args(["-rlazF", "-e", text]).arg(dir).output();
    let found = search.await.expect("grep runs");
    assert_eq!(found.status.code(), Some(1), "{text} is in {}", String::from_utf8_lossy(&found.stdout));
}

async fn secrets_need_a_key(world: &World) {
    let server = world.own_server(&[("VM_SECRET_KEY", "")]).await;
    let api = server.api();
    let vm = create(&api, json!({"memMb": 128})).await;
    let reply = put(&api, &vm, &json!(["TOKEN=x"])).await.status(400);
    assert!(reply.message().contains("VM_SECRET_KEY"), "{}", reply.message());
    let body = json!({"cpu": 1, "memMb": 128, "allowIps": [], "secretEnv": ["TOKEN=x"]});
    let reply = api.post("/v1/vms", &body).await.status(400);
    assert!(reply.message().contains("VM_SECRET_KEY"), "{}", reply.message());
    api.delete(&format!("/v1/vms/{vm}")).await.status(204);
}

async fn senseless_secrets_are_refused(world: &World) {
    let (api, vm) = world.vm().await;
    let large = "x".repeat(60_000);
    for secrets in [
        json!("TOKEN=x"),
        json!(["TOKEN"]),
        json!(["=s3cr3t-51"]),
        json!(["1A=s3cr3t-51"]),
        json!(["A B=s3cr3t-51"]),
        json!(["A\n=s3cr3t-51"]),
        json!(["A=s3cr3t-51\u{0}"]),
        json!([1]),
        json!(null),
        json!([format!("A={large}")]),
    ] {
        let reply = put(&api, vm, &secrets).await.status(400);
        assert!(!reply.message().contains("s3cr3t-51"), "{}", reply.message());
    }
    put(&api, "0d6bd3a4-6f0c-4a54-8f42-9a1fbe1f2d3e", &json!([])).await.status(404);
}
