//! A provider that does its worst: a clear error, a manager whose memory stays bounded, and consumers that are not harmed.

use serde_json::{Value, json};

use super::sdk::{Sdk, export, javascript, typescript};
use super::stage::{consumer, deno, invoke, link, node, stage, token};
use crate::harness::{Api, World, cases, processes};

cases![
    results_that_are_too_large_are_refused,
    garbage_among_the_messages_fails_the_calls_in_flight_alone,
    what_modules_print_is_for_nobody,
    secrets_are_struck_out_in_every_form,
    names_and_texts_of_a_manifest_stay_texts,
    an_error_may_be_anything,
];

/// Bytes that the manager may grow by under an attack.
const GROWTH: u64 = 96 * 1024 * 1024;

/// A provider of one module, a consumer that calls it, and the way to do so.
struct Pair {
    api: Api,
    anonymous: Api,
    provider: String,
    consumer: String,
    token: String,
    module: &'static str,
}

impl Pair {
    async fn new(world: &World, sdk: Sdk, module: &'static str, wish: Value) -> Self {
        let api = world.api().await;
        let provider = sdk.provide(&api, wish).await;
        let consumer = consumer(&api, &[link("bad", &provider)]).await;
        let token = token(&api, &consumer).await;
        Self { api, anonymous: world.server().await.anonymous(), provider, consumer, token, module }
    }

    async fn call(&self, export: &str, args: Value) -> (u16, Value) {
        let body =
            json!({"alias": "bad", "modulePath": self.module, "exportName": export, "args": args, "timeoutMs": 60_000});
        let reply = invoke(&self.anonymous, &self.token, &body).await;
        (reply.status, reply.json())
    }

    async fn remove(self) {
        for vm in [&self.consumer, &self.provider] {
            self.api.delete(&format!("/v1/vms/{vm}")).await.status(204);
        }
    }
}

async fn results_that_are_too_large_are_refused(world: &World) {
    // Valid in both languages.
    let code = "export const text = (...[length]) => 'x'.repeat(length);
        export const list = (...[length]) => Array(length).fill(0);
        export const deep = (...[depth]) => JSON.parse('['.repeat(depth) + ']'.repeat(depth));
        export const error = (...[length]) => { throw new Error('e'.repeat(length)); };
        export const fine = () => 1;";
    let number = [("n", json!({"type": "integer"}))];
    let exports = ["text", "list", "deep", "error"].map(|name| export(name, &number, json!({})));
    let exports = [&exports[..], &[export("fine", &[], json!({}))]].concat();
    for (sdk, module) in [
        (javascript(code, &exports), "/workspace/sdk/small.mjs"),
        (typescript(code, &exports), "/workspace/sdk/small.ts"),
    ] {
        let pair = Pair::new(world, sdk, module, json!({"memMb": 1024})).await;
        let pid = world.server().await.pid();
        assert_eq!(pair.call("fine", json!([])).await.0, 200);
        let before = processes::resident_bytes(pid);
        for (export, size) in
            [("text", 100_000_000), ("text", 5_000_000), ("list", 2_200_000), ("deep", 10_000), ("deep", 100)]
        {
            let (status, body) = pair.call(export, json!([size])).await;
            assert_eq!(status, 502, "{export} {size}: {body}");
            assert_eq!(pair.call("fine", json!([])).await.0, 200, "after {export} {size}");
        }
        let (status, body) = pair.call("error", json!([100_000_000])).await;
        assert_eq!(status, 502);
        assert!(body["message"].as_str().is_some_and(|message| message.len() < 100_000), "a bounded message");
        assert_eq!(pair.call("text", json!([3_000_000])).await.0, 200, "a large result is still a result");
        let after = processes::resident_bytes(pid);
        assert!(after < before + GROWTH, "{before} bytes became {after}");
        pair.remove().await;
    }
}

