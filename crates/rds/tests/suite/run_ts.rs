//! `/v1/vms/{id}/run-ts`: TypeScript under Deno.

use serde_json::{Value, json};

use crate::harness::{Api, World, cases};

cases![
    results_are_the_true_values,
    an_error_is_an_object_and_a_bad_end,
    what_was_set_before_an_exit_is_kept,
    inline_code_is_a_module,
    a_file_of_the_workspace_runs_where_it_lies,
    paths_outside_the_workspace_are_refused,
    arguments_variables_and_flags_arrive,
    deno_reads_and_writes_what_it_may,
    output_has_no_colours,
    a_time_limit_ends_a_program,
    senseless_requests_are_refused,
];

async fn run(api: &Api, vm: &str, body: Value) -> Value {
    api.post(&format!("/v1/vms/{vm}/run-ts"), &body).await.ok().json()
}

async fn code(api: &Api, vm: &str, code: &str) -> Value {
    run(api, vm, json!({ "code": code })).await
}

async fn results_are_the_true_values(world: &World) {
    let (api, vm) = world.vm().await;
    let reply = code(
        &api,
        vm,
        "const cycle: any = { a: 1 }; cycle.self = cycle;
         result.set({ text: 'é', list: [1, null, true], big: 12345678901234567890n, cycle, none: undefined });
         console.log('out'); console.error('err');",
    )
    .await;
    assert_eq!(reply["exitCode"], 0, "{reply}");
    let wanted = json!({"text": "é", "list": [1, null, true], "big": "12345678901234567890",
        "cycle": {"a": 1, "self": "[Circular]"}});
    assert_eq!(reply["result"], wanted);
    assert_eq!((&reply["stdout"], &reply["stderr"]), (&json!("out\n"), &json!("err\n")));
    assert!(reply.get("error").is_none());
    let reply = code(&api, vm, "result.set(1); result.set(null)").await;
    assert!(reply.get("result").is_some_and(Value::is_null), "null is a value: {reply}");
    let reply = code(&api, vm, "const x: number = 1; console.log(x)").await;
    assert!(reply.get("result").is_none(), "{reply}");
}

async fn an_error_is_an_object_and_a_bad_end(world: &World) {
    let (api, vm) = world.vm().await;
    let reply = code(&api, vm, "result.error(new TypeError('bad'))").await;
    assert_ne!(reply["exitCode"], 0);
    assert_eq!((&reply["error"]["name"], &reply["error"]["message"]), (&json!("TypeError"), &json!("bad")));
    let reply = code(&api, vm, "result.error('words')").await;
    assert_eq!((&reply["error"]["name"], &reply["error"]["message"]), (&json!("Error"), &json!("words")));
    let reply = code(&api, vm, "result.error({ code: 7, why: ['x'] })").await;
    assert_eq!(reply["error"], json!({"code": 7, "why": ["x"]}));
    let reply = code(&api, vm, "result.set(1); throw new RangeError('thrown')").await;
    assert_ne!(reply["exitCode"], 0);
    assert_eq!((&reply["error"]["name"], &reply["error"]["message"]), (&json!("RangeError"), &json!("thrown")));
    let reply = code(&api, vm, "await Promise.reject(new Error('rejected'))").await;
    assert_eq!(reply["error"]["message"], "rejected");
    let reply = code(&api, vm, "this is no program").await;
    assert_ne!(reply["exitCode"], 0);
    assert!(!reply["stderr"].as_str().expect("text").is_empty());
}

async fn what_was_set_before_an_exit_is_kept(world: &World) {
    let (api, vm) = world.vm().await;
    let reply = code(&api, vm, "result.set({ kept: true }); Deno.exit(4)").await;
    assert_eq!((&reply["exitCode"], &reply["result"]), (&json!(4), &json!({"kept": true})));
}

async fn inline_code_is_a_module(world: &World) {
    let (api, vm) = world.vm().await;
    api.sh(vm, "mkdir -p ts && echo 'export const n: number = 41;' > ts/lib.ts").await;
    let reply = code(
        &api,
        vm,
        "console.log(Deno.cwd());
         import { n } from './ts/lib.ts';
         import { basename } from 'node:path';
         const more = await Promise.resolve(1);
         result.set([n + more, basename('/a/b')]);",
    )
    .await;
    assert_eq!((&reply["result"], &reply["stdout"]), (&json!([42, "b"]), &json!("/workspace\n")), "{reply}");
    let reply = code(&api, vm, "const result = 5; console.log(result); export {};").await;
    assert_eq!((&reply["exitCode"], &reply["stdout"]), (&json!(0), &json!("5\n")), "{reply}");
}

async fn a_file_of_the_workspace_runs_where_it_lies(world: &World) {
    let (api, vm) = world.vm().await;
    api.sh(vm, "mkdir -p ts/app && echo 'result.set(Deno.cwd())' > ts/app/main.ts").await;
    for path in ["/workspace/ts/app/main.ts", "ts/app/main.ts", "./ts/app/main.ts"] {
        let reply = run(&api, vm, json!({"path": path, "code": "throw 'path wins'"})).await;
        assert_eq!(reply["result"], "/workspace/ts/app", "{path}: {reply}");
    }
    let missing = api.post(&format!("/v1/vms/{vm}/run-ts"), &json!({"path": "/workspace/none.ts"})).await;
    let failed = matches!(missing.status, 400 | 404) || missing.json()["exitCode"] != 0;
    assert!(failed, "{missing:?}");
}

