//! Calls through proxies: every kind of module, under both runtimes, and what becomes of results and errors.

use std::time::Instant;

use serde_json::{Value, json};

use super::sdk::{export, javascript, typescript};
use super::stage::{MODULES, TOKEN, consumer, deno, invoke, link, node, stage, token};
use crate::harness::{World, cases};

cases![
    every_kind_of_module_is_called_from_deno,
    every_kind_of_module_is_called_from_node,
    commonjs_requires_a_proxy,
    an_error_has_the_providers_name_and_message,
    arguments_are_checked_before_the_provider_is_entered,
    results_are_checked,
    values_travel_as_json,
    new_code_is_used_by_the_next_call,
    a_helper_that_changes_is_new_code_too,
    a_program_uses_two_sdks_without_a_network_or_a_credential,
    many_calls_at_once_none_is_lost,
    a_call_ends_at_its_time_limit,
    modules_that_load_for_longer_than_a_call_are_loaded_once,
    a_module_whose_load_has_no_end_leaves_the_others_be,
    a_caller_may_give_up,
    a_crash_fails_the_calls_in_flight_alone,
];

fn proxy(path: &str) -> String {
    format!("file:///workspace/peers/mail/proxy/{path}")
}

async fn every_kind_of_module_is_called_from_deno(world: &World) {
    let stage = stage(world).await;
    let imports: String = MODULES
        .iter()
        .enumerate()
        .map(|(n, (path, _))| match path.ends_with(".cjs") {
            true => format!("import m{n} from '{}';\n", proxy(path)),
            false => format!("import * as m{n} from '{}';\n", proxy(path)),
        })
        .collect();
    let calls: Vec<String> = (0..MODULES.len()).map(|n| format!("await m{n}.whoAmI()")).collect();
    let found = deno(&stage.api, &stage.consumer, &format!("{imports} result.set([{}]);", calls.join(", "))).await;
    assert_eq!(found, MODULES.iter().map(|(_, runtime)| who(runtime)).collect::<Value>());
}

async fn every_kind_of_module_is_called_from_node(world: &World) {
    let stage = stage(world).await;
    // Node.js itself has no way to load the two that hold JSX.
    let modules = || MODULES.iter().filter(|(path, _)| !path.ends_with('x'));
    let expected: Value = modules().map(|(_, runtime)| who(runtime)).collect();
    let calls: Vec<String> =
        modules().map(|(path, _)| format!("await (await import('{}')).whoAmI()", proxy(path))).collect();
    // A package.json of the consumer's own changes nothing for the proxies.
    for kind in ["commonjs", "module"] {
        let program = format!("export {{}}; result.set([{}]);", calls.join(", "));
        stage
            .api
            .sh(&stage.consumer, &format!("mkdir -p {kind} && echo '{{\"type\": \"{kind}\"}}' > {kind}/package.json"))
            .await;
        stage.api.sh(&stage.consumer, &format!("cat > {kind}/main.mjs <<'END'\n{program}\nEND")).await;
        let body = json!({"path": format!("{kind}/main.mjs"), "timeoutMs": 120_000});
        let reply = stage.api.post(&format!("/v1/vms/{}/run-js", stage.consumer), &body).await.ok().json();
        assert_eq!(reply["result"], expected, "{reply}");
    }
}

fn who(runtime: &str) -> Value {
    json!({"runtime": runtime, "token": TOKEN.len()})
}

async fn commonjs_requires_a_proxy(world: &World) {
    let stage = stage(world).await;
    let program = "const { search } = require('/workspace/peers/mail/proxy/sdk/mail.cjs');
                   search('a', 2).then((found) => result.set(found));";
    assert_eq!(node(&stage.api, &stage.consumer, program).await, json!([{"id": "a-0"}, {"id": "a-1"}]));
}

async fn an_error_has_the_providers_name_and_message(world: &World) {
    let stage = stage(world).await;
    for (path, _) in [MODULES[0], MODULES[4]] {
        let program = format!(
            "import {{ fail }} from '{}';
             try {{ await fail('QuotaError', 'no mail — left'); }} catch (error) {{
               result.set([error instanceof Error, error.name, error.message, error.status, error.code, String(error)]);
             }}",
            proxy(path)
        );
        let wanted = json!([true, "QuotaError", "no mail — left", 502, "peer_threw", "QuotaError: no mail — left"]);
        assert_eq!(deno(&stage.api, &stage.consumer, &program).await, wanted);
        assert_eq!(node(&stage.api, &stage.consumer, &program).await, wanted);
    }
    let uncaught = format!("import {{ fail }} from '{}'; await fail('QuotaError', 'none left');", proxy("sdk/mail.ts"));
    let reply =
        stage.api.post(&format!("/v1/vms/{}/run-ts", stage.consumer), &json!({ "code": uncaught })).await.ok().json();
    assert_ne!(reply["exitCode"], 0);
    assert_eq!((&reply["error"]["name"], &reply["error"]["message"]), (&json!("QuotaError"), &json!("none left")));
}

