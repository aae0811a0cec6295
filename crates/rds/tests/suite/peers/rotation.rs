//! Secrets that are replaced while calls are being made.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;

use super::sdk::{Sdk, export};
use super::stage::{consumer, invoke, link, token};
use crate::harness::{World, cases};

cases![a_thousand_calls_during_a_rotation];

const CALLS: usize = 1000;
const CALLERS: usize = 20;

/// None fails, none that begins after the reply uses the old value, and the audit log knows which each used.
async fn a_thousand_calls_during_a_rotation(world: &World) {
    let api = world.api().await;
    let anonymous = world.server().await.anonymous();
    // Three characters of a value are too few to be struck out.
    let code =
        "import process from 'node:process'; export const which = async () => (process.env.KEY ?? '').slice(0, 3);";
    let exports = [export("which", &[], json!({"type": "string"}))];
    let sdk = Sdk::new("Rotating").module("a.mjs", code, &exports).module("b.ts", code, &exports);
    let provider = sdk.provide(&api, json!({"memMb": 512, "secretEnv": ["KEY=old-value-1"]})).await;
    let vm = consumer(&api, &[link("r", &provider)]).await;
    let token = token(&api, &vm).await;
    let call = async |n: usize| {
        let module = if n.is_multiple_of(2) { "/workspace/a.mjs" } else { "/workspace/b.ts" };
        let body = json!({"alias": "r", "modulePath": module, "exportName": "which", "timeoutMs": 60_000});
        let begun = Instant::now();
        let value = invoke(&anonymous, &token, &body).await.ok().json()["result"].clone();
        (begun, value)
    };
    assert_eq!((call(0).await.1, call(1).await.1), (json!("old"), json!("old")));

    let next = AtomicUsize::new(0);
    let callers = (0..CALLERS).map(|_| async {
        let mut made = Vec::new();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= CALLS {
                return made;
            }
            made.push(call(n).await);
        }
    });
    let rotation = async {
        while next.load(Ordering::Relaxed) < CALLS / 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let request = api.request(Method::PUT, &format!("/v1/vms/{provider}/secrets"));
        api.send(request.json(&json!({"secretEnv": ["KEY=new-value-2"]}))).await.status(204);
        Instant::now()
    };
    let (made, replied) = tokio::join!(join_all(callers), rotation);
    let made = made.concat();
    assert_eq!(made.len(), CALLS);
    let after: Vec<_> = made.iter().filter(|(begun, _)| *begun > replied).collect();
    assert!(after.len() > CALLS / 4, "the rotation took nearly all the time: {} calls are after it", after.len());
    assert!(after.iter().all(|(_, value)| *value == "new"), "the old value after the reply");
    assert!(made.iter().all(|(_, value)| *value == "old" || *value == "new"));
    assert_eq!(api.sh(&provider, "echo $KEY").await, "new-value-2", "programs have it, too");

    let page = api.get(&format!("/v1/audit?consumer={vm}&limit=1")).await.ok().json();
    assert_eq!(page["entries"][0]["secretVersion"], 2, "{page}");
    let first = api.get(&format!("/v1/audit?consumer={vm}&limit=1000&outcome=failed")).await.ok().json();
    assert_eq!(first["entries"], json!([]));
    for vm in [vm, provider] {
        api.delete(&format!("/v1/vms/{vm}")).await.status(204);
    }
}