async fn garbage_among_the_messages_fails_the_calls_in_flight_alone(world: &World) {
    let code = "import fs from 'node:fs';
        const message = (value) => { const text = Buffer.from(JSON.stringify(value)); const head = Buffer.alloc(4); head.writeUInt32BE(text.length); return Buffer.concat([head, text]); };
        const forms = {
          noise: () => Buffer.from('console.log from C, say'),
          huge: () => Buffer.from([0xff, 0xff, 0xff, 0xff]),
          cut: () => Buffer.from([0, 0, 0, 9, 0x7b]),
          empty: () => message({}),
          unknown: () => message({ type: 'surprise' }),
          strange: () => message({ type: 'result', id: 10 ** 15, value: 1 }),
          flood: () => Buffer.alloc(8 << 20),
        };
        export const garbage = async (form) => { fs.writeSync(1, forms[form]()); await new Promise((wake) => setTimeout(wake, form === 'strange' ? 500 : 20000)); return 'written'; };
        export const close = async () => { fs.closeSync(1); return 'closed'; };
        export const fine = () => 1;";
    let exports = [
        export("garbage", &[("form", json!({}))], json!({})),
        export("close", &[], json!({})),
        export("fine", &[], json!({})),
    ];
    let pair = Pair::new(world, javascript(code, &exports), "/workspace/sdk/small.mjs", json!({})).await;
    for form in ["noise", "huge", "cut", "empty", "unknown", "strange", "flood"] {
        let (status, body) =
            tokio::time::timeout(std::time::Duration::from_secs(40), pair.call("garbage", json!([form])))
                .await
                .expect("an answer");
        let expected = match form {
            // The rest of it may come.
            "cut" => status == 502 || status == 200,
            // Nobody waits for it.
            "strange" => status == 200,
            _ => status == 502,
        };
        assert!(expected, "{form}: {status} {body}");
        assert_eq!(pair.call("fine", json!([])).await, (200, json!({"result": 1})), "after {form}");
    }
    assert_eq!(pair.call("close", json!([])).await.0, 502);
    assert_eq!(pair.call("fine", json!([])).await, (200, json!({"result": 1})), "after close");
    pair.remove().await;
}

async fn what_modules_print_is_for_nobody(world: &World) {
    // The label is a message that would answer the first call.
    let code = r#"import process from 'node:process';
        console.log('at load');
        const text = new TextEncoder().encode('text');
        const label = '\0\0\0\x25{"type":"result","id":0,"value":"no"}';
        const ways = {
          methods: () => {
            for (const name of ['log', 'info', 'debug', 'warn', 'error', 'trace', 'dir', 'dirxml', 'table', 'count', 'time',
              'timeLog', 'timeEnd', 'group', 'groupCollapsed', 'groupEnd', 'countReset', 'timeStamp']) console[name]?.(label);
            console.assert(false, label);
            console.clear();
          },
          stream: () => { process.stdout.write('text'); process.stdout.end('text'); },
          deno: async () => {
            if (!globalThis.Deno) return;
            await Deno.stdout.write(text);
            Deno.stdout.writeSync(text);
            await new Response(text).body.pipeTo(Deno.stdout.writable);
          },
        };
        export const print = async (way) => { await ways[way](); await new Promise((wake) => setTimeout(wake, 100)); return 'done'; };
        export const noisy = () => {
          for (let n = 0; n < 200; n++) { console.log('l'.repeat(100000)); console.error('e'.repeat(100000)); }
          return 'done';
        };"#;
    let exports = [export("noisy", &[], json!({})), export("print", &[("way", json!({}))], json!({}))];
    for (sdk, module) in [
        (javascript(code, &exports), "/workspace/sdk/small.mjs"),
        (typescript(code, &exports), "/workspace/sdk/small.ts"),
    ] {
        let pair = Pair::new(world, sdk, module, json!({"memMb": 512})).await;
        let done = (200, json!({"result": "done"}));
        assert_eq!(pair.call("print", json!(["methods"])).await, done, "{module}");
        assert_eq!(pair.call("noisy", json!([])).await, done, "{module}");
        for way in ["deno", "stream"] {
            assert_eq!(pair.call("print", json!([way])).await, done, "{module}: {way}");
        }
        for log in ["serial.log", "vmm.log"] {
            let lines = pair.api.get(&format!("/v1/vms/{}/logs?type={log}&tail=1000", pair.provider)).await.ok();
            assert!(!String::from_utf8_lossy(&lines.body).contains("llllllll"), "{log}");
        }
        pair.remove().await;
    }
}