async fn arguments_are_checked_before_the_provider_is_entered(world: &World) {
    let stage = stage(world).await;
    let program = format!(
        "import {{ search }} from '{}';
         const told = async (...args) => await search(...args).then(() => 'made', (error) => [error.status, error.message]);
         result.set([await told('a'), await told(''), await told(7), await told('a', 51), await told('a', 1.5), await told(), await told('a', 1, 2)]);",
        proxy("sdk/mail.mjs")
    );
    let told = node(&stage.api, &stage.consumer, &program).await;
    let told = told.as_array().expect("a list");
    assert_eq!(told[0], "made");
    for (refused, word) in told[1..].iter().zip(["query", "query", "limit", "limit", "query"]) {
        assert_eq!(refused[0], 400, "{refused}");
        assert!(refused[1].as_str().is_some_and(|message| message.contains(word)), "{word}: {refused}");
    }
    assert_eq!(told[6], "made", "a proxy passes on what it declares");
}

async fn results_are_checked(world: &World) {
    let api = world.api().await;
    let sdk = javascript("export const count = () => 'many';", &[export("count", &[], json!({"type": "integer"}))]);
    let provider = sdk.provide(&api, json!({})).await;
    let vm = consumer(&api, &[link("small", &provider)]).await;
    let program = "import { count } from 'file:///workspace/peers/small/proxy/sdk/small.mjs';
                   result.set(await count().catch((error) => [error.status, error.code, error.message]))";
    let told = node(&api, &vm, program).await;
    assert_eq!((&told[0], &told[1]), (&json!(502), &json!("invalid_result")));
    assert!(!told[2].as_str().expect("text").contains("many"), "{told}");
    api.remove(&[&vm, &provider]).await;
}

async fn values_travel_as_json(world: &World) {
    let stage = stage(world).await;
    let program = |path: &str| {
        format!(
            "import {{ echo }} from '{}';
             const sent = [null, true, 0, -1.5, 0.9041346886354059, 1e300, 9007199254740991, '', 'é 🦀 \\u0000 \\u2028', [], [[1]], {{}}, {{ a: {{ b: [] }} }},
                           {{ __proto__: null, constructor: 1, toString: 2 }}];
             const back = [];
             for (const value of sent) back.push(await echo(value));
             result.set([JSON.stringify(back) === JSON.stringify(sent), await echo(new Date(0)), await echo([undefined]),
                         await echo(undefined), await echo(NaN), (await echo('x'.repeat(500000))).length]);",
            proxy(path)
        )
    };
    let wanted = json!([true, "1970-01-01T00:00:00.000Z", [null], null, null, 500_000]);
    for path in ["sdk/mail.ts", "sdk/mail.mjs"] {
        assert_eq!(deno(&stage.api, &stage.consumer, &program(path)).await, wanted, "{path}");
        assert_eq!(node(&stage.api, &stage.consumer, &program(path)).await, wanted, "{path}");
    }
}

