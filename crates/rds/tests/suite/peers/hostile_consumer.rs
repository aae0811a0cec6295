//! A consumer that does its worst: a clear error, a manager whose memory stays bounded, and others that do not notice.

use std::time::Instant;

use reqwest::Method;
use serde_json::{Value, json};

use super::sdk::{export, javascript, typescript};
use super::stage::{consumer, deno, invoke, link, node, raw_calls, stage, token};
use crate::harness::{World, cases, processes};

cases![
    what_is_not_declared_is_not_reached,
    names_of_the_language_are_no_exports,
    texts_that_are_no_plain_json_are_refused,
    calls_that_are_too_large_are_refused,
    a_flood_of_connections_disturbs_nobody_else,
    a_flood_of_calls_is_answered,
    a_flood_of_refused_calls_leaves_few_records,
    results_that_are_not_read_take_little_of_the_server,
    arguments_of_many_objects_cost_the_provider_no_more_than_their_text,
    a_call_that_was_given_up_is_not_begun,
];

/// Bytes that the manager may grow by under an attack.
const GROWTH: u64 = 96 * 1024 * 1024;

async fn what_is_not_declared_is_not_reached(world: &World) {
    let stage = stage(world).await;
    let anonymous = world.server().await.anonymous();
    let token = token(&stage.api, &stage.consumer).await;
    stage
        .api
        .sh(
            &stage.provider,
            "echo 'export const secret = () => process.env.MAIL_TOKEN; export default secret' > undeclared.mjs",
        )
        .await;
    let call = async |module: &str, export: &str| {
        let body = json!({"alias": "mail", "modulePath": module, "exportName": export, "args": []});
        let reply = invoke(&anonymous, &token, &body).await;
        assert_eq!(reply.status, 403, "{module} {export}: {reply:?}");
    };
    for module in [
        "/workspace/undeclared.mjs",
        "/workspace/sdk/../undeclared.mjs",
        "/workspace/sdk/../sdk/mail.mjs",
        "/workspace/sdk/mail.mjs/",
        "/workspace/sdk/%6dail.mjs",
        "/workspace/sdk%2Fmail.mjs",
        "/workspace/sdk/mail.mjs?x",
        "/workspace/sdk/mail.mjs#x",
        "/workspace/sdk/mail.mjs\u{0}",
        "/workspace/SDK/mail.mjs",
        "\\workspace\\sdk\\mail.mjs",
        "sdk/mail.mjs",
        "/home/user/sdk/mail.mjs",
        "file:///workspace/sdk/mail.mjs",
        "data:text/javascript,export default () => 1",
        "node:fs",
        "/etc/passwd",
        "/workspace/.rds-peer/manifest.json",
        "/run/rds/worker.node.mjs",
        "..",
        "__proto__",
    ] {
        call(module, "whoAmI").await;
        call(module, "default").await;
    }
    for export in [
        "other",
        "default",
        "whoami",
        "whoAmI ",
        " whoAmI",
        "whoAmI.call",
        "whoAmI\u{0}",
        "module.exports",
        "x".repeat(5000).as_str(),
    ] {
        call("/workspace/sdk/mail.mjs", export).await;
    }
    for alias in ["other", "Mail", "mail ", "../mail", "__proto__", "mail/../mail"] {
        let body = json!({"alias": alias, "modulePath": "/workspace/sdk/mail.mjs", "exportName": "whoAmI"});
        assert_eq!(invoke(&anonymous, &token, &body).await.status, 403, "{alias}");
    }
    stage.api.sh(&stage.provider, "rm undeclared.mjs").await;
}

