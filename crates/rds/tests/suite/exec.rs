//! `/v1/vms/{id}/exec`: shell commands, who runs them, and with what around them.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Api, World, cases};

cases![
    a_command_that_fails_is_a_200,
    commands_run_as_the_user_in_the_workspace,
    the_environment_is_minimal_and_the_calls_own,
    senseless_requests_are_refused,
    the_working_directory_is_the_calls,
    a_time_limit_ends_everything_that_was_started,
    output_is_kept_to_its_limit,
    bytes_that_are_no_text_are_replaced,
    standard_input_is_at_its_end,
    what_runs_on_is_not_waited_for,
    the_promised_programs_are_there,
    the_workspace_and_home_are_one_place,
    fifty_commands_at_once,
    every_run_is_written_down_without_values,
    a_run_whose_client_goes_is_written_down,
    a_large_result_is_left_out_of_the_log,
    the_guests_own_duration_is_told,
];

async fn a_command_that_fails_is_a_200(world: &World) {
    let (api, vm) = world.vm().await;
    let reply = api.exec(vm, "echo out; echo err >&2; exit 3").await;
    assert_eq!((&reply["exitCode"], &reply["stdout"], &reply["stderr"]), (&json!(3), &json!("out\n"), &json!("err\n")));
    assert_eq!(reply["truncated"], json!(false));
    assert_eq!(api.exec(vm, "nonexistent-program").await["exitCode"], 127);
    assert_eq!(api.exec(vm, "kill -9 $$").await["exitCode"], 137);
    assert_ne!(api.exec(vm, "if then").await["exitCode"], 0);
    assert_eq!(api.exec(vm, "a=1\nb=2\necho $((a+b))").await["stdout"], "3\n");
}

async fn commands_run_as_the_user_in_the_workspace(world: &World) {
    let (api, vm) = world.vm().await;
    assert_eq!(api.sh(vm, "id -u; id -g; id -un; id -G; pwd").await, "1000\n1000\nuser\n1000\n/workspace");
    assert_eq!(api.sh(vm, "touch /tmp/x /var/tmp/x && echo ok").await, "ok");
    assert_ne!(api.exec(vm, "touch /etc/x").await["exitCode"], 0);
    assert_ne!(api.exec(vm, "touch /x").await["exitCode"], 0);
}

async fn the_environment_is_minimal_and_the_calls_own(world: &World) {
    let (api, vm) = world.vm().await;
    let names = api.sh(vm, "env | cut -d= -f1 | grep -v -e ^_$ -e ^PWD$ -e ^SHLVL$ -e ^OLDPWD$ | sort").await;
    assert_eq!(names, "HOME\nLANG\nPATH\nSHELL\nTMPDIR\nUSER");
    let values = api.sh(vm, "echo $HOME $USER").await;
    assert_eq!(values, "/home/user user");
    let body = json!({"cmd": "printf '%s|%s|%s' \"$A\" \"$EMPTY\" \"$HOME\"",
        "env": {"A": "a b\n\"c\" é", "EMPTY": "", "HOME": "/tmp"}});
    assert_eq!(api.exec_with(vm, body).await["stdout"], "a b\n\"c\" é||/tmp");
    assert_eq!(api.sh(vm, "echo \"${A-unset}\"").await, "unset", "a variable outlived its call");
}

async fn senseless_requests_are_refused(world: &World) {
    let (api, vm) = world.vm().await;
    let path = format!("/v1/vms/{vm}/exec");
    for body in [
        json!({}),
        json!({"cmd": ""}),
        json!({"cmd": null}),
        json!({"cmd": ["ls"]}),
        json!({"cmd": "a\0b"}),
        json!({"cmd": "true", "env": []}),
        json!({"cmd": "true", "env": {"A": 1}}),
        json!({"cmd": "true", "env": "A=1"}),
        json!({"cmd": "true", "env": {"": "x"}}),
        json!({"cmd": "true", "env": {"A=B": "x"}}),
        json!({"cmd": "true", "env": {"A\0": "x"}}),
        json!({"cmd": "true", "env": {"A": "x\0y"}}),
        json!({"cmd": "true", "env": {"A\nB": "x"}}),
        json!({"cmd": "true", "cwd": 1}),
        json!({"cmd": "true", "cwd": "/a\0b"}),
        json!({"cmd": "true", "timeoutMs": 120_001}),
        json!({"cmd": "true", "timeoutMs": 0}),
        json!({"cmd": "true", "timeoutMs": -1}),
        json!({"cmd": "true", "timeoutMs": "1000"}),
        json!({"cmd": "true", "timeoutMs": 1e300}),
    ] {
        let reply = api.post(&path, &body).await;
        assert_eq!(reply.status, 400, "{body}: {reply:?}");
        let streamed = api.post(&format!("{path}/stream"), &body).await;
        assert_eq!(streamed.status, 400, "stream {body}: {streamed:?}");
    }
    api.post(&path, &json!({"cmd": "true", "timeoutMs": 120_000, "unknown": 1})).await.ok();
}

