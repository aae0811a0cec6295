use proptest::prelude::*;
use serde_json::json;

use super::*;

fn policy(value: &Value) -> Policy {
    Policy::parse(value).unwrap()
}

fn decision(policy: &Policy, export: &str, args: &Value, usage: Usage) -> Decision {
    let (module, export) = (ModulePath::new("sdk/mail.ts").unwrap(), ExportName::new(export).unwrap());
    let bytes = args.to_string().len() as u64;
    policy.decide(&Call { module: &module, export: &export, args: args.as_array().unwrap(), bytes }, usage)
}

/// Rule and status of a refusal, or what else was decided.
fn told(policy: &Policy, export: &str, args: &Value, usage: Usage) -> String {
    match decision(policy, export, args, usage) {
        Decision::Refuse(Refusal { rule, retry_after: Some(wait), .. }) => format!("{rule}, again in {wait:?}"),
        Decision::Refuse(Refusal { rule, .. }) => rule,
        Decision::Warn(broken) => broken.iter().map(|refusal| refusal.rule.as_str()).collect::<Vec<_>>().join(","),
        other => format!("{other:?}"),
    }
}

const IDLE: Usage = Usage { last_minute: 0, running: 0, frees_in: Duration::ZERO };

#[test]
fn nothing_said_is_all_allowed() {
    let empty = policy(&json!({}));
    assert_eq!(empty, Policy::default());
    assert_eq!(
        decision(&empty, "send", &json!([1]), Usage { last_minute: 1000, running: 1000, ..IDLE }),
        Decision::Allow
    );
    assert_eq!(empty.time_limit(Duration::from_secs(100)).as_secs(), 100);
}

#[test]
fn exports() {
    let some = policy(&json!({"allow": ["sdk/*#get*", "*#send"], "deny": ["*#getSecret"]}));
    let told = |export| told(&some, export, &json!([]), IDLE);
    assert_eq!([told("getMail"), told("send"), told("drop"), told("getSecret")], ["Allow", "Allow", "allow", "deny"]);
    assert_eq!(self::told(&policy(&json!({"allow": []})), "send", &json!([]), IDLE), "allow");
}

#[test]
fn arguments() {
    let rule = |pointer: &str, test: &str, wanted: Value| {
        policy(&json!({"arguments": [{"exports": "*#send", "pointer": pointer, test: wanted}]}))
    };
    let args = json!([{"to": "team-a", "a/b": [1, 2, 3]}, 5, null]);
    let kept =
        |pointer: &str, test: &str, wanted: Value| told(&rule(pointer, test, wanted), "send", &args, IDLE) == "Allow";
    assert!(kept("/1", "equals", json!(5.0)) && !kept("/1", "equals", json!("5")) && kept("/2", "equals", json!(null)));
    assert!(kept("/0/a~1b", "equals", json!([1, 2, 3.0])) && !kept("/0/a~1b", "equals", json!([1, 2])));
    assert!(kept("/1", "in", json!([4, 5])) && !kept("/1", "in", json!([])));
    assert!(
        kept("/0/to", "prefix", json!("team-"))
            && !kept("/0/to", "prefix", json!("Team-"))
            && !kept("/1", "prefix", json!(""))
    );
    assert!(
        kept("/1", "range", json!({"min": 5, "max": 5}))
            && !kept("/1", "range", json!({"max": 4.9}))
            && !kept("/0/to", "range", json!({"min": 0}))
    );
    assert!(
        kept("/0/to", "length", json!({"max": 6}))
            && kept("/0/a~1b", "length", json!({"min": 3}))
            && !kept("/1", "length", json!({"min": 0}))
    );
    for missing in ["/3", "/0/cc", "/00", "/-1", "/+1", "/"] {
        assert!(!kept(missing, "equals", json!(null)), "{missing}");
    }
    assert_eq!(told(&rule("/9", "equals", json!(1)), "other", &args, IDLE), "Allow", "another export");
    let absent =
        policy(&json!({"arguments": [{"exports": "*#*", "pointer": "/9", "orAbsent": true, "range": {"max": 1}}]}));
    assert_eq!(told(&absent, "send", &args, IDLE), "Allow");
}

