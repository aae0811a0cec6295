//! A link's policy: what is refused, by which rule, and that the provider is not entered.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::sdk::{Sdk, export};
use super::stage::{consumer, invoke, link, token};
use crate::harness::{Api, World, cases};

cases![
    exports_are_allowed_and_denied,
    arguments_are_held_to_predicates,
    rates_and_calls_at_once_are_limited,
    sizes_and_time_are_limited,
    a_warning_stops_nothing,
    a_person_approves_or_denies,
    a_policy_can_come_with_the_create,
];

/// A consumer with one link, `p`, whose policy the test changes.
struct Linked {
    api: Api,
    anonymous: Api,
    provider: String,
    consumer: String,
    token: String,
}

fn sdk() -> Sdk {
    let code = "let entered = 0;
        export const getMail = async (query) => { entered++; return query; };
        export const deleteMail = async (query) => { entered++; return query; };
        export const send = async (mail, times) => { entered++; return null; };
        export const sleep = async (ms) => { await new Promise((wake) => setTimeout(wake, ms)); return ms; };
        export const long = async (length) => 'x'.repeat(length);
        export const count = async () => entered;";
    let exports = [
        export("getMail", &[("query", json!({}))], json!({})),
        export("deleteMail", &[("query", json!({}))], json!({})),
        export(
            "send",
            &[("mail", json!({"type": "object"})), ("times", json!({"type": ["integer", "null"]}))],
            json!({}),
        ),
        export("sleep", &[("ms", json!({}))], json!({})),
        export("long", &[("length", json!({}))], json!({})),
        export("count", &[], json!({})),
    ];
    Sdk::new("Policed").module("mail.mjs", code, &exports)
}

impl Linked {
    async fn new(world: &World, link: impl Fn(&str) -> Value) -> Self {
        let api = world.api().await;
        let provider = sdk().provide(&api, json!({})).await;
        let consumer = consumer(&api, &[link(&provider)]).await;
        let token = token(&api, &consumer).await;
        Self { api, anonymous: world.server().await.anonymous(), provider, consumer, token }
    }

    async fn policed(world: &World, policy: Value) -> Self {
        let linked = Self::new(world, |provider| link("p", provider)).await;
        linked.police(policy).await;
        linked
    }

    async fn police(&self, policy: Value) {
        let path = format!("/v1/vms/{}/peers/p", self.consumer);
        let request = self.api.request(Method::PATCH, &path).json(&json!({ "policy": policy }));
        self.api.send(request).await.status(204);
    }

    /// The result, or status and rule of the refusal.
    async fn call(&self, export: &str, args: Value) -> Value {
        let body = json!({"alias": "p", "modulePath": "/workspace/mail.mjs", "exportName": export, "args": args});
        let reply = invoke(&self.anonymous, &self.token, &body).await;
        assert_eq!(reply.headers.contains_key("retry-after"), reply.status == 429, "{reply:?}");
        let body = reply.json();
        if reply.status == 200 { body["result"].clone() } else { json!([reply.status, body["rule"]]) }
    }

    async fn entered(&self) -> u64 {
        self.police(json!({})).await;
        self.call("count", json!([])).await.as_u64().expect("a count")
    }

    /// The rule and outcome of the newest audit record.
    async fn last_record(&self) -> Value {
        let page = self.api.get(&format!("/v1/audit?consumer={}&limit=1", self.consumer)).await.ok().json();
        json!([page["entries"][0]["outcome"], page["entries"][0]["rule"]])
    }

    async fn remove(self) {
        for vm in [&self.consumer, &self.provider] {
            self.api.delete(&format!("/v1/vms/{vm}")).await.status(204);
        }
    }
}

async fn exports_are_allowed_and_denied(world: &World) {
    let linked =
        Linked::policed(world, json!({"allow": ["mail.mjs#get*", "*#delete*"], "deny": ["*#deleteMail"]})).await;
    assert_eq!(linked.call("getMail", json!(["q"])).await, "q");
    assert_eq!(linked.call("deleteMail", json!(["q"])).await, json!([403, "deny"]));
    assert_eq!(linked.last_record().await, json!(["refused", "deny"]));
    assert_eq!(linked.call("send", json!([{}])).await, json!([403, "allow"]));
    assert_eq!(linked.call("nothing", json!([])).await, json!([403, null]), "not declared, whatever the policy");
    assert_eq!(linked.entered().await, 1);
    let shown = linked.api.get(&format!("/v1/vms/{}", linked.consumer)).await.ok().json()["peerLinks"][0].clone();
    assert_eq!((&shown["alias"], &shown["sourceMode"]), (&json!("p"), &json!("hidden")));
    linked.remove().await;
}

