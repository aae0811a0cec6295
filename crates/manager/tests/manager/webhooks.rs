//! Webhooks: what a receiver gets, and what cannot be done with one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{AppendHeaders, IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rds_manager::secrets::{Rekeyed, rekey};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use crate::test_app::{TestApp, answer, config};

const HOOKS: &str = "/v1/admin/webhooks";
const LOCAL: [&str; 2] = ["--webhook-allow-networks", "127.0.0.1"];
const PATIENCE: Duration = Duration::from_secs(20);

/// What a receiver was sent.
#[derive(Debug)]
struct Got {
    path: String,
    headers: HeaderMap,
    body: String,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

#[derive(Clone)]
struct Desk {
    got: UnboundedSender<Got>,
    gone: UnboundedSender<()>,
    answers: Arc<Mutex<VecDeque<u16>>>,
}

/// A receiver that answers as it was told to, and then with 204. With 0 it says nothing.
struct Receiver {
    url: String,
    got: UnboundedReceiver<Got>,
    gone: UnboundedReceiver<()>,
}

impl Receiver {
    async fn start(answers: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?token=t", listener.local_addr().unwrap());
        let ((sent, got), (left, gone)) = (unbounded_channel(), unbounded_channel());
        let desk = Desk { got: sent, gone: left, answers: Arc::new(Mutex::new(answers.iter().copied().collect())) };
        let router = Router::new().fallback(receive).with_state(desk);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, got, gone }
    }

    async fn next(&mut self) -> Got {
        timeout(PATIENCE, self.got.recv()).await.expect("something comes").unwrap()
    }
}

async fn receive(State(desk): State<Desk>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let body = String::from_utf8(body.to_vec()).unwrap();
    desk.got.send(Got { path: uri.to_string(), headers, body }).unwrap();
    let answer = desk.answers.lock().unwrap().pop_front().unwrap_or(204);
    if answer == 0 {
        let _leaves = Leaves(desk.gone);
        return std::future::pending().await;
    }
    let busy = [("retry-after", "3600")].into_iter().filter(|_| answer == 429);
    let headers = AppendHeaders([("location", "/elsewhere")].into_iter().chain(busy));
    (StatusCode::from_u16(answer).unwrap(), headers).into_response()
}

/// Tells when the other side hung up.
struct Leaves(UnboundedSender<()>);

impl Drop for Leaves {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// Somebody who signed in.
struct Admin<'a> {
    test: &'a TestApp,
    cookie: String,
}

impl<'a> Admin<'a> {
    async fn of(test: &'a TestApp) -> Self {
        Self { test, cookie: test.cookie().await }
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let mut request = self.test.anonymous(method, path).header("cookie", &self.cookie);
        if !body.is_null() {
            request = request.json(&body);
        }
        let (status, body) = answer(request).await;
        (status.as_u16(), body)
    }

    async fn hook(&self, url: &str, kinds: Value) -> Value {
        let body = json!({ "name": "n", "url": url, "eventTypes": kinds });
        let (status, made) = self.call(Method::POST, HOOKS, body).await;
        assert_eq!(status, 201, "{made}");
        made
    }

    async fn image(&self, name: &str) {
        assert_eq!(self.call(Method::POST, "/v1/images", json!({ "name": name })).await.0, 201);
    }

    async fn log(&self, hook: &Value) -> Value {
        let path = format!("{HOOKS}/{}/deliveries?limit=10", hook["id"].as_str().unwrap());
        let (status, log) = self.call(Method::GET, &path, Value::Null).await;
        assert_eq!(status, 200, "{log}");
        log
    }

