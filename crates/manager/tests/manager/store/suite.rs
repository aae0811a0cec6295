//! What every database must do.

use rds_manager::Error;
use rds_manager::store::Store;
use rds_manager::store::activity::{self, ActivityRow};
use rds_manager::store::api_keys::ApiKeyRow;
use rds_manager::store::audit::{AuditFilter, AuditRange, AuditRow, StoredRecord};
use rds_manager::store::exec_logs::{self, ExecLogRow};
use rds_manager::store::idempotency::{Claim, IdempotencyKey, KEPT_MS};
use rds_manager::store::images::{ImageFileRow, ImageRow};
use rds_manager::store::snapshots::SnapshotRow;
use rds_manager::store::vms::VmRow;
use rds_manager::store::webhooks::{Attempt, KEPT_PER_WEBHOOK, MAX_WAITING, NewDelivery, WebhookChange, WebhookRow};
use tokio::task::JoinSet;

pub(super) async fn run(store: &Store) {
    store.ping().await.unwrap();
    images(store).await;
    vms(store).await;
    exec_log(store).await;
    api_keys(store).await;
    sessions(store).await;
    activity(store).await;
    webhooks(store).await;
    writers_at_once(store).await;
    audit(store).await;
    idempotency(store).await;
}

/// After closing and opening again.
pub(super) async fn has_kept(store: &Store) {
    assert_eq!(store.default_image().await.unwrap().unwrap().id, "img-b");
}

fn image(id: &str, created_at: i64) -> ImageRow {
    ImageRow { id: id.into(), name: "näme 'q'".into(), description: String::new(), created_at, is_default: 0 }
}

fn file(image_id: &str, kind: &str, bytes: i64) -> ImageFileRow {
    let (image_id, kind) = (image_id.to_owned(), kind.to_owned());
    ImageFileRow { image_id, path: kind.clone(), kind, in_place: 0, bytes, sha256: None, uploaded_at: 7 }
}

async fn images(store: &Store) {
    store.put_image(&image("img-b", 2)).await.unwrap();
    store.put_image(&image("img-a", 1)).await.unwrap();
    let ids: Vec<_> = store.images().await.unwrap().into_iter().map(|image| image.id).collect();
    assert_eq!(ids, ["img-a", "img-b"], "oldest first");
    assert!(store.default_image().await.unwrap().is_none());
    assert!(store.set_default_image("img-a").await.unwrap());
    assert!(store.set_default_image("img-b").await.unwrap());
    assert!(!store.set_default_image("img-c").await.unwrap());
    assert_eq!(store.default_image().await.unwrap().unwrap().id, "img-b", "a failed change changes nothing");

    let big = 3 * 1024 * 1024 * 1024;
    store.put_image_files(&[file("img-a", "kernel", 1), file("img-a", "rootfs", big)]).await.unwrap();
    store.put_image_files(&[file("img-a", "kernel", 5)]).await.unwrap();
    let files = store.image_files(Some("img-a")).await.unwrap();
    assert_eq!(files.iter().map(|file| file.bytes).collect::<Vec<_>>(), [5, big]);
    assert_eq!(store.complete_images().await.unwrap(), 1);
    let unknown = store.put_image_files(&[file("img-b", "kernel", 1), file("img-x", "kernel", 1)]).await;
    assert!(matches!(unknown, Err(Error::Conflict(_))), "{unknown:?}");
    assert!(store.image_files(Some("img-b")).await.unwrap().is_empty(), "all or none");

    assert!(store.delete_image("img-a").await.unwrap());
    assert!(!store.delete_image("img-a").await.unwrap());
    assert!(store.image_files(None).await.unwrap().is_empty(), "files go with their image");
}