async fn arguments_are_held_to_predicates(world: &World) {
    let to = |test: Value| {
        let mut rule = json!({"exports": "*#send", "pointer": "/0/to"});
        rule.as_object_mut().expect("an object").extend(test.as_object().expect("an object").clone());
        json!({ "arguments": [rule] })
    };
    let linked = Linked::policed(world, json!({})).await;
    let refused = json!([403, "arguments/0"]);
    for (policy, good, bad) in [
        (to(json!({"equals": "me"})), json!("me"), json!("you")),
        (to(json!({"in": ["me", 7]})), json!(7), json!("7")),
        (to(json!({"prefix": "team-"})), json!("team-a"), json!("xteam-")),
        (to(json!({"range": {"min": 1, "max": 3}})), json!(3), json!(3.01)),
        (to(json!({"length": {"max": 2}})), json!("éé"), json!([1, 2, 3])),
    ] {
        linked.police(policy.clone()).await;
        assert_eq!(linked.call("send", json!([{ "to": good }])).await, Value::Null, "{policy}");
        assert_eq!(linked.call("send", json!([{ "to": bad }])).await, refused, "{policy}");
        assert_eq!(linked.call("send", json!([{}])).await, refused, "{policy}: nothing is there");
    }
    linked
        .police(json!({"arguments": [{"exports": "*#send", "pointer": "/1", "range": {"max": 2}, "orAbsent": true}]}))
        .await;
    assert_eq!(linked.call("send", json!([{}])).await, Value::Null);
    assert_eq!(linked.call("send", json!([{}, 3])).await, refused);
    assert_eq!(linked.entered().await, 6);
    linked.remove().await;
}

async fn rates_and_calls_at_once_are_limited(world: &World) {
    let linked = Linked::policed(world, json!({"concurrentCalls": 2})).await;
    linked.call("sleep", json!([1])).await;
    let calls = join_all((0..5).map(|_| linked.call("sleep", json!([2000])))).await;
    let refused = calls.iter().filter(|reply| **reply == json!([429, "concurrentCalls"])).count();
    assert_eq!(refused, 3, "{calls:?}");
    assert_eq!(linked.call("sleep", json!([1])).await, 1, "the others are over");
    linked.police(json!({"callsPerMinute": 10})).await;
    let mut refused = 0;
    for _ in 0..10 {
        refused += u32::from(linked.call("sleep", json!([0])).await == json!([429, "callsPerMinute"]));
    }
    assert!((1..10).contains(&refused), "the calls before count too: {refused}");
    assert_eq!(linked.last_record().await, json!(["refused", "callsPerMinute"]));
    linked.remove().await;
}

async fn sizes_and_time_are_limited(world: &World) {
    let linked = Linked::policed(world, json!({"maxBytes": 1000})).await;
    assert_eq!(linked.call("getMail", json!(["x".repeat(990)])).await, "x".repeat(990));
    assert_eq!(linked.call("getMail", json!(["x".repeat(1000)])).await, json!([403, "maxBytes"]));
    assert_eq!(linked.call("long", json!([1001])).await, json!([403, "maxBytes"]), "a result counts, too");
    linked.police(json!({"maxSeconds": 1})).await;
    assert_eq!(linked.call("sleep", json!([10_000])).await, json!([504, null]));
    assert_eq!(linked.call("sleep", json!([1])).await, 1);
    linked.remove().await;
}

async fn a_warning_stops_nothing(world: &World) {
    let policy = json!({"mode": "warn", "deny": ["*#send"], "maxBytes": 2, "callsPerMinute": 0, "require": "approval"});
    let linked = Linked::policed(world, policy).await;
    assert_eq!(linked.call("send", json!([{"to": "me"}])).await, Value::Null);
    let record = linked.last_record().await;
    assert_eq!(record[0], "returned");
    for rule in ["deny", "maxBytes", "callsPerMinute", "require"] {
        assert!(record[1].as_str().is_some_and(|rules| rules.contains(rule)), "{rule}: {record}");
    }
    linked.remove().await;
}