async fn new_code_is_used_by_the_next_call(world: &World) {
    let api = world.api().await;
    for (path, ours) in [("sdk/small.ts", "typescript"), ("sdk/small.mjs", "javascript")] {
        let code = |n: u32| format!("let calls = 0; export const version = () => [{n}, ++calls];");
        let exports = [export("version", &[], json!({}))];
        let sdk = if ours == "typescript" { typescript(&code(0), &exports) } else { javascript(&code(0), &exports) };
        let provider = sdk.provide(&api, json!({"memMb": 512})).await;
        let vm = consumer(&api, &[link("small", &provider)]).await;
        let program = format!(
            "import {{ version }} from 'file:///workspace/peers/small/proxy/{path}'; result.set([await version(), await version()])"
        );
        assert_eq!(node(&api, &vm, &program).await, json!([[0, 1], [0, 2]]), "module state is kept between calls");
        for n in 1..4 {
            match n {
                1 => drop(api.sh(&provider, &format!("echo '{}' > {path}", code(n))).await),
                2 => drop(api.sh(&provider, &format!("echo '{}' > next && mv next {path}", code(n))).await),
                _ => {
                    let request = api.request(reqwest::Method::PUT, &format!("/v1/vms/{provider}/files/content"));
                    let request = request.query(&[("path", format!("/workspace/{path}"))]).body(code(n));
                    api.send(request.header("content-type", "application/octet-stream")).await.status(204);
                }
            }
            assert_eq!(node(&api, &vm, &program).await, json!([[n, 1], [n, 2]]), "{path}, change {n}");
        }
        api.sh(&provider, &format!("echo 'syntax error here' > {path}")).await;
        let told = node(
            &api,
            &vm,
            &program.replace("[await version(), await version()]", "await version().catch((error) => error.status)"),
        )
        .await;
        assert_eq!(told, 502, "code that cannot be loaded");
        api.sh(&provider, &format!("echo '{}' > {path}", code(9))).await;
        assert_eq!(node(&api, &vm, &program).await, json!([[9, 1], [9, 2]]), "it is mended");
        api.remove(&[&vm, &provider]).await;
    }
}