    /// The log of a webhook as soon as its newest delivery is so.
    async fn log_when(&self, hook: &Value, so: impl Fn(&Value) -> bool) -> Value {
        let look = async {
            loop {
                let log = self.log(hook).await;
                if so(&log[0]) {
                    return log;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, look).await.expect("the log says so in the end")
    }
}

fn at(hook: &Value) -> String {
    format!("{HOOKS}/{}", hook["id"].as_str().unwrap())
}

/// HMAC-SHA256 by RFC 2104, with nothing of the server's.
fn hmac(key: &[u8], message: &[u8]) -> String {
    assert!(key.len() <= 64);
    let padded = |pad: u8| -> Vec<u8> { (0..64).map(|n| key.get(n).copied().unwrap_or(0) ^ pad).collect() };
    let inner = Sha256::digest([&padded(0x36), message].concat());
    STANDARD.encode(Sha256::digest([padded(0x5c), inner.to_vec()].concat()))
}

/// Looks at the signature as a receiver does that was told this webhook's secret.
fn assert_signed(got: &Got, hook: &Value) {
    let key = STANDARD.decode(hook["secret"].as_str().unwrap().strip_prefix("whsec_").unwrap()).unwrap();
    let signed = format!("{}.{}.{}", got.header("webhook-id"), got.header("webhook-timestamp"), got.body);
    assert_eq!(got.header("webhook-signature"), format!("v1,{}", hmac(&key, signed.as_bytes())));
}

#[tokio::test]
async fn an_event_is_sent_signed() {
    let test = TestApp::with(&[LOCAL[0], LOCAL[1], "--vm-secret-key", "words"]).await;
    let (admin, mut receiver) = (Admin::of(&test).await, Receiver::start(&[]).await);
    let made = admin.hook(&receiver.url, json!(["image.*"])).await;
    admin.image("one").await;

    let got = receiver.next().await;
    let (id, timestamp) = (got.header("webhook-id"), got.header("webhook-timestamp"));
    assert_signed(&got, &made);
    assert_eq!((got.path.as_str(), got.header("content-type")), ("/hook?token=t", "application/json"));
    let age = Timestamp::now().as_second() - timestamp.parse::<i64>().unwrap();
    assert!((0..60).contains(&age), "{age}");

    let event = &test.get("/v1/admin/activity?limit=1").await.1[0];
    let body = got.json();
    assert_eq!((&body["id"], &body["event"], &body["data"]), (&json!(id), &json!("image.created"), event));
    assert_eq!(body["createdAt"], event["createdAt"]);

    let log = admin.log_when(&made, |newest| newest["state"] == "delivered").await;
    assert_eq!((&log[0]["id"], &log[0]["attempts"], &log[0]["status"]), (&json!(id), &json!(1), &json!(204)));
    assert_eq!(log.as_array().unwrap().len(), 1, "webhook.created is not of an image");

    // The secret is nowhere but in that one answer.
    let list = admin.call(Method::GET, HOOKS, Value::Null).await.1;
    let fields: Vec<_> = list[0].as_object().unwrap().keys().cloned().collect();
    assert_eq!(fields, ["createdAt", "enabled", "eventTypes", "id", "name", "url"]);
    let (_, events) = test.get("/v1/admin/activity").await;
    assert!(!events.to_string().contains("whsec_") && !events.to_string().contains("token"), "{events}");
    let dir = test.stop().await;
    for file in ["manager.db", "manager.db-wal"] {
        let bytes = std::fs::read(dir.path().join(file)).unwrap_or_default();
        assert!(!bytes.windows(6).any(|window| window == b"whsec_"), "{file}");
    }
}

#[tokio::test]
async fn what_failed_is_tried_again_by_the_next_server_too() {
    let test = TestApp::with(&LOCAL).await;
    let mut receiver = Receiver::start(&[500, 503]).await;
    let (first, hook) = {
        let admin = Admin::of(&test).await;
        let hook = admin.hook(&receiver.url, json!(["image.created"])).await;
        admin.image("one").await;
        let first = receiver.next().await;
        let log = admin.log_when(&hook, |newest| newest["attempts"] == 1).await;
        assert_eq!((&log[0]["state"], &log[0]["status"]), (&json!("waiting"), &json!(500)));
        assert!(log[0]["error"].is_string() && log[0]["nextAttemptAt"].is_string(), "{log}");
        (first, hook)
    };
    let test = test.restart_with(&LOCAL).await;
    let admin = Admin::of(&test).await;
    for _ in 0..2 {
        let again = receiver.next().await;
        assert_eq!((again.header("webhook-id"), &again.body), (first.header("webhook-id"), &first.body));
    }
    let log = admin.log_when(&hook, |newest| newest["state"] == "delivered").await;
    assert_eq!((&log[0]["attempts"], &log[0]["error"]), (&json!(3), &Value::Null));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let test = TestApp::with(&LOCAL).await;
    let (admin, mut receiver) = (Admin::of(&test).await, Receiver::start(&[307]).await);
    let hook = admin.hook(&receiver.url, json!(["image.created"])).await;
    admin.image("one").await;
    for _ in 0..2 {
        assert_eq!(receiver.next().await.path, "/hook?token=t");
    }
    admin.log_when(&hook, |newest| newest["state"] == "delivered" && newest["attempts"] == 2).await;
}

#[tokio::test]
async fn a_busy_receiver_says_when_it_may_be_asked_again() {
    let test = TestApp::with(&LOCAL).await;
    let (admin, mut receiver) = (Admin::of(&test).await, Receiver::start(&[429]).await);
    let hook = admin.hook(&receiver.url, json!(["image.created"])).await;
    admin.image("one").await;
    receiver.next().await;
    let log = admin.log_when(&hook, |newest| newest["attempts"] == 1).await;
    let time = |name: &str| log[0][name].as_str().unwrap().parse::<Timestamp>().unwrap();
    let pause = time("nextAttemptAt").duration_since(time("lastAttemptAt")).as_secs();
    assert!((3600..3620).contains(&pause), "{log}");
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_left_alone_until_its_webhook_is_enabled_again() {
    let test = TestApp::with(&LOCAL).await;
    let (admin, mut receiver) = (Admin::of(&test).await, Receiver::start(&[410]).await);
    let hook = admin.hook(&receiver.url, json!(["image.created"])).await;
    admin.image("one").await;
    receiver.next().await;
    let log = admin.log_when(&hook, |newest| newest["state"] == "failed").await;
    assert_eq!((&log[0]["attempts"], &log[0]["status"]), (&json!(1), &json!(410)));
    let disabled = async {
        while admin.call(Method::GET, HOOKS, Value::Null).await.1[0]["enabled"] != false {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, disabled).await.expect("it is disabled");
    admin.image("two").await;
    assert_eq!(admin.call(Method::PATCH, &at(&hook), json!({ "enabled": true })).await.0, 200);
    admin.image("three").await;
    assert_eq!(receiver.next().await.json()["data"]["message"], "Image three made");
}

#[tokio::test]
async fn where_a_webhook_may_not_lead_nothing_is_sent() {
    let test = TestApp::with(&LOCAL).await;
    let mut receiver = Receiver::start(&[]).await;
    let by_name = receiver.url.replace("127.0.0.1", "localhost");
    let hooks = {
        let admin = Admin::of(&test).await;
        [admin.hook(&receiver.url, json!(["*"])).await, admin.hook(&by_name, json!(["image.*"])).await]
    };
    // The first is told of both.
    receiver.next().await;
    receiver.next().await;
    // From now on the operator allows it no more.
    let test = test.restart().await;
    let admin = Admin::of(&test).await;
    admin.image("one").await;
    for hook in &hooks {
        let log = admin.log_when(hook, |newest| newest["attempts"].as_i64() >= Some(1)).await;
        assert!(log[0]["error"].as_str().unwrap().contains("no part of the Internet"), "{log}");
    }
    assert!(receiver.got.try_recv().is_err());
    for bad in [
        "http://127.0.0.1:1/",
        "http://[::ffff:169.254.169.254]/",
        "http://0x7f000001/",
        "http://localhost/",
        "http://10.0.0.1",
        "https://a:b@example.com/",
        "ftp://example.com/",
        "example.com",
        "",
    ] {
        let body = json!({ "name": "n", "url": bad, "eventTypes": ["*"] });
        assert_eq!(admin.call(Method::POST, HOOKS, body).await.0, 400, "{bad}");
        assert_eq!(admin.call(Method::PATCH, &at(&hooks[0]), json!({ "url": bad })).await.0, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_receiver_that_hangs_delays_nobody_and_is_left_when_its_webhook_goes() {
    let test = TestApp::with(&LOCAL).await;
    let admin = Admin::of(&test).await;
    let (mut hangs, mut other) = (Receiver::start(&[0, 0]).await, Receiver::start(&[]).await);
    let stuck = admin.hook(&hangs.url, json!(["image.created"])).await;
    admin.hook(&other.url, json!(["image.created"])).await;
    for name in ["one", "two", "three"] {
        admin.image(name).await;
        assert_eq!(other.next().await.json()["data"]["message"], format!("Image {name} made"));
    }
    hangs.next().await;
    assert!(hangs.gone.try_recv().is_err(), "it still has its time");
    let log = admin.log(&stuck).await;
    assert!(log.as_array().unwrap().iter().all(|delivery| delivery["state"] == "waiting"), "{log}");

    assert_eq!(admin.call(Method::DELETE, &at(&stuck), Value::Null).await.0, 204);
    timeout(Duration::from_secs(5), hangs.gone.recv()).await.expect("the attempt under way ends");
    admin.image("four").await;
    other.next().await;
    assert!(hangs.got.try_recv().is_err(), "nothing that waited is sent");
    for (method, path) in [
        (Method::DELETE, at(&stuck)),
        (Method::PATCH, at(&stuck)),
        (Method::GET, format!("{}/deliveries", at(&stuck))),
        (Method::POST, format!("{}/test", at(&stuck))),
    ] {
        let body = if method == Method::PATCH { json!({ "enabled": true }) } else { Value::Null };
        assert_eq!(admin.call(method, &path, body).await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn a_disabled_webhook_gets_nothing() {
    let test = TestApp::with(&LOCAL).await;
    let (admin, mut receiver) = (Admin::of(&test).await, Receiver::start(&[]).await);
    let hook = admin.hook(&receiver.url, json!(["image.created"])).await;
    let ping = format!("{}/test", at(&hook));
    let set = async |change: Value| {
        let (status, shown) = admin.call(Method::PATCH, &at(&hook), change).await;
        assert_eq!(status, 200, "{shown}");
        shown
    };
    assert_eq!(set(json!({ "enabled": false })).await["enabled"], false);
    assert_eq!(admin.call(Method::POST, &ping, Value::Null).await.0, 409);
    admin.image("one").await;
    assert_eq!(set(json!({ "enabled": true })).await["secret"], Value::Null);
    admin.image("two").await;
    assert_eq!(receiver.next().await.json()["data"]["message"], "Image two made");

    let (status, queued) = admin.call(Method::POST, &ping, Value::Null).await;
    let got = receiver.next().await;
    assert_eq!((status, got.header("webhook-id")), (202, queued["id"].as_str().unwrap()));
    assert_eq!(got.json()["event"], "webhook.test");
    let rotated = set(json!({ "rotateSecret": true, "name": "m" })).await;
    assert!(rotated["name"] == "m" && rotated["secret"] != hook["secret"], "{rotated}");
    admin.call(Method::POST, &ping, Value::Null).await;
    assert_signed(&receiver.next().await, &rotated);
}

#[tokio::test]
async fn webhooks_are_for_whoever_signed_in_and_bounded() {
    let test = TestApp::with(&LOCAL).await;
    let admin = Admin::of(&test).await;
    let hook = admin.hook("https://example.com/hook", json!(["vm.created"])).await;
    let listed = admin.call(Method::GET, HOOKS, Value::Null).await.1;
    let mut shown = hook.clone();
    shown.as_object_mut().unwrap().remove("secret");
    assert_eq!(listed, json!([shown]));
    for (method, path) in [
        (Method::GET, HOOKS.to_owned()),
        (Method::POST, HOOKS.to_owned()),
        (Method::PATCH, at(&hook)),
        (Method::DELETE, at(&hook)),
        (Method::GET, format!("{}/deliveries", at(&hook))),
        (Method::POST, format!("{}/test", at(&hook))),
    ] {
        assert_eq!(answer(test.request(method, &path)).await.0, 401, "a key is not enough for {path}");
    }
    let url = "https://example.com/";
    for bad in [
        json!({ "name": "n", "url": url }),
        json!({ "name": "n", "url": url, "eventTypes": [] }),
        json!({ "name": "n", "url": url, "eventTypes": ["everything"] }),
        json!({ "name": "n", "url": url, "eventTypes": "vm.created" }),
        json!({ "name": "", "url": url, "eventTypes": ["*"] }),
        json!({ "name": "n", "eventTypes": ["*"] }),
        json!({ "name": "n", "url": url, "eventTypes": ["*"], "secret": "hunter2" }),
    ] {
        let (status, body) = admin.call(Method::POST, HOOKS, bad.clone()).await;
        assert!(status == 400 && !body.to_string().contains("hunter2"), "{bad}: {status} {body}");
    }
    let long = json!({ "name": "n".repeat(65 * 1024), "url": url, "eventTypes": ["*"] });
    assert_eq!(admin.call(Method::POST, HOOKS, long).await.0, 413);
    for bad in ["0", "201", "x"] {
        let path = format!("{}/deliveries?limit={bad}", at(&hook));
        assert_eq!(admin.call(Method::GET, &path, Value::Null).await.0, 400, "{bad}");
    }
    for n in 1..=50 {
        let body = json!({ "url": url, "eventTypes": ["vm.*"], "enabled": false });
        let (status, made) = admin.call(Method::POST, HOOKS, body).await;
        assert_eq!(status, if n < 50 { 201 } else { 429 }, "{made}");
    }
}

#[tokio::test]
async fn a_secret_is_sealed_as_soon_as_there_is_a_key_and_needs_it_then() {
    let test = TestApp::with(&LOCAL).await;
    let mut receiver = Receiver::start(&[]).await;
    let hook = Admin::of(&test).await.hook(&receiver.url, json!(["image.created"])).await;
    let kept = async |test: &TestApp| test.app.store.webhook(hook["id"].as_str().unwrap()).await.unwrap().unwrap();
    assert_eq!(kept(&test).await.secret, hook["secret"].as_str().unwrap());
    let test = test.restart_with(&[LOCAL[0], LOCAL[1], "--vm-secret-key", "words"]).await;
    let row = kept(&test).await;
    assert!(row.sealed == 1 && !row.secret.contains("whsec_"));
    Admin::of(&test).await.image("one").await;
    assert_signed(&receiver.next().await, &hook);

    // Another key.
    let dir = test.stop().await;
    let other = [LOCAL[0], LOCAL[1], "--vm-secret-key", "other words"];
    let done = rekey(&config(&dir, &other), &"words".into()).await.unwrap();
    assert_eq!(done, Rekeyed { changed: 1, already: 0 });
    let test = TestApp::on(dir, &other).await;
    Admin::of(&test).await.image("two").await;
    assert_signed(&receiver.next().await, &hook);

    let test = test.restart_with(&LOCAL).await;
    let admin = Admin::of(&test).await;
    admin.image("three").await;
    let log = admin.log_when(&hook, |newest| newest["attempts"].as_i64() >= Some(1)).await;
    assert!(log[0]["error"].as_str().unwrap().contains("VM_SECRET_KEY is not set"), "{log}");
}