async fn pending(linked: &Linked) -> Value {
    for _ in 0..100 {
        let all = linked.api.get("/v1/peers/approvals").await.ok().json();
        let own = all.as_array().expect("a list").iter().find(|call| call["consumer"] == json!(linked.consumer));
        if let Some(call) = own {
            return call.clone();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no call waits for approval");
}

async fn a_person_approves_or_denies(world: &World) {
    let linked = Linked::policed(world, json!({"require": "approval", "deny": ["*#deleteMail"]})).await;
    assert_eq!(linked.call("deleteMail", json!([1])).await, json!([403, "deny"]), "nobody is asked about that");
    for (answer, outcome) in [("approve", json!("q")), ("deny", json!([403, "approval"]))] {
        let (reply, ()) = tokio::join!(linked.call("getMail", json!(["q"])), async {
            let call = pending(&linked).await;
            assert_eq!(
                (&call["alias"], &call["export"], &call["args"]),
                (&json!("p"), &json!("getMail"), &json!(["q"]))
            );
            let path = format!("/v1/peers/approvals/{}/{answer}", call["id"].as_str().expect("an id"));
            linked.anonymous.poke(&path).await.status(401);
            linked.api.poke(&path).await.status(204);
            linked.api.poke(&path).await.status(404);
        });
        assert_eq!(reply, outcome);
    }
    // What is approved is what was asked for, by a link that is as it was.
    let (reply, ()) = tokio::join!(linked.call("getMail", json!(["q"])), async {
        let call = pending(&linked).await;
        linked.police(json!({"require": "approval", "deny": ["*#getMail"]})).await;
        linked
            .api
            .poke(&format!("/v1/peers/approvals/{}/approve", call["id"].as_str().expect("an id")))
            .await
            .status(204);
    });
    assert_eq!(reply, json!([403, null]));
    linked.police(json!({"require": "approval", "maxSeconds": 1})).await;
    assert_eq!(linked.call("getMail", json!(["q"])).await, json!([504, "approval"]), "nobody answers");
    // A caller that goes takes its question with it.
    linked.police(json!({"require": "approval"})).await;
    let gone = tokio::time::timeout(Duration::from_millis(700), linked.call("getMail", json!(["q"]))).await;
    assert!(gone.is_err());
    tokio::time::sleep(Duration::from_millis(500)).await;
    let all = linked.api.get("/v1/peers/approvals").await.ok().json();
    assert!(all.as_array().expect("a list").iter().all(|call| call["consumer"] != json!(linked.consumer)), "{all}");
    linked.api.poke("/v1/peers/approvals/nothing/approve").await.status(404);
    assert_eq!(linked.entered().await, 1);
    linked.remove().await;
}

async fn a_policy_can_come_with_the_create(world: &World) {
    let policy = json!({"mode": "enforce", "allow": ["*#get*"]});
    let with_policy = |provider: &str| json!({"alias": "p", "vmId": provider, "policy": policy});
    let linked = Linked::new(world, with_policy).await;
    assert_eq!(linked.call("getMail", json!([1])).await, 1);
    assert_eq!(linked.call("send", json!([{}])).await, json!([403, "allow"]));
    let path = format!("/v1/vms/{}/peers/p", linked.consumer);
    let change = linked.api.request(Method::PATCH, &path).json(&json!({"sourceMode": "mounted"}));
    linked.api.send(change).await.status(204);
    assert_eq!(linked.call("send", json!([{}])).await, json!([403, "allow"]), "what is absent stays");
    linked.api.poke(&format!("/v1/vms/{}/stop", linked.consumer)).await.status(204);
    linked.api.poke(&format!("/v1/vms/{}/start", linked.consumer)).await.status(204);
    let again = Linked { token: token(&linked.api, &linked.consumer).await, ..linked };
    assert_eq!(again.call("send", json!([{}])).await, json!([403, "allow"]));
    again.remove().await;
}
