//! The audit log of peer calls.

use rds_manager::audit::Audit;
use rds_manager::store::Store;
use rds_peers::audit::{Broken, Call, Head, Outcome};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::AnyPool;
use tempfile::TempDir;

use crate::test_app::{TestApp, answer};

fn call(n: u32) -> Call {
    Call {
        time: format!("2026-01-02T03:04:{:02}.000Z", n % 60),
        consumer: format!("consumer-{}", n % 2),
        alias: "mail".into(),
        provider: (!n.is_multiple_of(3)).then(|| "provider".into()),
        module: "sdk/mail.ts".into(),
        export: if n.is_multiple_of(2) { "send" } else { "list" }.into(),
        args_bytes: 12,
        result_bytes: 0,
        duration_us: u64::from(n),
        outcome: if n.is_multiple_of(4) { Outcome::Refused } else { Outcome::Returned },
        rule: n.is_multiple_of(4).then(|| "rate".into()),
        secret_version: None,
        strikes: 0,
    }
}

async fn with_calls(count: u32) -> TestApp {
    let test = TestApp::start().await;
    for n in 0..count {
        test.app.audit.reserve().await.unwrap().fill(call(n));
    }
    test
}

async fn export(test: &TestApp, query: &str) -> String {
    let reply = test.request(Method::GET, &format!("/v1/audit?format=jsonl{query}")).send().await.unwrap();
    assert_eq!(reply.headers()["content-type"], "application/x-ndjson");
    reply.text().await.unwrap()
}

fn verify(export: &str) -> Result<Head, Broken> {
    let mut head = Head::START;
    export.lines().try_for_each(|line| head.follow_line(line))?;
    Ok(head)
}