pub(crate) fn vm(id: &str, host_index: i64) -> VmRow {
    VmRow {
        id: id.into(),
        state: "CREATED".into(),
        cpu: 1,
        mem_mb: 256,
        disk_bytes: 1 << 40,
        image_id: "img-b".into(),
        host_index,
        guest_ip: "172.16.0.2".into(),
        outbound_internet: 0,
        allow_ips: "[]".into(),
        allow_domains: "[]".into(),
        name: None,
        labels: "{\"a\":\"b\"}".into(),
        ttl_seconds: None,
        idle_timeout_seconds: Some(60),
        idle_action: "delete".into(),
        provision_mode: "boot".into(),
        started_from: None,
        timings: "{}".into(),
        secrets: Some("c2VhbGVk".into()),
        secrets_version: 1,
        fits: None,
        secrets_due: 0,
        secrets_held: 1,
        peer_links: "[]".into(),
        bridge_hash: None,
        error: None,
        created_at: 1_700_000_000_000,
        limits: "{\"diskOpsPerSecond\":100}".into(),
    }
}

async fn vms(store: &Store) {
    store.insert_vm(&vm("a", 0), None).await.unwrap();
    store.insert_vm(&vm("b", 1), None).await.unwrap();
    for taken in [vm("a", 2), vm("c", 1)] {
        assert!(matches!(store.insert_vm(&taken, None).await, Err(Error::Conflict(_))));
    }
    assert_eq!(store.vm("a").await.unwrap().unwrap(), vm("a", 0));
    let ids = |ids: [&str; 2]| ids.map(str::to_owned);
    store.turn_vms(&ids(["a", "b"]), "CREATED", "RUNNING").await.unwrap();
    assert_eq!(store.vms_in_state("RUNNING").await.unwrap(), 2);
    let gone = store.turn_vms(&ids(["a", "z"]), "RUNNING", "PAUSED").await;
    assert!(matches!(gone, Err(Error::Conflict(_))), "{gone:?}");
    assert_eq!(store.vms_in_state("RUNNING").await.unwrap(), 2, "all or none");
    let read = async || store.vm("a").await.unwrap().unwrap();
    store.set_vm_state("a", "RUNNING", None).await.unwrap();
    store.set_vm_state("b", "ERROR", Some("why")).await.unwrap();
    assert_eq!((read().await.state.as_str(), read().await.error), ("RUNNING", None));
    store.set_vm_started("a", "boot", "{\"boot\":1}", Some("f"), Some("0f")).await.unwrap();
    assert_eq!((read().await.timings.as_str(), read().await.bridge_hash.as_deref()), ("{\"boot\":1}", Some("0f")));
    store.set_vm_links("a", "[1]", None).await.unwrap();
    store.set_vm_network("a", true, "[2]", "[3]").await.unwrap();
    let VmRow { outbound_internet, allow_ips, allow_domains, .. } = read().await;
    assert_eq!((outbound_internet, allow_ips.as_str(), allow_domains.as_str()), (1, "[2]", "[3]"));
    store.set_vm_secrets("a", None, 2, true, true).await.unwrap();
    let changed = read().await;
    assert_eq!((changed.peer_links.as_str(), changed.bridge_hash, changed.secrets_version), ("[1]", None, 2));
    assert_eq!(changed.secrets_due, 1);
    store.confirm_vm_secrets("a").await.unwrap();
    assert_eq!(read().await.secrets_due, 0);
    store.set_vm_secrets("a", None, 3, true, true).await.unwrap();
    store.set_vm_started("a", "boot", "{}", None, None).await.unwrap();
    assert_eq!(read().await.secrets_due, 0, "a start hands out the newest");
    assert_eq!(read().await.secrets_held, 0, "a machine that was given none has had none");
    store.set_vm_started("b", "boot", "{}", None, None).await.unwrap();
    assert_eq!(store.vm("b").await.unwrap().unwrap().secrets_held, 1);
    let all = store.vms().await.unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!((all[1].state.as_str(), all[1].error.as_deref()), ("ERROR", Some("why")));
    assert_eq!(all[0].started_from.as_deref(), Some("boot"));
    assert_eq!(store.vms_of_image("img-b").await.unwrap(), 2);
    assert_eq!(store.vms_in_state("RUNNING").await.unwrap(), 1);
    assert!(store.delete_vm("a").await.unwrap());
    assert!(!store.delete_vm("a").await.unwrap());
    store.insert_vm(&vm("c", 0), None).await.expect("the index is free again");
}