async fn the_working_directory_is_the_calls(world: &World) {
    let (api, vm) = world.vm().await;
    api.sh(vm, "mkdir -p exec-cwd/sub").await;
    for (cwd, seen) in [("/workspace/exec-cwd/sub", "/workspace/exec-cwd/sub"), ("/tmp", "/tmp"), ("/", "/")] {
        assert_eq!(api.exec_with(vm, json!({"cmd": "pwd", "cwd": cwd})).await["stdout"], format!("{seen}\n"));
    }
    let missing = api.post(&format!("/v1/vms/{vm}/exec"), &json!({"cmd": "pwd", "cwd": "/workspace/none"})).await;
    let failed = missing.status == 400 || (missing.status == 200 && missing.json()["exitCode"] != 0);
    assert!(failed, "{missing:?}");
}

async fn a_time_limit_ends_everything_that_was_started(world: &World) {
    let (api, vm) = world.vm().await;
    let begun = Instant::now();
    // A plain child, one in a session of its own, and one whose parents are gone.
    let cmd = "echo before; sleep 1111 & setsid sleep 1111 & (setsid sh -c '(sleep 1111 &) ; exit') & sleep 1111";
    let reply = api.exec_with(vm, json!({"cmd": cmd, "timeoutMs": 1500})).await;
    assert_eq!((&reply["exitCode"], &reply["stdout"]), (&json!(-1), &json!("before\n")));
    let stderr = reply["stderr"].as_str().expect("text").trim_end();
    assert!(stderr.ends_with("Timeout exceeded"), "{stderr}");
    assert!(begun.elapsed().as_secs() < 8, "it took {:?}", begun.elapsed());
    assert_eq!(api.exec(vm, "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'sleep 111[1]'").await["stdout"], "0\n");
    // A command that ignores what can be ignored.
    let reply =
        api.exec_with(vm, json!({"cmd": "trap '' TERM INT HUP; while :; do sleep 1; done", "timeoutMs": 1000})).await;
    assert_eq!(reply["exitCode"], -1);
}

async fn output_is_kept_to_its_limit(world: &World) {
    let (api, vm) = world.vm().await;
    let reply =
        api.exec(vm, "head -c 3000000 /dev/zero | tr '\\0' a; head -c 2000000 /dev/zero | tr '\\0' b >&2").await;
    assert_eq!(reply["exitCode"], 0);
    assert_eq!(reply["stdout"].as_str().map(str::len), Some(1_000_000));
    assert_eq!(reply["stderr"].as_str().map(str::len), Some(1_000_000));
    assert_eq!(reply["truncated"], true);
    let reply = api.exec(vm, "head -c 1000000 /dev/zero | tr '\\0' a").await;
    assert_eq!((reply["stdout"].as_str().map(str::len), &reply["truncated"]), (Some(1_000_000), &json!(false)));
}

async fn bytes_that_are_no_text_are_replaced(world: &World) {
    let (api, vm) = world.vm().await;
    assert_eq!(api.exec(vm, "printf 'a\\377b\\303\\251'").await["stdout"], "a\u{fffd}bé");
}

async fn standard_input_is_at_its_end(world: &World) {
    let (api, vm) = world.vm().await;
    assert_eq!(api.sh(vm, "cat; read x || echo end").await, "end");
}

async fn what_runs_on_is_not_waited_for(world: &World) {
    let (api, vm) = world.vm().await;
    let begun = Instant::now();
    let reply = api.exec(vm, "sleep 20 >/dev/null 2>&1 & echo started").await;
    assert_eq!(reply["stdout"], "started\n");
    assert!(begun.elapsed().as_secs() < 10, "it took {:?}", begun.elapsed());
}

async fn the_promised_programs_are_there(world: &World) {
    let (api, vm) = world.vm().await;
    for program in ["sh", "ls", "git", "node", "npm", "tar", "deno", "ip"] {
        assert!(!api.sh(vm, &format!("command -v {program}")).await.is_empty());
    }
    let cmd = "rm -rf npm-local && mkdir -p npm-local/lib npm-local/app && cd npm-local \
        && echo '{\"name\":\"lib\",\"version\":\"1.0.0\",\"main\":\"i.js\"}' > lib/package.json \
        && echo 'module.exports = 42' > lib/i.js && cd app && echo '{\"name\":\"app\",\"version\":\"1.0.0\"}' > package.json \
        && npm install --offline --no-audit --no-fund ../lib >/dev/null 2>&1 && node -e 'console.log(require(\"lib\"))'";
    let reply = api.exec_with(vm, json!({"cmd": cmd, "timeoutMs": 100_000})).await;
    assert_eq!((&reply["exitCode"], &reply["stdout"]), (&json!(0), &json!("42\n")), "{reply}");
}

async fn the_workspace_and_home_are_one_place(world: &World) {
    let (api, vm) = world.vm().await;
    assert_eq!(
        api.sh(
            vm,
            "echo same > /home/user/one && cat /workspace/one && rm /workspace/one && ls /home/user/one 2>&1 | wc -l"
        )
        .await,
        "same\n1"
    );
}