async fn names_of_the_language_are_no_exports(world: &World) {
    let stage = stage(world).await;
    let anonymous = world.server().await.anonymous();
    let token = token(&stage.api, &stage.consumer).await;
    for module in ["/workspace/sdk/mail.mjs", "/workspace/sdk/mail.cjs", "/workspace/sdk/mail.ts"] {
        for export in [
            "__proto__",
            "constructor",
            "prototype",
            "toString",
            "valueOf",
            "hasOwnProperty",
            "then",
            "__defineGetter__",
            "call",
            "apply",
            "bind",
            "eval",
        ] {
            let body = json!({"alias": "mail", "modulePath": module, "exportName": export, "args": ["return 1"]});
            assert_eq!(invoke(&anonymous, &token, &body).await.status, 403, "{module} {export}");
        }
    }
    // Values with such keys are values.
    let text = r#"{"alias":"mail","modulePath":"/workspace/sdk/mail.mjs","exportName":"echo","args":[{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}}}]}"#;
    let request = anonymous.request(Method::POST, "/internal/v1/peer/invoke").bearer_auth(&token);
    let reply = anonymous.send(request.header("content-type", "application/json").body(text)).await.ok();
    assert_eq!(
        reply.json()["result"],
        json!({"__proto__": {"polluted": 1}, "constructor": {"prototype": {"polluted": 1}}})
    );
    let program = "import { echo } from 'file:///workspace/peers/mail/proxy/sdk/mail.mjs'; result.set([await echo(1), ({}).polluted ?? null])";
    assert_eq!(deno(&stage.api, &stage.consumer, program).await, json!([1, null]));
}