async fn exec_log(store: &Store) {
    let entry = |n: i64, kind: &str| ExecLogRow {
        id: format!("{n:05}"),
        vm_id: "b".into(),
        timestamp: n,
        kind: kind.into(),
        input: "{}".into(),
        result: "{}".into(),
        duration_ms: 3,
    };
    for n in 0..exec_logs::KEPT_PER_VM + 5 {
        store.add_exec_log(&entry(n, if n % 2 == 0 { "exec" } else { "run-ts" })).await.unwrap();
    }
    let newest = store.exec_logs("b", None, 2).await.unwrap();
    assert_eq!(newest[0].timestamp, exec_logs::KEPT_PER_VM + 4);
    assert_eq!(store.exec_logs("b", None, 10_000).await.unwrap().len() as i64, exec_logs::KEPT_PER_VM);
    assert!(store.exec_logs("b", Some("run-ts"), 3).await.unwrap().iter().all(|entry| entry.kind == "run-ts"));
    // The clock was set back.
    store.add_exec_log(&entry(-5, "exec")).await.unwrap();
    let newest = store.exec_logs("b", None, 10_000).await.unwrap();
    assert_eq!((newest[0].timestamp, newest[1].timestamp), (-5, exec_logs::KEPT_PER_VM + 4));
    assert_eq!(newest.len() as i64, exec_logs::KEPT_PER_VM);
    let half = "x".repeat(exec_logs::KEPT_BYTES_PER_VM as usize / 2);
    for n in 5000..5003 {
        store
            .add_exec_log(&ExecLogRow { result: half.clone(), input: String::new(), ..entry(n, "exec") })
            .await
            .unwrap();
    }
    let kept: Vec<_> = store.exec_logs("b", None, 10).await.unwrap().into_iter().map(|entry| entry.timestamp).collect();
    assert_eq!(kept, [5002, 5001], "a VM's log is bounded by its bytes, too");
    store.delete_vm("b").await.unwrap();
    let late = store.add_exec_log(&entry(5003, "exec")).await;
    assert!(matches!(late, Err(Error::Conflict(_))), "{late:?}");
    assert!(store.exec_logs("b", None, 1).await.unwrap().is_empty(), "a VM's log goes with it");
}

async fn api_keys(store: &Store) {
    let key = |id: &str, prefix: &str| ApiKeyRow {
        id: id.into(),
        name: "n".into(),
        prefix: prefix.into(),
        salt: "s".into(),
        hash: "h".into(),
        created_at: 1,
        expires_at: Some(9),
        revoked_at: None,
        last_used_at: None,
    };
    store.insert_api_key(&key("1", "rds_a")).await.unwrap();
    assert!(matches!(store.insert_api_key(&key("2", "rds_a")).await, Err(Error::Conflict(_))));
    store.touch_api_key("1", 5).await.unwrap();
    assert!(store.revoke_api_key("1", 6).await.unwrap());
    assert!(store.revoke_api_key("1", 7).await.unwrap());
    assert!(!store.revoke_api_key("9", 7).await.unwrap());
    let row = store.api_key_by_prefix("rds_a").await.unwrap().unwrap();
    assert_eq!((row.last_used_at, row.revoked_at, row.expires_at), (Some(5), Some(6), Some(9)));
    assert_eq!(store.api_keys().await.unwrap().len(), 1);
}

async fn sessions(store: &Store) {
    store.insert_session("h1", "a@b", 0, 10).await.unwrap();
    assert_eq!(store.session_email("h1", 9).await.unwrap().as_deref(), Some("a@b"));
    assert_eq!(store.session_email("h1", 10).await.unwrap(), None);
    store.insert_session("h2", "a@b", 20, 30).await.unwrap();
    assert_eq!(store.session_email("h1", 0).await.unwrap(), None, "expired ones are dropped");
    store.delete_session("h2").await.unwrap();
    assert_eq!(store.session_email("h2", 21).await.unwrap(), None);
}