async fn a_helper_that_changes_is_new_code_too(world: &World) {
    let api = world.api().await;
    let sdk = javascript(
        "import { word } from '../lib/helper.js'; export const say = () => word;",
        &[export("say", &[], json!({"type": "string"}))],
    );
    let sdk = sdk.file("lib/package.json", r#"{"type": "module"}"#).file("lib/helper.js", "export const word = 'old';");
    let provider = sdk.provide(&api, json!({})).await;
    let vm = consumer(&api, &[link("small", &provider)]).await;
    let program = "import { say } from 'file:///workspace/peers/small/proxy/sdk/small.mjs'; result.set(await say())";
    assert_eq!(node(&api, &vm, program).await, "old");
    api.sh(&provider, "echo \"export const word = 'new';\" > lib/helper.js").await;
    assert_eq!(node(&api, &vm, program).await, "new");
    api.sh(&provider, "mkdir other && cp lib/package.json other && echo \"export const word = 'moved';\" > other/helper.js && rm -r lib && mv other lib").await;
    assert_eq!(node(&api, &vm, program).await, "moved");
    api.remove(&[&vm, &provider]).await;
}

/// The way of a new user: a Google-like and an Outlook-like SDK, each with a credential of its own, and a program that a
/// model could have written, in a VM without network or secret.
async fn a_program_uses_two_sdks_without_a_network_or_a_credential(world: &World) {
    let api = world.api().await;
    let message = json!({"type": "object", "required": ["id", "subject"], "properties": {
        "id": {"type": "string"}, "subject": {"type": "string"}, "from": {"type": "string", "format": "email"}}});
    let google = super::sdk::Sdk::new("Google").module(
        "google/gmail.ts",
        "const token: string = Deno.env.get('GOOGLE_TOKEN')!;
         export async function listMessages(query: string): Promise<{ id: string; subject: string; from: string }[]> {
           if (token !== 'g-secret-1234') throw new Error('401 from Google');
           return [{ id: 'g1', subject: `About ${query}`, from: 'ann@example.com' }];
         }",
        &[export("listMessages", &[("query", json!({"type": "string"}))], json!({"type": "array", "items": message}))],
    );
    let outlook = super::sdk::Sdk::new("Outlook").module(
        "outlook/calendar.mjs",
        "const made = [];
         export default async function createEvent(event) {
           if (process.env.OUTLOOK_SECRET !== 'o-secret-5678') throw new Error('401 from Outlook');
           return { id: `o${made.push(event)}`, title: event.title };
         }",
        &[export(
            "default",
            &[(
                "event",
                json!({"type": "object", "required": ["title", "day"], "properties": {
                "title": {"type": "string"}, "day": {"type": "string", "format": "date"}}}),
            )],
            json!({"type": "object", "required": ["id"]}),
        )],
    );
    let google = google.provide(&api, json!({"memMb": 512, "secretEnv": ["GOOGLE_TOKEN=g-secret-1234"]})).await;
    let outlook = outlook.provide(&api, json!({"secretEnv": ["OUTLOOK_SECRET=o-secret-5678"]})).await;
    let vm = consumer(&api, &[link("google", &google), link("outlook", &outlook)]).await;
    let program = "
        import { listMessages } from \"file:///workspace/peers/google/proxy/google/gmail.ts\";
        import calendar from \"file:///workspace/peers/outlook/proxy/outlook/calendar.mjs\";
        const mails = await listMessages('lunch');
        const events = await Promise.all(mails.map((mail) => calendar({ title: `${mail.subject} (${mail.from})`, day: '2026-05-01' })));
        const wrong = await calendar({ title: 'x', day: 'tomorrow' }).catch((error) => error.message);
        result.set({ events, wrong, secrets: Object.keys(Deno.env.toObject()).filter((name) => /SECRET|TOKEN/.test(name)) });";
    let found = deno(&api, &vm, program).await;
    assert_eq!(found["events"], json!([{"id": "o1", "title": "About lunch (ann@example.com)"}]));
    assert!(found["wrong"].as_str().is_some_and(|told| told.contains("/day")), "{found}");
    assert_eq!(found["secrets"], json!([]));
    assert!(!api.sh(&vm, "cat /proc/net/route | wc -l; ls /sys/class/net").await.is_empty());
    api.remove(&[&vm, &google, &outlook]).await;
}

async fn many_calls_at_once_none_is_lost(world: &World) {
    let stage = stage(world).await;
    for path in ["sdk/mail.ts", "sdk/mail.mjs"] {
        let program = format!(
            "import {{ echo }} from '{}';
             let next = 0, wrong = 0;
             const worker = async () => {{ while (next < 1000) {{ const n = next++; if (await echo(n) !== n) wrong++; }} }};
             await Promise.all(Array.from({{ length: 50 }}, worker));
             result.set([next, wrong]);",
            proxy(path)
        );
        assert_eq!(node(&stage.api, &stage.consumer, &program).await, json!([1000, 0]), "{path}");
    }
}

/// An SDK whose functions take their time.
fn slow(path: &str) -> super::sdk::Sdk {
    let code = "let seen = 0;
        export const sleep = async (ms) => { seen++; await new Promise((wake) => setTimeout(wake, ms)); return ms; };
        export const spin = () => { for (;;); };
        export const quit = () => { (globalThis.Deno?.exit ?? process.exit)(3); };
        export const later = async () => { setTimeout(() => { throw new Error('thrown later'); }, 10); await new Promise(() => {}); };
        export const count = () => seen;";
    let number = json!({"type": "integer"});
    let exports = [
        export("sleep", &[("ms", number.clone())], number.clone()),
        export("spin", &[], json!({})),
        export("quit", &[], json!({})),
        export("later", &[], json!({})),
        export("count", &[], number),
    ];
    super::sdk::Sdk::new("Slow").module(path, code, &exports)
}

const SLOW: [&str; 2] = ["slow.ts", "slow.mjs"];

/// A program with the runtime's `call` on the slow SDK.
fn with_call(path: &str, code: &str) -> String {
    format!(
        "import {{ call }} from 'file:///workspace/.rds/peer-runtime.mjs';
         const slow = (name, args = [], options = {{}}) => call('slow', '/workspace/{path}', name, args, options);
         const told = (promise) => promise.then((value) => value, (error) => [error.status ?? error.name, error.code]);
         {code}"
    )
}

async fn modules_that_load_for_longer_than_a_call_are_loaded_once(world: &World) {
    let api = world.api().await;
    let anonymous = world.server().await.anonymous();
    let code = "import fs from 'node:fs';
        fs.appendFileSync('/workspace/loads.txt', 'x');
        await new Promise((wake) => setTimeout(wake, 6000));
        export const fine = () => 1;";
    let exports = [export("fine", &[], json!({}))];
    for (sdk, path) in [(javascript(code, &exports), "sdk/small.mjs"), (typescript(code, &exports), "sdk/small.ts")] {
        let provider = sdk.provide(&api, json!({"memMb": 512})).await;
        let vm = consumer(&api, &[link("slow", &provider)]).await;
        let token = token(&api, &vm).await;
        let module = format!("/workspace/{path}");
        let body = json!({"alias": "slow", "modulePath": module, "exportName": "fine", "args": [], "timeoutMs": 1500});
        api.sh(&provider, &format!("rm loads.txt && touch {path}")).await;
        let begun = Instant::now();
        let mut late = 0;
        loop {
            let reply = invoke(&anonymous, &token, &body).await;
            if reply.status == 200 {
                break;
            }
            assert_eq!(reply.status, 504, "{path}: {reply:?}");
            assert!(begun.elapsed().as_secs() < 60, "{path} is never loaded");
            late += 1;
        }
        assert!(late > 0, "{path} was loaded again");
        assert_eq!(api.sh(&provider, "cat loads.txt").await, "x", "{path}");
        for vm in [vm, provider] {
            api.delete(&format!("/v1/vms/{vm}")).await.status(204);
        }
    }
}

async fn a_call_ends_at_its_time_limit(world: &World) {
    let api = world.api().await;
    for path in SLOW {
        let provider = slow(path).provide(&api, json!({"memMb": 512})).await;
        let vm = consumer(&api, &[link("slow", &provider)]).await;
        let begun = Instant::now();
        let program = with_call(
            path,
            "result.set([await slow('sleep', [1]), await told(slow('sleep', [60000], { timeoutMs: 1000 })), await slow('sleep', [2])])",
        );
        assert_eq!(node(&api, &vm, &program).await, json!([1, [504, "peer_timeout"], 2]), "{path}");
        // A function that never yields takes its worker with it; the next call gets another one.
        let program = with_call(
            path,
            "result.set([await told(slow('spin', [], { timeoutMs: 1500 })), await slow('sleep', [3])])",
        );
        assert_eq!(node(&api, &vm, &program).await, json!([[504, "peer_timeout"], 3]), "{path}");
        let program = with_call(path, "const told = (ms) => slow('sleep', [1], { timeoutMs: ms }).catch((error) => error.status); result.set([await told(0), await told(120001), await told(1.5)])")
            .replace("const told = (promise) => promise.then((value) => value, (error) => [error.status ?? error.name, error.code]);", "");
        assert_eq!(node(&api, &vm, &program).await, json!([400, 400, 400]), "{path}");
        assert!(begun.elapsed().as_secs() < 60, "{path} took {:?}", begun.elapsed());
        api.remove(&[&vm, &provider]).await;
    }
}

async fn a_module_whose_load_has_no_end_leaves_the_others_be(world: &World) {
    let api = world.api().await;
    let say = [export("say", &[], json!({"type": "string"}))];
    let code = "export const say = () => 'well';";
    let sdk = super::sdk::Sdk::new("Two").module("sdk/a.mjs", code, &say).module("sdk/b.mjs", code, &say);
    let provider = sdk.provide(&api, json!({})).await;
    let vm = consumer(&api, &[link("two", &provider)]).await;
    api.sh(&provider, "echo 'await new Promise(() => {}); export const say = () => 1;' > sdk/a.mjs").await;
    let program = "import { say } from 'file:///workspace/peers/two/proxy/sdk/b.mjs'; result.set(await say())";
    assert_eq!(node(&api, &vm, program).await, "well");
    api.remove(&[&vm, &provider]).await;
}

async fn a_caller_may_give_up(world: &World) {
    let api = world.api().await;
    let provider = slow("slow.mjs").provide(&api, json!({})).await;
    let vm = consumer(&api, &[link("slow", &provider)]).await;
    let program = with_call(
        "slow.mjs",
        "const given = new AbortController();
         await slow('sleep', [1]);
         const waiting = told(slow('sleep', [60000], { signal: given.signal }));
         setTimeout(() => given.abort(), 500);
         const first = await waiting;
         result.set([first, await slow('count')]);",
    );
    assert_eq!(node(&api, &vm, &program).await, json!([["AbortError", 20], 2]));
    assert_eq!(deno(&api, &vm, &program).await, json!([["AbortError", 20], 4]));
    let page = api.get(&format!("/v1/audit?consumer={vm}&outcome=cancelled")).await.ok().json();
    assert_eq!(page["entries"].as_array().map(Vec::len), Some(2), "{page}");
    api.remove(&[&vm, &provider]).await;
}

async fn a_crash_fails_the_calls_in_flight_alone(world: &World) {
    let api = world.api().await;
    for path in SLOW {
        let provider = slow(path).provide(&api, json!({"memMb": 512})).await;
        let vm = consumer(&api, &[link("slow", &provider)]).await;
        for how in ["quit", "later"] {
            let program = with_call(
                path,
                &format!(
                    "const waiting = told(slow('sleep', [20000]));
                     await slow('sleep', [10]);
                     const crashed = await told(slow('{how}'));
                     result.set([crashed, await waiting, await slow('sleep', [4]), await slow('count')]);"
                ),
            );
            let found = node(&api, &vm, &program).await;
            assert_eq!(found, json!([[502, "peer_failed"], [502, "peer_failed"], 4, 1]), "{path} {how}");
        }
        api.remove(&[&vm, &provider]).await;
    }
}