#[test]
fn a_refusal_holds_no_argument() {
    let strict = policy(&json!({"arguments": [{"exports": "*#*", "pointer": "/0", "equals": "HIDDEN-WANT"}]}));
    let Decision::Refuse(refusal) = decision(&strict, "send", &json!(["HIDDEN-GIVEN"]), IDLE) else { panic!() };
    assert_eq!(refusal.message, "the argument /0 breaks equals");
}

#[test]
fn limits() {
    let limits = policy(&json!({"callsPerMinute": 2, "concurrentCalls": 1, "maxBytes": 10, "maxSeconds": 5}));
    let frees_in = Duration::from_secs(7);
    let at = |last_minute, running| told(&limits, "send", &json!([1]), Usage { last_minute, running, frees_in });
    assert_eq!(
        [at(1, 0), at(2, 0), at(0, 1), at(2, 1)],
        ["Allow", "callsPerMinute, again in 7s", "concurrentCalls, again in 1s", "concurrentCalls, again in 1s"]
    );
    assert_eq!(told(&limits, "send", &json!(["0123456789"]), IDLE), "maxBytes");
    assert_eq!((limits.decide_result(10), limits.time_limit(Duration::from_secs(30)).as_secs()), (Decision::Allow, 5));
    assert!(matches!(limits.decide_result(11), Decision::Refuse(_)));
}

#[test]
fn warnings_and_approvals() {
    let warn = policy(&json!({"mode": "warn", "deny": ["*#send"], "callsPerMinute": 0, "require": "approval"}));
    assert_eq!(told(&warn, "send", &json!([]), IDLE), "deny,callsPerMinute,require");
    let held = policy(&json!({"deny": ["*#drop"], "require": "approval"}));
    assert_eq!(decision(&held, "send", &json!([]), IDLE), Decision::NeedsApproval);
    assert_eq!(told(&held, "drop", &json!([]), IDLE), "deny", "nobody is asked about what is refused anyway");
}

#[test]
fn policies_that_are_refused() {
    let told: Vec<String> = [
        json!([]),
        json!({"alow": []}),
        json!({"allow": ["send"]}),
        json!({"mode": "off"}),
        json!({"callsPerMinute": -1}),
        json!({"maxSeconds": 121}),
        json!({"require": "coffee"}),
        json!({"deny": vec!["*#*"; 101]}),
        json!({"arguments": [{"exports": "*#*", "pointer": "0", "equals": 1}]}),
        json!({"arguments": [{"exports": "*#*", "pointer": "/0"}]}),
        json!({"arguments": [{"exports": "*#*", "pointer": "/0", "range": {"min": 2, "max": 1}}]}),
        json!({"arguments": [{"exports": "*#*", "pointer": "/0", "suffix": "x"}]}),
    ]
    .iter()
    .map(|value| Policy::parse(value).unwrap_err().to_string())
    .collect();
    insta::assert_snapshot!(told.join("\n"));
}

proptest! {
    /// A policy comes back from the store as it went in.
    #[test]
    fn a_policy_is_what_it_writes(allow in prop::option::of(prop::collection::vec("[a-z*]{1,5}#[a-z*]{1,5}", 0..3)), calls in prop::option::of(any::<u32>()), equals in prop::option::of(Just(Value::Null))) {
        let mut value = json!({"allow": allow, "callsPerMinute": calls, "mode": "warn"});
        if let Some(equals) = equals {
            value["arguments"] = json!([{"exports": "*#*", "pointer": "/0", "equals": equals}]);
        }
        let read = policy(&value);
        prop_assert_eq!(policy(&serde_json::to_value(&read).unwrap()), read);
    }

    /// More going on never turns a refusal into a call.
    #[test]
    fn limits_only_refuse_more(limit in 0..5_u32, running in 0..6_u32) {
        let limits = policy(&json!({"concurrentCalls": limit}));
        let at = |running| decision(&limits, "send", &json!([]), Usage { running, ..IDLE });
        prop_assert_eq!(at(running) == Decision::Allow, running < limit);
    }
}