async fn fifty_commands_at_once(world: &World) {
    let (api, vm) = world.vm().await;
    let commands = (0..50).map(|n| {
        let api = api.clone();
        async move { api.sh(vm, &format!("echo {n}; sleep 0.2")).await == n.to_string() }
    });
    let right = futures_util::future::join_all(commands).await;
    assert_eq!(right.into_iter().filter(|right| *right).count(), 50);
}

async fn every_run_is_written_down_without_values(world: &World) {
    let (api, vm) = world.own_vm(json!({"memMb": 512})).await;
    let value = "value-that-nobody-may-read";
    api.exec_with(&vm, json!({"cmd": "echo one", "env": {"TOKEN": value}})).await;
    let body = json!({"code": "console.log(2)", "env": [format!("TOKEN={value}")]});
    api.post(&format!("/v1/vms/{vm}/run-js"), &body).await.ok();
    let path = format!("/v1/vms/{vm}/exec-logs");
    let logs = api.get(&path).await.ok().json();
    let entries = logs["entries"].as_array().expect("entries");
    let types: Vec<&Value> = entries.iter().map(|entry| &entry["type"]).collect();
    assert_eq!((types, &logs["hasMore"]), (vec![&json!("run-js"), &json!("exec")], &json!(false)));
    assert!(!logs.to_string().contains(value), "{logs}");
    assert!(logs.to_string().contains("echo one"), "{logs}");
    assert!(entries.iter().all(|entry| entry["durationMs"].as_f64().is_some_and(|took| took > 0.0)), "{logs}");
    let one = api.get(&format!("{path}?limit=1")).await.ok().json();
    assert_eq!((one["entries"].as_array().map(Vec::len), &one["hasMore"]), (Some(1), &json!(true)));
    let only = api.get(&format!("{path}?type=exec")).await.ok().json();
    assert_eq!(only["entries"].as_array().map(Vec::len), Some(1));
    for query in ["limit=0", "limit=201", "limit=x", "type=other"] {
        api.get(&format!("{path}?{query}")).await.status(400);
    }
    api.delete(&format!("/v1/vms/{vm}")).await.status(204);
}

/// Waits for the newest entry of a VM's log that a predicate holds for.
async fn logged(api: &Api, vm: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..200 {
        let logs = api.get(&format!("/v1/vms/{vm}/exec-logs")).await.ok().json();
        if let Some(entry) = logs["entries"].as_array().expect("entries").iter().find(|entry| is_it(entry)) {
            return entry.clone();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it is not in the log");
}

async fn a_run_whose_client_goes_is_written_down(world: &World) {
    let (api, vm) = world.own_vm(json!({"memMb": 512})).await;
    for (route, cmd) in [("exec", "echo first; sleep 60"), ("exec/stream", "echo second; sleep 60")] {
        let body = json!({"cmd": cmd});
        let path = format!("/v1/vms/{vm}/{route}");
        let run = api.request(Method::POST, &path).json(&body).timeout(Duration::from_secs(3)).send();
        match run.await {
            // The stream's head comes at once, and something that it says.
            Ok(mut reply) => drop(reply.chunk().await),
            Err(gone) => assert!(gone.is_timeout(), "{gone:?}"),
        }
        let entry = logged(&api, &vm, |entry| entry["input"]["cmd"] == cmd).await;
        assert_eq!(entry["result"]["outcome"], "cancelled", "{entry}");
        assert!(entry["result"].get("exitCode").is_none() && entry["durationMs"].is_number(), "{entry}");
    }
    api.delete(&format!("/v1/vms/{vm}")).await.status(204);
}

async fn a_large_result_is_left_out_of_the_log(world: &World) {
    let (api, vm) = world.own_vm(json!({"memMb": 512})).await;
    let body = json!({"code": "result.set({ small: 1, large: new Array(500000).fill(7) }); console.log('done')"});
    let reply = api.post(&format!("/v1/vms/{vm}/run-js"), &body).await.ok().json();
    assert_eq!(reply["result"]["large"].as_array().map(Vec::len), Some(500_000), "the client gets all of it");
    let entry = logged(&api, &vm, |entry| entry["type"] == "run-js").await;
    let result = &entry["result"];
    assert_eq!((&result["exitCode"], &result["stdout"]), (&json!(0), &json!("done\n")));
    assert!(result["result"].as_str().is_some_and(|text| text.starts_with("[left out: ")), "{result}");
    api.delete(&format!("/v1/vms/{vm}")).await.status(204);
}

async fn the_guests_own_duration_is_told(world: &World) {
    let (api, vm) = world.vm().await;
    let reply = api.post(&format!("/v1/vms/{vm}/exec"), &json!({"cmd": "sleep 0.3"})).await.ok();
    let took: u64 = reply.header("x-rds-guest-duration-us").parse().expect("a number");
    assert!((300_000..5_000_000).contains(&took), "{took}");
}