async fn activity(store: &Store) {
    let event = |n: i64| ActivityRow {
        id: n.to_string(),
        created_at: n,
        kind: "vm.created".into(),
        entity_type: None,
        entity_id: Some("e".into()),
        message: "m".into(),
        meta: None,
    };
    for n in 0..20 {
        store.add_activity(&event(n), "{}").await.unwrap();
    }
    assert_eq!(store.activity(5).await.unwrap()[0], event(19));
    store.add_activity(&event(activity::KEPT), "{}").await.unwrap();
    assert_eq!(store.activity(activity::KEPT).await.unwrap().len(), 21);
    // The clock was set back.
    store.add_activity(&event(-5), "{}").await.unwrap();
    let newest: Vec<_> = store.activity(3).await.unwrap().into_iter().map(|event| event.created_at).collect();
    assert_eq!(newest, [-5, activity::KEPT, 19]);
}

fn webhook(id: &str, created_at: i64, kinds: &str) -> WebhookRow {
    WebhookRow {
        id: id.into(),
        name: "n".into(),
        url: "https://example.com/".into(),
        enabled: 1,
        event_types: kinds.into(),
        secret: "s".into(),
        sealed: 0,
        created_at,
    }
}

async fn webhooks(store: &Store) {
    let kinds = ["[\"*\"]", "[\"vm.*\"]", "[\"image.created\"]"];
    for (n, kinds) in (0..).zip(kinds) {
        assert!(store.insert_webhook(&webhook(&format!("hook-{n}"), n, kinds), 3).await.unwrap());
    }
    assert!(!store.insert_webhook(&webhook("hook-3", 3, "[]"), 3).await.unwrap(), "there is no room");
    assert_eq!(store.webhooks().await.unwrap()[2], webhook("hook-0", 0, kinds[0]));

    let happens = async |id: String, kind: &str, at: i64| {
        let event = ActivityRow {
            id,
            created_at: at,
            kind: kind.into(),
            entity_type: None,
            entity_id: None,
            message: "m".into(),
            meta: None,
        };
        store.add_activity(&event, "{\"a\":1}").await.unwrap()
    };
    let waiting = async || {
        let next = store.next_deliveries().await.unwrap().into_iter();
        let mut next: Vec<_> = next.map(|next| (next.webhook_id, next.event)).collect();
        next.sort();
        next
    };
    happens("e-1".into(), "vm.created", 20_001).await;
    let owned = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(hook, event)| ((*hook).to_owned(), (*event).to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(waiting().await, owned(&[("hook-0", "vm.created"), ("hook-1", "vm.created")]));

    // The transaction is one: without the event there is no delivery.
    let again = ActivityRow {
        id: "e-1".into(),
        created_at: 20_002,
        kind: "image.created".into(),
        entity_type: None,
        entity_id: None,
        message: "m".into(),
        meta: None,
    };
    store.add_activity(&again, "{}").await.unwrap_err();
    assert_eq!(store.deliveries("hook-2", 10).await.unwrap(), []);

    let first = store.next_deliveries().await.unwrap().into_iter().find(|next| next.webhook_id == "hook-1").unwrap();
    assert_eq!(
        (first.data.as_str(), first.due_at, first.attempts, first.secret.as_str()),
        ("{\"a\":1}", 20_001, 0, "s")
    );
    let failed = Attempt {
        state: "waiting",
        due_at: 30_000,
        at: 20_005,
        duration_ms: 3,
        status: Some(500),
        error: Some("why".into()),
    };
    store.end_attempt(&first, &failed).await.unwrap();
    let log = store.deliveries("hook-1", 10).await.unwrap();
    assert_eq!(
        (log[0].attempts, log[0].due_at, log[0].status, log[0].error.as_deref()),
        (1, 30_000, Some(500), Some("why"))
    );

    let off = WebhookChange { enabled: Some(0), ..WebhookChange::default() };
    assert!(store.change_webhook("hook-1", &off).await.unwrap());
    assert!(!store.change_webhook("hook-9", &off).await.unwrap());
    happens("e-2".into(), "vm.deleted", 20_006).await;
    assert_eq!(waiting().await, owned(&[("hook-0", "vm.created")]));
    assert_eq!(store.deliveries("hook-1", 10).await.unwrap().len(), 1, "nothing is kept for one that is disabled");
    let on = WebhookChange { enabled: Some(1), secret: Some(("t".into(), 1)), ..WebhookChange::default() };
    assert!(store.change_webhook("hook-1", &on).await.unwrap());
    let changed = store.webhook("hook-1").await.unwrap().unwrap();
    assert_eq!((changed.secret.as_str(), changed.sealed, changed.url.as_str()), ("t", 1, "https://example.com/"));
    let done = Attempt { state: "delivered", status: Some(204), error: None, ..failed };
    store.end_attempt(&first, &done).await.unwrap();
    let log = store.deliveries("hook-1", 10).await.unwrap();
    assert_eq!((log[0].state.as_str(), log[0].attempts, &log[0].error), ("delivered", 2, &None));

    // Both what waits and what has ended are bounded.
    for n in 0..MAX_WAITING + KEPT_PER_WEBHOOK + 5 {
        let id = format!("d-{n:05}");
        let new =
            NewDelivery { id: &id, webhook_id: "hook-2", event: "image.created", created_at: 20_100 + n, data: "{}" };
        store.add_delivery(&new).await.unwrap();
    }
    assert_eq!(happens("e-3".into(), "image.created", 30_000).await, 1, "it is dropped at once");
    let log = store.deliveries("hook-2", 10_000).await.unwrap();
    let dropped = log.iter().filter(|delivery| delivery.state == "dropped").count() as i64;
    assert_eq!((log.len() as i64, dropped), (MAX_WAITING + KEPT_PER_WEBHOOK, KEPT_PER_WEBHOOK));
    assert_eq!(log[0].created_at, 30_000, "the newest are kept");

    for n in 0..3 {
        assert!(store.delete_webhook(&format!("hook-{n}")).await.unwrap());
    }
    assert!(!store.delete_webhook("hook-0").await.unwrap());
    assert!(store.next_deliveries().await.unwrap().is_empty());
    assert!(store.deliveries("hook-2", 10).await.unwrap().is_empty(), "deliveries go with their webhook");
}

/// Each reads before it writes.
async fn writers_at_once(store: &Store) {
    assert!(store.insert_webhook(&webhook("busy", 0, "[]"), 1).await.unwrap());
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let store = store.clone();
        writers.spawn(async move {
            for n in 0..20 {
                let id = format!("{writer}-{n}");
                let new = NewDelivery { id: &id, webhook_id: "busy", event: "a.b", created_at: n, data: "{}" };
                store.add_delivery(&new).await.unwrap();
            }
        });
    }
    writers.join_all().await;
    assert_eq!(store.deliveries("busy", 1000).await.unwrap().len(), 160);
    assert!(store.delete_webhook("busy").await.unwrap());
}

