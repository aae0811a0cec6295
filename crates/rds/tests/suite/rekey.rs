//! `rds secrets rekey` on the storage root of a real server.

use serde_json::json;
use tokio::process::Command;

use crate::harness::{TestServer, World, cases, create};

cases![a_vm_has_its_secrets_after_the_key_was_changed];

async fn rekey(server: &TestServer, old: &str, new: &str) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rds"));
    command.args(["secrets", "rekey"]).env("STORAGE_ROOT", server.root());
    command.env("VM_SECRET_KEY", new).env("VM_SECRET_KEY_OLD", old);
    let output = command.output().await.expect("rds runs");
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

async fn a_vm_has_its_secrets_after_the_key_was_changed(world: &World) {
    let mut server = world.own_server(&[("VM_SECRET_KEY", "the old key")]).await;
    let vm = create(&server.api(), json!({"memMb": 128, "secretEnv": ["TOKEN=hunter2"]})).await;
    let (done, said) = rekey(&server, "the old key", "the new key").await;
    assert!(!done && said.contains("another server"), "{said}");
    server.stop().await;
    let (done, said) = rekey(&server, "a wrong key", "the new key").await;
    assert!(!done && said.contains("neither with the old key"), "{said}");
    let (done, said) = rekey(&server, "the old key", "the new key").await;
    assert!(done && said.starts_with("sealed anew: 1;"), "{said}");
    server.restart(&[("VM_SECRET_KEY", Some("the new key"))]).await;
    let api = server.api();
    assert_eq!(api.sh(&vm, "echo $TOKEN").await, "hunter2", "the VM has run all the time");
    api.poke(&format!("/v1/vms/{vm}/stop")).await.status(204);
    api.poke(&format!("/v1/vms/{vm}/start")).await.status(204);
    assert_eq!(api.sh(&vm, "echo $TOKEN").await, "hunter2");
    server.stop().await;
    server.restart(&[("VM_SECRET_KEY", Some("the old key"))]).await;
    let api = server.api();
    api.poke(&format!("/v1/vms/{vm}/stop")).await.status(204);
    api.poke(&format!("/v1/vms/{vm}/start")).await.status(500);
    api.delete(&format!("/v1/vms/{vm}")).await.status(204);
    server.assert_no_trace().await;
}
