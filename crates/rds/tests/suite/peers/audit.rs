//! The audit log of real calls: what is in it, and that one changed byte is found.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};
use tokio::process::Command;

use super::sdk::{export, javascript};
use super::stage::{consumer, invoke, link, token};
use crate::harness::{API_KEY, TestServer, World, cases};

cases![every_call_is_recorded_and_one_changed_byte_is_found];

async fn rds(server: &TestServer, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rds"));
    command.args(args).env("RDS_URL", server.url()).env("RDS_API_KEY", API_KEY);
    command.output().await.expect("rds runs")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

async fn every_call_is_recorded_and_one_changed_byte_is_found(world: &World) {
    let mut server = world.own_server(&[]).await;
    let api = server.api();
    let code = "export const echo = (value) => value;
        export const fail = () => { throw new Error('no'); };
        export const sleep = () => new Promise(() => {});";
    let exports = [
        export("echo", &[("value", json!({}))], json!({})),
        export("fail", &[], json!({})),
        export("sleep", &[], json!({})),
    ];
    let provider = javascript(code, &exports).provide(&api, json!({"secretEnv": ["KEY=k"]})).await;
    let vm = consumer(&api, &[link("log", &provider)]).await;
    let (anonymous, token) = (server.anonymous(), token(&api, &vm).await);
    let call = async |alias: &str, name: &str, args: Value| {
        let body = json!({"alias": alias, "modulePath": "/workspace/sdk/small.mjs", "exportName": name, "args": args, "timeoutMs": 1500});
        invoke(&anonymous, &token, &body).await.status
    };
    assert_eq!(call("log", "echo", json!(["the-argument"])).await, 200);
    assert_eq!(call("log", "fail", json!([])).await, 502);
    assert_eq!(call("log", "sleep", json!([])).await, 504);
    assert_eq!(call("log", "echo", json!([])).await, 200, "anything is a value, none too");
    assert_eq!(call("log", "echo", json!([1, 2])).await, 400);
    assert_eq!(call("log", "other", json!([])).await, 403);
    assert_eq!(call("other", "echo", json!([])).await, 403);

    let page = api.get("/v1/audit").await.ok().json();
    let entries = page["entries"].as_array().expect("a list");
    let outcomes: Vec<&Value> = entries.iter().rev().map(|entry| &entry["outcome"]).collect();
    assert_eq!(outcomes, ["returned", "threw", "timed_out", "returned", "refused", "refused", "refused"], "{page}");
    let first = entries.last().expect("an entry");
    assert_eq!((&first["consumer"], &first["provider"]), (&json!(vm), &json!(provider)));
    assert_eq!(
        (&first["alias"], &first["module"], &first["export"]),
        (&json!("log"), &json!("sdk/small.mjs"), &json!("echo"))
    );
    assert_eq!(
        (&first["argsBytes"], &first["resultBytes"], &first["secretVersion"]),
        (&json!(16), &json!(14), &json!(1))
    );
    assert!(first["durationUs"].as_u64() > Some(0), "{first}");
    assert!(!page.to_string().contains("the-argument"), "values are in it");
    let slow = api.get("/v1/audit?outcome=timed_out").await.ok().json();
    assert!(slow["entries"][0]["durationUs"].as_u64() >= Some(1_500_000), "{slow}");

    // By the command line, and across a restart.
    let listed = text(&rds(&server, &["audit", "ls", "--consumer", &vm, "--outcome", "refused"]).await);
    assert_eq!(listed.lines().count(), 4, "{listed}");
    let exported = rds(&server, &["audit", "export"]).await;
    let verified = rds(&server, &["--json", "audit", "verify"]).await;
    let head: Value = serde_json::from_slice(&verified.stdout).expect("JSON");
    assert_eq!(head["records"], 7, "{head}");
    server.stop().await;
    server.restart(&[]).await;
    assert_eq!(server.api().get("/v1/audit/head").await.ok().json(), head);
    let hash = head["hash"].as_str().expect("a hash").to_owned();
    let file = server.root().join("calls.jsonl");
    fs::write(&file, &exported.stdout).expect("a file");
    let file = file.display().to_string();
    assert!(rds(&server, &["audit", "verify", &file, "--expect", &hash]).await.status.success());
    let other = rds(&server, &["audit", "verify", &file, "--expect", &"0".repeat(64)]).await;
    assert_eq!(other.status.code(), Some(1), "{}", text(&other));

    // One byte, in the database's file.
    server.stop().await;
    let database = server.root().join("manager.db");
    let mut bytes = fs::read(&database).expect("the database");
    let needle = b"\"outcome\":\"threw\"";
    let places: Vec<usize> = (0..bytes.len() - needle.len()).filter(|at| bytes[*at..].starts_with(needle)).collect();
    assert!(!places.is_empty(), "the record is in the file");
    for at in places {
        bytes[at + needle.len() - 2] = b'v';
    }
    fs::write(&database, bytes).expect("the database");
    server.restart(&[]).await;
    let broken = rds(&server, &["audit", "verify"]).await;
    assert_eq!(broken.status.code(), Some(1));
    assert!(text(&broken).contains("broken at record 1:"), "{}", text(&broken));
    for vm in [vm, provider] {
        server.api().delete(&format!("/v1/vms/{vm}")).await.status(204);
    }
}