async fn audit(store: &Store) {
    let row = |sequence: i64| AuditRow {
        stored: StoredRecord { sequence, text: format!("{{\"é'\":{sequence}}}"), hash: format!("h{sequence}") },
        time: 1_700_000_000_000 + sequence,
        consumer: "c".into(),
        provider: (sequence % 2 == 0).then(|| "p".into()),
        alias: "a".into(),
        export: "e".into(),
        outcome: "returned".into(),
    };
    assert_eq!(store.last_audit().await.unwrap(), None);
    store.add_audit(&[0, 1, 2, 3].map(row)).await.unwrap();
    assert!(matches!(store.add_audit(&[4, 3].map(row)).await, Err(Error::Conflict(_))));
    assert_eq!(store.last_audit().await.unwrap(), Some(row(3).stored), "all or none");
    let find = async |filter: AuditFilter, range, limit| -> Vec<i64> {
        store.audit(&filter, range, limit).await.unwrap().iter().map(|row| row.stored.sequence).collect()
    };
    let all = AuditFilter::default;
    assert_eq!(find(all(), AuditRange::Before(3), 2).await, [2, 1]);
    assert_eq!(find(all(), AuditRange::From(1), 9).await, [1, 2, 3]);
    let of_provider = AuditFilter { provider: Some("p".into()), outcome: Some("returned"), ..all() };
    assert_eq!(find(of_provider, AuditRange::From(0), 9).await, [0, 2]);
    let (since, until) = (Some(1_700_000_000_001), Some(1_700_000_000_003));
    let in_time = AuditFilter { since, until, consumer: Some("c".into()), ..all() };
    assert_eq!(find(in_time, AuditRange::Before(i64::MAX), 9).await, [2, 1]);
}

