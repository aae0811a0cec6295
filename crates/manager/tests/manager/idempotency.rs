//! Requests with an `Idempotency-Key` whose answer was not kept, over agents that answer from memory.

use std::future::pending;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rds_manager::App;
use rds_vmm::Hypervisor;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::agents::{Agents, config};
use crate::away;

async fn serve(root: &Path, machines: &Arc<Agents>) -> SocketAddr {
    let machines = Arc::clone(machines) as Arc<dyn Hypervisor>;
    let app = App::start_with(config(root).unwrap(), machines).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(rds_manager::serve(app, listener, pending()));
    address
}

/// Status, and the id of the VM or the snapshot.
async fn post(server: SocketAddr, path: &str, body: &Value) -> (StatusCode, Option<String>) {
    let request = Client::new().post(format!("http://{server}{path}")).header("x-api-key", "key");
    let reply = request.header("idempotency-key", "order").json(body).send().await.unwrap();
    let status = reply.status();
    let body: Value = serde_json::from_str(&reply.text().await.unwrap()).unwrap();
    (status, body["id"].as_str().map(str::to_owned))
}

async fn vms(server: SocketAddr) -> usize {
    let list = Client::new().get(format!("http://{server}/v1/vms")).header("x-api-key", "key").send().await.unwrap();
    serde_json::from_str::<Vec<Value>>(&list.text().await.unwrap()).unwrap().len()
}

#[test]
fn what_was_made_for_a_key_is_not_made_again() {
    let root = tempfile::tempdir().unwrap();
    let machines = Arc::new(Agents::new());
    let body = json!({"cpu": 1, "memMb": 128, "allowIps": []});
    let made = Runtime::new().unwrap().block_on(async {
        let server = serve(root.path(), &machines).await;
        away::go(root.path(), "UPDATE ON idempotency_keys").await;
        let made = post(server, "/v1/vms", &body).await;
        assert_eq!(made.0, StatusCode::CREATED);
        assert_eq!(post(server, "/v1/vms", &body).await, made);
        assert_eq!(
            post(server, "/v1/vms", &json!({"cpu": 2, "memMb": 128, "allowIps": []})).await.0,
            StatusCode::CONFLICT
        );
        made
    });
    // The next server knows nothing but the rows.
    Runtime::new().unwrap().block_on(async {
        let server = serve(root.path(), &machines).await;
        assert_eq!(post(server, "/v1/vms", &body).await, made);
        away::come_back(root.path()).await;
        for _ in 0..2 {
            assert_eq!(post(server, "/v1/vms", &body).await, made);
        }
        assert_eq!(vms(server).await, 1);
    });
}

#[tokio::test]
async fn a_key_whose_vm_is_gone_can_be_used_again() {
    let root = tempfile::tempdir().unwrap();
    let server = serve(root.path(), &Arc::new(Agents::new())).await;
    let body = json!({"cpu": 1, "memMb": 128, "allowIps": []});
    away::go(root.path(), "UPDATE ON idempotency_keys").await;
    let (_, vm) = post(server, "/v1/vms", &body).await;
    away::come_back(root.path()).await;
    let path = format!("http://{server}/v1/vms/{}", vm.as_ref().unwrap());
    let deleted = Client::new().delete(path).header("x-api-key", "key").send().await.unwrap();
    assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    let (status, other) = post(server, "/v1/vms", &body).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_ne!(other, vm);
    assert_eq!(post(server, "/v1/vms", &body).await.1, other);
}
