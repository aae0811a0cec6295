//! Calls between VMs when the server ends, over agents that answer from memory.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rds_manager::App;
use rds_manager::store::audit::{AuditFilter, AuditRange};
use rds_vmm::{Hypervisor, VmId};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::agents::{Agents, config, vm};

#[tokio::test]
async fn calls_under_way_are_given_up_and_written_down() {
    let root = tempfile::tempdir().unwrap();
    let machines = Arc::new(Agents::new());
    machines.known.hangs.store(true, Relaxed);
    let monitor = Arc::clone(&machines) as Arc<dyn Hypervisor>;
    let app = App::start_with(config(root.path()).unwrap(), monitor).await.unwrap();
    let provider = app.vms.create(vm(&json!([])).unwrap()).await.unwrap().id;
    let consumer = app.vms.create(vm(&json!([{"alias": "mail", "vmId": provider}])).unwrap()).await.unwrap().id;
    let consumer: VmId = consumer.parse().unwrap();
    let message = json!({"to": ["ann@example.com"], "subject": "Minutes", "body": ""});
    let call = json!({"alias": "mail", "modulePath": "/workspace/sdk.ts", "exportName": "send", "args": [message]});
    let call = call.to_string();

    let peers = app.vms.peers();
    let made = peers.call(consumer, call.clone().into());
    tokio::pin!(made);
    assert!(timeout(Duration::from_secs(1), &mut made).await.is_err(), "the provider does not answer");
    let ((), made) = timeout(Duration::from_secs(5), async { tokio::join!(peers.close(), made) }).await.unwrap();
    assert_eq!(made.unwrap_err().status, 503);
    assert_eq!(peers.call(consumer, call.clone().into()).await.unwrap_err().status, 503, "no more are made");

    app.audit.flush().await;
    let records = app.audit.records(&AuditFilter::default(), AuditRange::From(0), 10).await.unwrap();
    let records: Vec<Value> = records.iter().map(|record| serde_json::from_str(&record.stored.text).unwrap()).collect();
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!((&records[0]["alias"], &records[0]["outcome"]), (&json!("mail"), &json!("cancelled")));
}