fn snapshot(id: &str) -> SnapshotRow {
    SnapshotRow {
        id: id.into(),
        created_at: 1,
        cpu: 1,
        mem_mb: 256,
        image_id: "img-b".into(),
        source_vm_id: "a".into(),
        disk_bytes: 1,
        size_bytes: 1,
        frozen_us: 1,
        kind: "user_overlay".into(),
        fits: None,
        base_seed: Some("seed-a".into()),
    }
}

async fn idempotency(store: &Store) {
    let key = IdempotencyKey { caller: "c".into(), scope: "POST /v1/vms".into(), key: "k".into() };
    let claim = |hash: &'static str, now: i64| store.claim_idempotent(&key, hash, now);
    let ours = async |now: i64| match claim("h", now).await.unwrap() {
        Claim::Ours(work) => work,
        other => panic!("{other:?}"),
    };
    let work = ours(1).await;
    assert!(matches!(claim("h", 2).await.unwrap(), Claim::UnderWay));
    assert!(matches!(claim("other", 2).await.unwrap(), Claim::OtherRequest));
    store.release_idempotent(work).await.unwrap();

    // Whoever is at it dies, or cannot keep the answer.
    let work = ours(3).await;
    assert!(work.made().is_empty());
    store.insert_vm(&vm("first", 10), Some(work.claim())).await.unwrap();
    store.insert_vm(&vm("second", 11), Some(work.claim())).await.unwrap();
    drop(work);
    assert!(matches!(claim("other", 4).await.unwrap(), Claim::OtherRequest));
    let again = ours(4).await;
    store.release_idempotent(again).await.unwrap();
    let again = ours(4).await;
    assert_eq!(again.made(), ["first", "second"], "they would be made twice");
    assert!(matches!(claim("h", 4).await.unwrap(), Claim::UnderWay));
    drop(again);
    for vm in ["first", "second"] {
        store.delete_vm(vm).await.unwrap();
    }
    let work = ours(5).await;
    assert!(work.made().is_empty());
    store.insert_snapshot(&snapshot("snap-1"), Some(work.claim())).await.unwrap();
    drop(work);
    let work = ours(6).await;
    assert_eq!(work.made(), ["snap-1"]);

    store.finish_idempotent(work, 201, "{}").await.unwrap();
    let done = claim("h", 7).await.unwrap();
    assert!(matches!(done, Claim::Done { status: 201, response } if response == "{}"));
    let work = ours(3 + KEPT_MS).await;
    assert!(work.made().is_empty(), "a day later it is another request");
    let many = (0..20).map(|_| {
        let key = IdempotencyKey { key: "many".into(), ..key.clone() };
        async move { store.claim_idempotent(&key, "h", 9 + KEPT_MS).await.unwrap() }
    });
    let claims = futures_util::future::join_all(many).await;
    assert_eq!(claims.iter().filter(|claim| matches!(claim, Claim::Ours(_))).count(), 1);
}