fn sequences(page: &Value) -> Vec<u64> {
    page["entries"].as_array().unwrap().iter().map(|entry| entry["sequence"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn calls_are_listed_newest_first_and_filtered() {
    let test = with_calls(12).await;
    let (status, page) = test.get("/v1/audit?limit=3").await;
    assert_eq!((status, sequences(&page), &page["hasMore"]), (StatusCode::OK, vec![11, 10, 9], &json!(true)));
    let first = &page["entries"][0];
    assert_eq!(
        (&first["export"], &first["durationUs"], &first["outcome"]),
        (&json!("list"), &json!(11), &json!("returned"))
    );
    let (_, page) = test.get("/v1/audit?before=9&limit=9").await;
    assert_eq!((sequences(&page), &page["hasMore"]), ((0..9).rev().collect(), &json!(false)));
    for (query, expected) in [
        ("consumer=consumer-1&since=2026-01-02T03:04:05Z", vec![11, 9, 7, 5]),
        ("provider=provider&until=2026-01-02T03:04:03Z", vec![2, 1]),
        ("outcome=refused", vec![8, 4, 0]),
        ("export=send&limit=2", vec![10, 8]),
        ("alias=other", vec![]),
        ("alias=mail&export=send&consumer=consumer-0&outcome=refused&before=8", vec![4, 0]),
    ] {
        assert_eq!(sequences(&test.get(&format!("/v1/audit?{query}")).await.1), expected, "{query}");
    }
    for bad in
        ["limit=0", "limit=1001", "since=yesterday", "outcome=odd", "format=xml", "before=x", "format=jsonl&limit=1"]
    {
        assert_eq!(test.get(&format!("/v1/audit?{bad}")).await.0, 400, "{bad}");
    }
    assert_eq!(answer(test.anonymous(Method::GET, "/v1/audit")).await.0, 401);
}

#[tokio::test]
async fn an_export_can_be_verified() {
    let test = with_calls(2500).await;
    let lines = export(&test, "").await;
    let head = verify(&lines).unwrap();
    assert_eq!(head.records, 2500);
    let (_, stored) = test.get("/v1/audit/head").await;
    assert_eq!(stored, json!({ "records": 2500, "hash": head.hash.to_string() }));
    let by_header = test.request(Method::GET, "/v1/audit").header("accept", "application/x-ndjson");
    assert_eq!(by_header.send().await.unwrap().text().await.unwrap(), lines);
    assert_eq!(export(&test, "&outcome=refused").await.lines().count(), 625);
}

#[tokio::test]
async fn an_empty_log_is_whole() {
    let test = TestApp::start().await;
    assert_eq!(test.get("/v1/audit").await.1, json!({ "entries": [], "hasMore": false }));
    assert_eq!(test.get("/v1/audit/head").await.1, json!({ "records": 0, "hash": "0".repeat(64) }));
    assert_eq!(export(&test, "").await, "");
}

#[tokio::test]
async fn what_was_handed_over_is_written_before_the_server_ends_and_goes_on_after() {
    let test = with_calls(700).await;
    let dir = test.stop().await;
    let store = Store::sqlite(&dir.path().join("manager.db")).await.unwrap();
    let audit = Audit::open(store).await.unwrap();
    assert_eq!(audit.head().await.unwrap().records, 700);
    let slot = audit.reserve().await.unwrap();
    drop(audit.reserve().await.unwrap());
    slot.fill(call(700));
    assert_eq!(audit.head().await.unwrap().records, 701);
}

async fn database(dir: &TempDir) -> AnyPool {
    AnyPool::connect(&format!("sqlite://{}", dir.path().join("manager.db").display())).await.unwrap()
}

#[tokio::test]
async fn one_byte_changed_in_the_database_is_found() {
    let test = with_calls(20).await;
    let whole = export(&test, "").await;
    let database = database(&test.dir).await;
    for (change, undo, at) in [
        ("text = replace(text, 'send', 'sexd') WHERE sequence = 8", "text = replace(text, 'sexd', 'send')", 8),
        ("text = replace(text, 'T03', 'T04') WHERE sequence = 19", "text = replace(text, 'T04', 'T03')", 19),
        ("hash = replace(hash, substr(hash, 1, 1), 'a') WHERE sequence = 0 AND hash NOT LIKE 'a%'", "hash = hash", 0),
    ] {
        sqlx::query(sqlx::AssertSqlSafe(format!("UPDATE audit SET {change}"))).execute(&database).await.unwrap();
        let found = verify(&export(&test, "").await);
        assert!(matches!(found, Err(Broken::Record { at: found, .. }) if found == at), "{change}: {found:?}");
        sqlx::query(sqlx::AssertSqlSafe(format!("UPDATE audit SET {undo}"))).execute(&database).await.unwrap();
    }
    assert_ne!(export(&test, "").await, whole, "the hash stays changed");
    sqlx::query("DELETE FROM audit WHERE sequence = 0").execute(&database).await.unwrap();
    assert!(matches!(verify(&export(&test, "").await), Err(Broken::Record { at: 0, .. })));
}

#[tokio::test]
async fn a_record_that_was_hidden_from_searches_is_found() {
    let columns = ["consumer = 'x'", "provider = 'x'", "alias = 'x'", "export = 'x'", "outcome = 'x'", "time = 0"];
    for (at, change) in columns.into_iter().enumerate() {
        let test = with_calls(6).await;
        test.app.audit.flush().await;
        let database = database(&test.dir).await;
        let sql = format!("UPDATE audit SET {change} WHERE sequence = {at}");
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&database).await.unwrap();
        let found = verify(&export(&test, "").await);
        assert!(matches!(found, Err(Broken::Record { at: found, .. }) if found == at as u64), "{change}: {found:?}");
        assert_eq!(test.get("/v1/audit").await.0, 500, "{change}");
    }
}

#[tokio::test]
async fn records_wait_while_the_database_takes_none() {
    let test = with_calls(3).await;
    test.app.audit.flush().await;
    let database = database(&test.dir).await;
    sqlx::query("ALTER TABLE audit RENAME TO gone").execute(&database).await.unwrap();
    for n in 3..10 {
        test.app.audit.reserve().await.unwrap().fill(call(n));
    }
    let flush = tokio::time::timeout(std::time::Duration::from_millis(300), test.app.audit.flush()).await;
    assert!(flush.is_err(), "nothing is written, and nobody is told that it is");
    sqlx::query("ALTER TABLE gone RENAME TO audit").execute(&database).await.unwrap();
    test.app.audit.flush().await;
    assert_eq!(verify(&export(&test, "").await).unwrap().records, 10);
}

#[tokio::test]
async fn a_log_that_takes_no_records_is_read_and_refuses_calls() {
    let test = with_calls(3).await;
    test.app.audit.flush().await;
    let database = database(&test.dir).await;
    let full = "CREATE TRIGGER no_more BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'full'); END";
    sqlx::query(full).execute(&database).await.unwrap();
    test.app.audit.reserve().await.unwrap().fill(call(3));
    let mut slots = Vec::new();
    while let Ok(slot) = tokio::time::timeout(std::time::Duration::from_millis(200), test.app.audit.reserve()).await {
        slots.push(slot.unwrap());
    }
    let (late, (status, page)) = tokio::join!(test.app.audit.reserve(), test.get("/v1/audit"));
    assert!(matches!(late, Err(rds_manager::Error::Unavailable(_))), "{late:?}");
    assert_eq!((status, sequences(&page)), (StatusCode::OK, vec![2, 1, 0]), "what is written is read");
    sqlx::query("DROP TRIGGER no_more").execute(&database).await.unwrap();
    drop(slots);
    test.app.audit.flush().await;
    assert_eq!(verify(&export(&test, "").await).unwrap().records, 4);
}