async fn texts_that_are_no_plain_json_are_refused(world: &World) {
    let stage = stage(world).await;
    let anonymous = world.server().await.anonymous();
    let token = token(&stage.api, &stage.consumer).await;
    let with = |args: &str| {
        format!(r#"{{"alias":"mail","modulePath":"/workspace/sdk/mail.mjs","exportName":"echo","args":{args}}}"#)
    };
    let (deep, open) = (format!("[{}{}]", "[".repeat(10_000), "]".repeat(10_000)), "[".repeat(500_000));
    let bodies = [
        with("[NaN]"),
        with("[Infinity]"),
        with("[1e999]"),
        with("[-1e999]"),
        with("[12345678901234567890123]"),
        with("[9007199254740993]"),
        with(r#"[{"a":1,"a":2}]"#),
        with("[01]"),
        with("['x']"),
        with("[1,]"),
        with("[\"\\ud800\"]"),
        with(&deep),
        with(&open),
        r#"{"alias":"mail","alias":"other","modulePath":"/workspace/sdk/mail.mjs"}"#.to_owned(),
        with("[1]") + "x",
    ];
    for body in &bodies {
        let request = anonymous.request(Method::POST, "/internal/v1/peer/invoke").bearer_auth(&token);
        let reply = anonymous.send(request.header("content-type", "application/json").body(body.clone())).await;
        let shown: String = body.chars().take(120).collect();
        assert_eq!(reply.status, 400, "{shown}: {reply:?}");
        assert!(reply.message().len() < 1000, "{shown}");
    }
    let inside = raw_calls(&[
        "send(call().replace('[1]', '[' + '['.repeat(10000) + ']'.repeat(10000) + ']'))",
        "send(call().replace('[1]', '[NaN]'))",
        "send(call().replace('[1]', '[1e999]'))",
        "send(call().replace('[1]', '[{\"a\":1,\"a\":2}]'))",
        "send(Buffer.from([0xff, 0xfe, 0x00]))",
        "send(call())",
    ]);
    let replies = node(&stage.api, &stage.consumer, &inside).await;
    let statuses: Vec<&Value> = replies.as_array().expect("a list").iter().map(|reply| &reply[0]).collect();
    assert_eq!(statuses, [400, 400, 400, 400, 400, 200], "{replies}");
}

async fn calls_that_are_too_large_are_refused(world: &World) {
    let stage = stage(world).await;
    let server = world.server().await;
    let anonymous = server.anonymous();
    let token = token(&stage.api, &stage.consumer).await;
    let before = processes::resident_bytes(server.pid());
    let body = json!({"alias": "mail", "modulePath": "/workspace/sdk/mail.mjs", "exportName": "echo", "args": ["x".repeat(10_000_000)]});
    for _ in 0..8 {
        assert_eq!(invoke(&anonymous, &token, &body).await.status, 413);
    }
    let inside = raw_calls(&[
        "send(call({ args: ['x'.repeat(10000000)] }))",
        "send(call({ args: ['x'.repeat(10000000)] }))",
        "send(call({ args: ['x'.repeat(1048576)] }))",
        "send(call({ args: ['x'.repeat(1000000)] }))",
    ]);
    let replies = node(&stage.api, &stage.consumer, &inside).await;
    for reply in replies.as_array().expect("a list").iter().take(3) {
        // The agent stops reading and closes; a client that is still writing may see that first.
        assert!(reply[0] == 413 || reply[0] == 0, "{}", reply[0]);
    }
    assert_eq!(replies[3][0], 200);
    let after = processes::resident_bytes(server.pid());
    assert!(after < before + GROWTH, "{before} bytes became {after}");
}

async fn a_flood_of_connections_disturbs_nobody_else(world: &World) {
    let stage = stage(world).await;
    let (api, server) = (&stage.api, world.server().await);
    let vm = consumer(api, &[link("mail", &stage.provider)]).await;
    let before = processes::resident_bytes(server.pid());
    let flood = "const net = require('net');
        const { port } = new URL(JSON.parse(require('fs').readFileSync('/workspace/.rds/peer-bridge.json')).url);
        let opened = 0, failed = 0;
        const open = () => new Promise((resolve) => {
          const socket = net.connect(port, '127.0.0.1', () => { opened++; socket.write('POST /internal'); resolve(); });
          socket.on('error', () => { failed++; resolve(); });
          setTimeout(() => { socket.destroy(); resolve(); }, 3000);
        });
        (async () => {
          for (let n = 0; n < 10000; n += 500) await Promise.all(Array.from({ length: 500 }, open));
          result.set([opened, failed]);
          process.exit(0);
        })();";
    let flooding = async {
        let body = json!({"code": flood, "timeoutMs": 120_000});
        api.post(&format!("/v1/vms/{vm}/run-js"), &body).await.ok().json()
    };
    let others = async {
        let anonymous = server.anonymous();
        let token = token(api, &stage.consumer).await;
        let body = json!({"alias": "mail", "modulePath": "/workspace/sdk/mail.mjs", "exportName": "echo", "args": [1]});
        let mut slowest = 0;
        for _ in 0..20 {
            let begun = Instant::now();
            invoke(&anonymous, &token, &body).await.ok();
            slowest = slowest.max(begun.elapsed().as_millis());
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        slowest
    };
    let (flooded, slowest) = tokio::join!(flooding, others);
    assert_eq!(flooded["exitCode"], 0, "{flooded}");
    assert!(flooded["result"][0].as_u64() > Some(500), "few connections were opened: {flooded}");
    assert!(slowest < 3000, "another consumer's call took {slowest} ms");
    let program = "import { echo } from 'file:///workspace/peers/mail/proxy/sdk/mail.mjs'; result.set(await echo(7))";
    assert_eq!(node(api, &vm, program).await, 7, "the flood has gone");
    let after = processes::resident_bytes(server.pid());
    assert!(after < before + GROWTH, "{before} bytes became {after}");
    api.delete(&format!("/v1/vms/{vm}")).await.status(204);
}

async fn a_flood_of_refused_calls_leaves_few_records(world: &World) {
    let stage = stage(world).await;
    let api = &stage.api;
    let vm = consumer(api, &[link("mail", &stage.provider)]).await;
    let program = "import { call } from 'file:///workspace/.rds/peer-runtime.mjs';
        const count = {};
        const one = () => call('nobody', '/workspace/x.mjs', 'x', []).catch(({ status }) => { count[status] = (count[status] ?? 0) + 1; });
        for (let n = 0; n < 24; n++) await Promise.all(Array.from({ length: 60 }, one));
        result.set(count);";
    let begun = Instant::now();
    let count = node(api, &vm, program).await;
    let seconds = begun.elapsed().as_secs();
    let (refused, shut_out) = (count["403"].as_u64().unwrap_or(0), count["429"].as_u64().unwrap_or(0));
    assert_eq!(refused + shut_out, 24 * 60, "{count}");
    assert!((1000..=1001 + seconds).contains(&refused), "{count} in {seconds} s");
    let records = api.get(&format!("/v1/audit?consumer={vm}&format=jsonl")).await.ok();
    assert_eq!(String::from_utf8_lossy(&records.body).lines().count() as u64, refused);
    api.delete(&format!("/v1/vms/{vm}")).await.status(204);
}

async fn a_flood_of_calls_is_answered(world: &World) {
    let api = world.api().await;
    let server = world.server().await;
    let sdk = javascript(
        "export const wait = async (text) => { await new Promise((wake) => setTimeout(wake, 300)); return text.length; };",
        &[export("wait", &[("text", json!({"type": "string"}))], json!({"type": "integer"}))],
    );
    let provider = sdk.provide(&api, json!({})).await;
    let vm = consumer(&api, &[link("small", &provider)]).await;
    let before = processes::resident_bytes(server.pid());
    // As much at once as a VM can: 300 calls of 150 KB each.
    let program = "import { call } from 'file:///workspace/.rds/peer-runtime.mjs';
        const text = 'x'.repeat(150000);
        const one = () => call('small', '/workspace/sdk/small.mjs', 'wait', [text]).then(() => 200, (error) => error.status ?? error.code);
        const all = await Promise.all(Array.from({ length: 300 }, one));
        const count = {};
        for (const status of all) count[status] = (count[status] ?? 0) + 1;
        result.set(count);";
    let body = json!({"code": program, "timeoutMs": 120_000});
    let reply = api.post(&format!("/v1/vms/{vm}/run-js"), &body).await.ok().json();
    let count = &reply["result"];
    let of = |status: &str| count[status].as_u64().unwrap_or(0);
    assert_eq!(of("200") + of("429"), 300, "each call has an answer: {reply}");
    assert!(of("200") > 0, "{count}");
    let after = processes::resident_bytes(server.pid());
    assert!(after < before + GROWTH, "{before} bytes became {after}");
    let program =
        "import { wait } from 'file:///workspace/peers/small/proxy/sdk/small.mjs'; result.set(await wait('four'))";
    assert_eq!(node(&api, &vm, program).await, 4);
    for vm in [vm, provider] {
        api.delete(&format!("/v1/vms/{vm}")).await.status(204);
    }
}

async fn results_that_are_not_read_take_little_of_the_server(world: &World) {
    let server = world.own_server(&[]).await;
    let api = server.api();
    let code = "export const text = (length) => 'x'.repeat(length);";
    let exports = [export("text", &[("length", json!({"type": "integer"}))], json!({}))];
    let provider = javascript(code, &exports).provide(&api, json!({"memMb": 1024})).await;
    let vm = consumer(&api, &[link("big", &provider)]).await;
    let program = "import fs from 'node:fs';
        import http from 'node:http';
        const { url, token } = JSON.parse(fs.readFileSync('/workspace/.rds/peer-bridge.json'));
        const call = (length) => JSON.stringify({ alias: 'big', modulePath: '/workspace/sdk/small.mjs', exportName: 'text', args: [length], timeoutMs: 20000 });
        const send = (length) => new Promise((resolve) => {
          const request = http.request(url, { method: 'POST', headers: { authorization: `Bearer ${token}` } }, (reply) => resolve([reply, reply.statusCode]));
          request.on('error', (error) => resolve([null, error.code]));
          request.end(call(length));
        });
        const begun = [];
        for (let n = 0; n < 60; n++) begun.push(send(3900000));
        await new Promise((wake) => setTimeout(wake, 15000));
        const [, small] = await send(10);
        fs.writeFileSync('/workspace/small.json', JSON.stringify(small));
        await new Promise((wake) => setTimeout(wake, 15000));
        process.exit(0);";
    let before = processes::resident_bytes(server.pid());
    api.sh(&vm, &format!("cat > unread.mjs <<'END'\n{program}\nEND\nnode unread.mjs >/dev/null 2>&1 &")).await;
    let (mut most, mut small) = (0, String::new());
    for look in 0..150 {
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        most = most.max(processes::resident_bytes(server.pid()));
        // That long the program goes on, and on a busy machine longer.
        if look >= 50 {
            small = api.sh(&vm, "cat small.json || true").await;
        }
        if !small.is_empty() {
            break;
        }
    }
    assert!(most < before + GROWTH, "{before} bytes became {most}");
    assert_eq!(small, "200", "a small result does not wait for large ones");
    let body =
        json!({"alias": "big", "modulePath": "/workspace/sdk/small.mjs", "exportName": "text", "args": [3_900_000]});
    let token = token(&api, &vm).await;
    invoke(&server.anonymous(), &token, &body).await.ok();
    api.remove(&[&vm, &provider]).await;
    server.assert_no_trace().await;
}

async fn arguments_of_many_objects_cost_the_provider_no_more_than_their_text(world: &World) {
    // Its own, since others measure the memory of the shared one.
    let server = world.own_server(&[]).await;
    let api = server.api();
    let sdk = javascript(
        "export const hold = async (list) => { await new Promise((wake) => setTimeout(wake, 4000)); return list.length; };",
        &[export("hold", &[("list", json!({"type": "array"}))], json!({"type": "integer"}))],
    );
    let provider = sdk.provide(&api, json!({"memMb": 256})).await;
    let vm = consumer(&api, &[link("small", &provider)]).await;
    let program = "import { call } from 'file:///workspace/.rds/peer-runtime.mjs';
        const list = Array.from({ length: 90000 }, () => ({ a: 1 }));
        const one = () => call('small', '/workspace/sdk/small.mjs', 'hold', [list], { timeoutMs: 60000 });
        const told = (call) => call.catch((error) => `${error.status} ${error.code}`);
        result.set(await Promise.all(Array.from({ length: 6 }, () => told(one()))));";
    let body = json!({"code": program, "timeoutMs": 120_000});
    let reply = api.post(&format!("/v1/vms/{vm}/run-js"), &body).await.ok().json();
    assert_eq!(reply["result"], json!([90000, 90000, 90000, 90000, 90000, 90000]), "{reply}");
    assert_eq!(api.sh(&provider, "echo alive").await, "alive");
    api.remove(&[vm, provider]).await;
    server.assert_no_trace().await;
}

async fn a_call_that_was_given_up_is_not_begun(world: &World) {
    let api = world.api().await;
    let code = "import fs from 'node:fs';
        import process from 'node:process';
        export const busy = (ms) => { const end = Date.now() + ms; while (Date.now() < end); return ms; };
        export const send = () => fs.appendFileSync('/workspace/sent.txt', `${process.pid}\\n`);";
    let exports = [
        export("busy", &[("ms", json!({"type": "integer"}))], json!({"type": "integer"})),
        export("send", &[], json!({})),
    ];
    for (sdk, path) in [(javascript(code, &exports), "sdk/small.mjs"), (typescript(code, &exports), "sdk/small.ts")] {
        let provider = sdk.provide(&api, json!({"memMb": 512})).await;
        let vm = consumer(&api, &[link("small", &provider)]).await;
        let program = format!(
            "import {{ call }} from 'file:///workspace/.rds/peer-runtime.mjs';
             const small = (name, args, timeoutMs) => call('small', '/workspace/{path}', name, args, {{ timeoutMs }});
             await small('send', [], 60000);
             const busy = small('busy', [15000], 60000);
             await new Promise((wake) => setTimeout(wake, 500));
             const told = (call) => call.then(() => 200, (error) => error.status);
             const sent = await Promise.all(Array.from({{ length: 5 }}, () => told(small('send', [], 1000))));
             result.set([[...new Set(sent)], await busy]);"
        );
        assert_eq!(node(&api, &vm, &program).await, json!([[504], 15_000]), "{path}");
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        // By the process that was busy.
        let sent = api.sh(&provider, "grep -c \"^$(head -n 1 sent.txt)$\" sent.txt").await;
        assert_eq!(sent, "1", "{path}: {}", api.sh(&provider, "cat sent.txt").await);
        for vm in [vm, provider] {
            api.delete(&format!("/v1/vms/{vm}")).await.status(204);
        }
    }
}