async fn paths_outside_the_workspace_are_refused(world: &World) {
    let (api, vm) = world.vm().await;
    for call in ["run-ts", "run-js"] {
        for path in [
            "/home/user/a.ts",
            "/etc/passwd",
            "../etc/passwd",
            "/workspace/../etc/passwd",
            "/workspacex/a.ts",
            "/",
            "",
            "/workspace/a\0.ts",
            "~/a.ts/../../x",
            "file:///workspace/a.ts",
            "https://example.org/a.ts",
        ] {
            let reply = api.post(&format!("/v1/vms/{vm}/{call}"), &json!({ "path": path })).await;
            let harmless = path.contains("://") || path.starts_with('~');
            let refused = reply.status == 400 || (harmless && (reply.status == 404 || reply.json()["exitCode"] != 0));
            assert!(refused, "{call} {path:?}: {reply:?}");
        }
    }
}

async fn arguments_variables_and_flags_arrive(world: &World) {
    let (api, vm) = world.vm().await;
    let body = json!({
        "code": "result.set([Deno.args, Deno.env.get('A'), Deno.env.get('MISSING') ?? null, Deno.env.get('HOME')])",
        "args": ["--x", "a b", ""], "env": ["A=b=c"], "denoFlags": ["--no-check"],
    });
    let reply = run(&api, vm, body).await;
    assert_eq!(reply["result"], json!([["--x", "a b", ""], "b=c", null, "/home/user"]), "{reply}");
    let names = code(&api, vm, "result.set(Object.keys(Deno.env.toObject()).sort())").await;
    let names = names["result"].to_string();
    assert!(names.contains("HOME") && !names.contains("RDS"), "{names}");
}

async fn deno_reads_and_writes_what_it_may(world: &World) {
    let (api, vm) = world.vm().await;
    let reply = code(
        &api,
        vm,
        "for (const dir of ['/workspace/deno-w', '/tmp/deno-w', '/var/tmp/deno-w']) {
           await Deno.mkdir(dir + '/a/b', { recursive: true });
           await Deno.writeTextFile(dir + '/a/b/f', 'x');
         }
         await Deno.readTextFile('/etc/hosts');
         const refused: string[] = [];
         for (const work of [
           () => Deno.readTextFile('/etc/passwd'),
           () => Deno.readTextFile('/home/user/deno-w/a/b/f'),
           () => Deno.writeTextFile('/etc/x', 'x'),
           () => Deno.readDir('/proc')[Symbol.asyncIterator]().next(),
           () => new Deno.Command('id').output(),
         ]) {
           try { await work(); refused.push('done'); } catch (e) { refused.push((e as Error).name); }
         }
         result.set(refused);",
    )
    .await;
    assert_eq!(reply["exitCode"], 0, "{reply}");
    let outcomes = reply["result"].as_array().expect("a list");
    assert!(outcomes.iter().all(|outcome| outcome != "done"), "{reply}");
}

async fn output_has_no_colours(world: &World) {
    let (api, vm) = world.vm().await;
    let reply =
        code(&api, vm, "console.log('\\x1b[31mred\\x1b[0m', Deno.noColor); console.error('%cx', 'color: red')").await;
    assert_eq!(reply["stdout"], "red true\n", "{reply}");
    assert!(!reply["stderr"].as_str().expect("text").contains('\u{1b}'));
}

async fn a_time_limit_ends_a_program(world: &World) {
    let (api, vm) = world.vm().await;
    let body = json!({"code": "console.log('before'); console.error('\x1b]0;a title without end'); result.set(1); while (true) {}", "timeoutMs": 6000});
    let reply = run(&api, vm, body).await;
    assert_eq!((&reply["exitCode"], &reply["stdout"]), (&json!(-1), &json!("before\n")));
    assert!(reply["stderr"].as_str().expect("text").trim_end().ends_with("Timeout exceeded"), "{reply}");
}

async fn senseless_requests_are_refused(world: &World) {
    let (api, vm) = world.vm().await;
    for (call, flags) in [("run-ts", "denoFlags"), ("run-js", "nodeFlags")] {
        let path = format!("/v1/vms/{vm}/{call}");
        for body in [
            json!({}),
            json!({"code": null}),
            json!({"code": 1}),
            json!({"code": "1", "timeoutMs": 120_001}),
            json!({"code": "1", "timeoutMs": 0}),
            json!({"code": "1", "env": {"A": "1"}}),
            json!({"code": "1", "env": ["A"]}),
            json!({"code": "1", "env": ["=x"]}),
            json!({"code": "1", "env": ["A\0=x"]}),
            json!({"code": "1", "args": "x"}),
            json!({"code": "1", "args": ["a\0b"]}),
            json!({"code": "1", "args": [1]}),
            json!({"code": "1", flags: "x"}),
            json!({"path": 1}),
        ] {
            let reply = api.post(&path, &body).await;
            assert_eq!(reply.status, 400, "{call} {body}: {reply:?}");
        }
    }
}
