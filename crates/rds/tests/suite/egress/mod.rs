//! What VMs reach, with a world in a network namespace.

mod addresses;
mod names;
mod warm;

use serde_json::{Value, json};

use crate::harness::{Api, Case};

pub(crate) fn cases() -> Vec<Case> {
    [addresses::cases(), names::cases(), warm::cases()].concat()
}

/// The exit code and output of a command.
async fn run(api: &Api, vm: &str, cmd: &str) -> (i64, String) {
    // Emulated guests on a busy machine take a while to start node.
    let reply = api.exec_with(vm, json!({"cmd": cmd, "timeoutMs": 120_000})).await;
    let text = |key: &str| reply[key].as_str().unwrap_or_default().to_owned();
    (reply["exitCode"].as_i64().unwrap_or(-2), text("stdout") + &text("stderr"))
}

async fn reaches(api: &Api, vm: &str, cmd: &str, word: &str) {
    let (code, text) = run(api, vm, cmd).await;
    assert!(code == 0 && text.contains(word), "{cmd}: {code}: {text}");
}

async fn fails(api: &Api, vm: &str, cmd: &str) {
    let (code, text) = run(api, vm, cmd).await;
    assert_ne!(code, 0, "{cmd}: {text}");
}

/// Events of this VM's refusals.
async fn denials(api: &Api, vm: &str) -> Vec<Value> {
    let events = api.get("/v1/admin/activity?limit=200").await.ok().json();
    let ours = |event: &&Value| event["type"] == "vm.egress_denied" && event["entityId"] == vm;
    events.as_array().expect("a list").iter().filter(ours).cloned().collect()
}
