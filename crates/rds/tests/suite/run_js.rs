//! `/v1/vms/{id}/run-js`: JavaScript under Node.js.

use serde_json::{Value, json};

use crate::harness::{Api, World, cases};

cases![
    both_kinds_of_modules_run_inline,
    results_and_errors_are_told,
    numbers_are_the_same_to_the_last_digit,
    what_was_set_before_an_exit_is_kept,
    a_file_runs_where_it_lies,
    arguments_variables_and_flags_arrive,
    colours_are_kept,
    a_time_limit_ends_a_program,
];

async fn run(api: &Api, vm: &str, body: Value) -> Value {
    api.post(&format!("/v1/vms/{vm}/run-js"), &body).await.ok().json()
}

async fn code(api: &Api, vm: &str, code: &str) -> Value {
    run(api, vm, json!({ "code": code })).await
}

async fn both_kinds_of_modules_run_inline(world: &World) {
    let (api, vm) = world.vm().await;
    api.sh(vm, "mkdir -p js && echo 'module.exports = { n: 40 }' > js/c.cjs && echo 'export const n = 2' > js/e.mjs")
        .await;
    let reply = code(
        &api,
        vm,
        "const { n } = require('./js/c.cjs'); const p = require('path'); result.set([n, p.basename('/a/b')])",
    )
    .await;
    assert_eq!(reply["result"], json!([40, "b"]), "{reply}");
    let reply = code(
        &api,
        vm,
        "console.log(process.cwd());\nimport { n } from './js/e.mjs';\nresult.set(await Promise.resolve(n));",
    )
    .await;
    assert_eq!((&reply["result"], &reply["stdout"]), (&json!(2), &json!("/workspace\n")), "{reply}");
    let reply =
        code(&api, vm, "import fs from 'node:fs'; const result = fs.existsSync('/workspace'); console.log(result)")
            .await;
    assert_eq!((&reply["exitCode"], &reply["stdout"]), (&json!(0), &json!("true\n")), "{reply}");
    let reply = code(&api, vm, "const result = 5; console.log(result)").await;
    assert_eq!((&reply["exitCode"], &reply["stdout"]), (&json!(0), &json!("5\n")), "{reply}");
}

async fn results_and_errors_are_told(world: &World) {
    let (api, vm) = world.vm().await;
    let reply = code(&api, vm, "const c = {}; c.c = c; result.set({ c, big: 10n, list: [null] })").await;
    assert_eq!(reply["result"], json!({"c": {"c": "[Circular]"}, "big": "10", "list": [null]}), "{reply}");
    for (program, name, message) in [
        ("result.error(new TypeError('bad'))", "TypeError", "bad"),
        ("result.error('words')", "Error", "words"),
        ("throw new RangeError('thrown')", "RangeError", "thrown"),
        ("Promise.reject(new Error('rejected'))", "Error", "rejected"),
        ("setTimeout(() => { throw new Error('later') }, 10)", "Error", "later"),
    ] {
        let reply = code(&api, vm, program).await;
        assert_ne!(reply["exitCode"], 0, "{program}");
        assert_eq!((&reply["error"]["name"], &reply["error"]["message"]), (&json!(name), &json!(message)), "{program}");
    }
    let reply = code(&api, vm, "result.error({ code: 7 })").await;
    assert_eq!(reply["error"], json!({"code": 7}));
    let reply = code(&api, vm, "console.log(1)").await;
    assert!(reply.get("result").is_none() && reply.get("error").is_none(), "{reply}");
}

/// A reader of decimals that is not exact changes one in ten of these in the last place.
async fn numbers_are_the_same_to_the_last_digit(world: &World) {
    let (api, vm) = world.vm().await;
    let program = "let n = 1;
        const list = [0.9041346886354059, ...Array.from({ length: 300 }, () => { n = n * 48271 % 2147483647; return 0.1 + n / 2147483647 * 0.9; })];
        const text = JSON.stringify(list);
        result.set({ list, text });
        result.error({ list });";
    let reply = api.post(&format!("/v1/vms/{vm}/run-js"), &json!({ "code": program })).await.ok();
    let read = reply.json();
    let text = read["result"]["text"].as_str().expect("text");
    assert!(text.starts_with("[0.9041346886354059,"), "{text}");
    let told = String::from_utf8_lossy(&reply.body);
    assert_eq!(told.matches(&format!("\"list\":{text}")).count(), 2, "{told} has not twice {text}");
}

async fn what_was_set_before_an_exit_is_kept(world: &World) {
    let (api, vm) = world.vm().await;
    let reply = code(&api, vm, "result.set({ kept: true }); process.exit(4)").await;
    assert_eq!((&reply["exitCode"], &reply["result"]), (&json!(4), &json!({"kept": true})));
}

async fn a_file_runs_where_it_lies(world: &World) {
    let (api, vm) = world.vm().await;
    api.sh(vm, "mkdir -p js/app && echo 'result.set(process.cwd())' | tee js/app/m.mjs js/app/m.cjs > js/app/m.js")
        .await;
    for file in ["m.js", "m.cjs", "m.mjs"] {
        let reply = run(&api, vm, json!({"path": format!("js/app/{file}")})).await;
        assert_eq!(reply["result"], "/workspace/js/app", "{file}: {reply}");
    }
}

async fn arguments_variables_and_flags_arrive(world: &World) {
    let (api, vm) = world.vm().await;
    let body = json!({
        "code": "result.set([process.argv.slice(2), process.env.A, process.env.MISSING ?? null, process.execArgv.includes('--no-warnings')])",
        "args": ["--x", "a b"], "env": ["A=b=c"], "nodeFlags": ["--no-warnings"],
    });
    let reply = run(&api, vm, body).await;
    assert_eq!(reply["result"], json!([["--x", "a b"], "b=c", null, true]), "{reply}");
    let reply = code(&api, vm, "result.set(Object.keys(process.env).sort())").await;
    let names = reply["result"].to_string();
    assert!(names.contains("HOME") && !names.contains("RDS"), "{names}");
}

async fn colours_are_kept(world: &World) {
    let (api, vm) = world.vm().await;
    assert_eq!(code(&api, vm, "console.log('\\x1b[31mred\\x1b[0m')").await["stdout"], "\u{1b}[31mred\u{1b}[0m\n");
}

async fn a_time_limit_ends_a_program(world: &World) {
    let (api, vm) = world.vm().await;
    let reply = run(&api, vm, json!({"code": "console.log('before'); while (true) {}", "timeoutMs": 4000})).await;
    assert_eq!((&reply["exitCode"], &reply["stdout"]), (&json!(-1), &json!("before\n")));
    assert!(reply["stderr"].as_str().expect("text").trim_end().ends_with("Timeout exceeded"), "{reply}");
}