async fn secrets_are_struck_out_in_every_form(world: &World) {
    let secret = r#"pa55/+ "wörd"\n~tail"#;
    let code = r#"
        const s = process.env.KEY;
        const bytes = Buffer.from(s);
        const hex = (text, map) => [...Buffer.from(text)].map(map).join('');
        const forms = {
          raw: () => s,
          inside: () => `token=${s}; path=/`,
          base64: () => bytes.toString('base64'),
          basic: () => Buffer.from(`user:${s}`).toString('base64'),
          base64url: () => bytes.toString('base64url'),
          hex: () => bytes.toString('hex'),
          HEX: () => bytes.toString('hex').toUpperCase(),
          url: () => encodeURIComponent(s),
          urlAll: () => hex(s, (byte) => '%' + byte.toString(16).padStart(2, '0')),
          twice: () => encodeURIComponent(encodeURIComponent(s)),
          form: () => new URLSearchParams({ s }).toString(),
          json: () => JSON.stringify({ s }),
          jsonTwice: () => JSON.stringify(JSON.stringify({ s })),
          unicode: () => [...s].map((c) => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0')).join(''),
          escaped: () => hex(s, (byte) => '\\x' + byte.toString(16).padStart(2, '0')),
          bytes: () => [...bytes],
          key: () => ({ [s]: 1 }),
          nested: () => [{ a: [{ b: s }] }],
          buffer: () => bytes.toJSON(),
        };
        export const names = () => Object.keys(forms);
        export const give = (form) => forms[form]();
        export const throwIt = (form) => { const given = forms[form](); const text = typeof given === 'string' ? given : form === 'bytes' ? String(given) : JSON.stringify(given); throw Object.assign(new Error(text), { name: text }); };
        export const wrong = (form) => forms[form]();
        export const late = (before) => { const text = 'x'.repeat(before) + s + ' more'; throw Object.assign(new Error(text), { name: text }); };
        export const length = () => s.length;"#;
    let form = [("form", json!({"type": "string"}))];
    let before = [("before", json!({"type": "integer"}))];
    let exports = [
        export("names", &[], json!({})),
        export("give", &form, json!({})),
        export("throwIt", &form, json!({})),
        export(
            "wrong",
            &form,
            json!({"type": "object", "additionalProperties": false, "properties": {"length": {"type": "integer"}}}),
        ),
        export("late", &before, json!({})),
        export("length", &[], json!({})),
    ];
    let wish = json!({"secretEnv": [format!("KEY={secret}")]});
    let pair = Pair::new(world, javascript(code, &exports), "/workspace/sdk/small.mjs", wish).await;
    assert_eq!(pair.call("length", json!([])).await.1["result"], secret.encode_utf16().count());
    let names = pair.call("names", json!([])).await.1["result"].clone();
    let mut strikes = 0;
    for name in names.as_array().expect("names") {
        for (export, wanted) in [("give", 200), ("throwIt", 502), ("wrong", 502)] {
            let (status, body) = pair.call(export, json!([name])).await;
            assert_eq!(status, wanted, "{export} {name}: {body}");
            let told = body.to_string();
            if export != "wrong" {
                assert!(told.contains("[redacted]"), "{export} {name}: {told}");
                strikes += 1;
            }
            for part in ["pa55", "w\u{f6}rd", "70613535", "cGE1NS", "~tail", "7461696c", "dGFpb", "%70%61"] {
                assert!(!told.contains(part), "{export} {name}: {part} in {told}");
            }
        }
    }
    // Wherever a long error is cut, it is not within a secret that stands there by the caller's choice.
    for before in [4 << 10, 16 << 10, 64 << 10, 256 << 10].map(|cut| cut - 4) {
        let (status, body) = pair.call("late", json!([before])).await;
        assert_eq!(status, 502, "{before}: {body}");
        assert!(!body.to_string().contains("pa5"), "{before}");
    }
    let page = pair.api.get(&format!("/v1/audit?consumer={}&limit=1000", pair.consumer)).await.ok().json();
    let struck =
        page["entries"].as_array().expect("a list").iter().filter(|entry| entry["strikes"].as_u64() > Some(0)).count();
    assert!(struck >= strikes, "{struck} of {strikes} are in the audit log");
    pair.remove().await;
}

async fn names_and_texts_of_a_manifest_stay_texts(world: &World) {
    let evil = "*/ globalThis.pwned = 1; /* ${globalThis.pwned = 2} ` \" ' \\ </script> \u{2028} --> [x](javascript:1)\n# Heading\n```\n\u{202e}";
    let schema = json!({"description": evil, "enum": [evil, "\"; globalThis.pwned = 3; \""], "title": evil});
    let mut bad = export(
        "give",
        &[("p */ globalThis.pwned = 4 //", schema.clone()), ("class", json!({})), ("$call", json!({}))],
        schema,
    );
    bad["description"] = json!(evil);
    bad["params"][0]["description"] = json!(evil);
    bad["returns"]["description"] = json!(evil);
    bad["examples"] = json!([{"description": evil, "code": evil}, {"description": "", "code": "````\n~~~~"}]);
    let code = "export const give = (value) => value;";
    let mut sdk = Sdk::new("E");
    let paths = ["sdk/q'uo\"te`${globalThis.pwned=5}.mjs", "sdk/ä #?%41;--.ts", "sdk/$&*().mjs"];
    for path in paths {
        sdk = sdk.module(path, code, std::slice::from_ref(&bad));
    }
    let sdk = sdk.named("E */ globalThis.pwned = 6; /*", evil);
    let pair = Pair::new(world, sdk, "", json!({"memMb": 512})).await;
    let files = pair.api.sh(&pair.consumer, "cd peers/bad/proxy && find . -type f -name '*s' | sort").await;
    assert!(paths.iter().all(|path| files.contains(path)), "{files}");
    let program = "
        const walk = async (list, dir) => { const found = []; for (const entry of await list(dir)) found.push(entry); return found; };
        const { readdirSync } = await import('node:fs');
        const { pathToFileURL } = await import('node:url');
        const given = [];
        for (const name of readdirSync('/workspace/peers/bad/proxy/sdk')) {
          if (name.endsWith('.d.mts')) continue;
          const proxy = await import(pathToFileURL(`/workspace/peers/bad/proxy/sdk/${name}`).href);
          given.push(await proxy.give('\"; globalThis.pwned = 3; \"'));
          given.push(await proxy.give('else').catch((error) => error.status));
        }
        result.set([given, globalThis.pwned ?? null]);";
    let value = "\"; globalThis.pwned = 3; \"";
    let wanted = json!([[value, 400, value, 400, value, 400], null]);
    assert_eq!(node(&pair.api, &pair.consumer, program).await, wanted);
    assert_eq!(deno(&pair.api, &pair.consumer, program).await, wanted);
    let readme = pair.api.sh(&pair.consumer, "cat peers/bad/README.md").await;
    assert!(!readme.contains('\u{202e}'), "{readme}");
    let mut fence = None;
    for line in readme.lines() {
        match &fence {
            Some(open) if line == open => fence = None,
            Some(_) => {}
            None if line.starts_with("```") => {
                fence = Some(line.trim_end_matches(|c: char| c.is_ascii_alphabetic()).to_owned());
            }
            None => assert!(
                !line.starts_with("# Heading") && (!line.contains("[x](javascript") || line.contains('`')),
                "{line}"
            ),
        }
    }
    assert_eq!(fence, None, "every block of code ends");
    pair.remove().await;
}

async fn an_error_may_be_anything(world: &World) {
    let stage = stage(world).await;
    let _ = &stage.provider;
    let code = "const things = {
          nothing: undefined, nil: null, text: 'words', number: 7, object: { code: 'E', status: 418 }, list: [1],
          proxy: new Proxy({}, { get() { throw new Error('trap'); } }),
          getter: Object.defineProperty(new Error(''), 'message', { get() { throw new Error('inner'); } }),
          cycle: (() => { const e = {}; e.e = e; return e; })(),
          symbol: Symbol('s'), big: 10n, fn: () => 1, lone: new Error('\\ud800'), empty: new Error(),
          long: Object.assign(new Error('x'), { name: 'N'.repeat(100000) }),
        };
        export const throwIt = (name) => { throw things[name]; };
        export const reject = async (name) => await Promise.reject(things[name]);
        export const names = () => Object.keys(things);";
    let name = [("name", json!({}))];
    let exports =
        [export("throwIt", &name, json!({})), export("reject", &name, json!({})), export("names", &[], json!({}))];
    let pair = Pair::new(world, javascript(code, &exports), "/workspace/sdk/small.mjs", json!({})).await;
    let names = pair.call("names", json!([])).await.1["result"].clone();
    for name in names.as_array().expect("names") {
        for export in ["throwIt", "reject"] {
            let (status, body) = pair.call(export, json!([name])).await;
            assert_eq!((status, &body["code"]), (502, &json!("peer_threw")), "{export} {name}: {body}");
            assert!(
                body["name"].as_str().is_some_and(|name| !name.is_empty() && name.len() < 20_000),
                "{name}: {body}"
            );
        }
    }
    assert_eq!(pair.call("throwIt", json!(["text"])).await.1["message"], "words");
    pair.remove().await;
}
