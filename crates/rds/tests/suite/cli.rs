//! The command line against a real server.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::harness::{API_KEY, World, cases, create, processes};

cases![
    a_vm_is_made_named_and_removed,
    exec_passes_output_and_exit_codes_through,
    exit_codes_tell_what_went_wrong,
    files_and_directories_are_copied_both_ways,
    programs_are_run_from_local_files,
    images_and_logs_are_listed,
    api_keys_are_made_and_revoked,
    webhooks_are_made_and_removed,
    the_demo_shows_and_leaves_nothing,
    an_interrupted_demo_leaves_nothing,
    a_program_that_is_lost_ends_with_125,
    peers_are_linked_changed_and_approved,
    doctor_and_completions_need_no_server,
    up_keeps_its_key_and_starts_again_quickly,
];

struct Rds<'a> {
    url: &'a str,
}

impl Rds<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rds"));
        command.args(args).env("RDS_URL", self.url).env("RDS_API_KEY", API_KEY).kill_on_drop(true);
        command
    }

    fn spawn(&self, args: &[&str]) -> Child {
        let mut command = self.command(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("rds runs")
    }

    async fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().await.expect("rds runs")
    }

    async fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args).await;
        assert!(output.status.success(), "rds {args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
    }

    async fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[&["--json"], args].concat()).await).expect("JSON")
    }
}

async fn a_vm_is_made_named_and_removed(world: &World) {
    let rds = Rds { url: world.server().await.url() };
    let id = rds
        .ok(&["vm", "create", "--name", "cli-vm", "--mem", "128", "--label", "a=b", "--ttl", "3600", "--idle", "600"])
        .await;
    assert_eq!(id.len(), 36, "{id}");
    let vm = rds.json(&["vm", "get", "cli-vm"]).await;
    assert_eq!((vm["id"].as_str(), vm["labels"]["a"].as_str()), (Some(id.as_str()), Some("b")));
    assert_eq!((&vm["ttlSeconds"], &vm["idleTimeoutSeconds"]), (&json!(3600), &json!(600)));
    let prefix: String = id.chars().take(10).collect();
    assert_eq!(rds.json(&["vm", "get", &prefix]).await["id"], vm["id"]);
    let table = rds.ok(&["vm", "ls"]).await;
    assert!(table.starts_with("ID") && table.contains("cli-vm") && table.contains("RUNNING"), "{table}");
    rds.ok(&["vm", "stop", "cli-vm"]).await;
    assert!(rds.ok(&["vm", "ls"]).await.contains("STOPPED"));
    rds.ok(&["vm", "start", "cli-vm"]).await;
    rds.ok(&["vm", "pause", "cli-vm"]).await;
    assert!(rds.ok(&["vm", "ls"]).await.contains("PAUSED"));
    assert_eq!(rds.json(&["vm", "resume", "cli-vm"]).await["resumed"][0], vm["id"]);
    assert_eq!(rds.ok(&["exec", "cli-vm", "--", "echo", "hi"]).await, "hi");
    assert_eq!(rds.json(&["vm", "rm", "cli-vm"]).await["removed"][0], vm["id"]);
    assert_eq!(rds.run(&["vm", "get", "cli-vm"]).await.status.code(), Some(5));
}

async fn exec_passes_output_and_exit_codes_through(world: &World) {
    let (_, vm) = world.vm().await;
    let rds = Rds { url: world.server().await.url() };
    let output =
        rds.run(&["exec", vm, "-e", "A=b c", "-w", "/tmp", "--", "echo \"$A\"; pwd; echo err >&2; exit 42"]).await;
    assert_eq!(output.status.code(), Some(42));
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"b c\n/tmp\n"[..], &b"err\n"[..]));
    assert_eq!(rds.ok(&["exec", vm, "--", "printf", "%s|", "a b", "$HOME", "it's"]).await, "a b|$HOME|it's|");
    assert_eq!(rds.run(&["exec", vm, "--timeout", "1000", "--", "sleep 60"]).await.status.code(), Some(124));
    let reply = rds.run(&["--json", "exec", vm, "--", "echo out; exit 3"]).await;
    assert_eq!(reply.status.code(), Some(3));
    let reply: Value = serde_json::from_slice(&reply.stdout).expect("JSON");
    assert_eq!((reply["exitCode"].as_i64(), reply["stdout"].as_str()), (Some(3), Some("out\n")));
    let terminal = rds.run(&["exec", "-it", vm, "--", "tty >/dev/null && exit 6"]).await;
    assert_eq!(terminal.status.code(), Some(6), "{terminal:?}");
}

async fn exit_codes_tell_what_went_wrong(world: &World) {
    let rds = Rds { url: world.server().await.url() };
    for (args, code, said) in [
        (&["vm", "get", "nobody"][..], 5, "rds vm ls"),
        (&["vm", "create", "--mem", "1"], 1, "memMb"),
        (&["vm", "ls", "--api-key", "wrong"], 4, "RDS_API_KEY"),
        (&["vm", "ls", "--url", "http://127.0.0.1:1"], 3, "rds up"),
        (&["vm", "ls", "--url", "https://127.0.0.1:1"], 2, "http"),
        (&["nonsense"], 2, "nonsense"),
        (&["exec", "nobody", "--", "true"], 5, "nobody"),
        (&["cp", "a", "b"], 2, "VM:"),
    ] {
        let output = rds.run(args).await;
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(stderr.contains(said), "{args:?}: {stderr}");
    }
}

async fn files_and_directories_are_copied_both_ways(world: &World) {
    let (api, vm) = world.vm().await;
    let rds = Rds { url: world.server().await.url() };
    let dir = tempfile::tempdir().expect("a directory");
    let here = |name: &str| dir.path().join(name).display().to_string();
    std::fs::create_dir_all(here("tree/sub")).expect("a directory");
    std::fs::write(here("tree/sub/a.txt"), "a").expect("a file");
    std::fs::write(here("b.txt"), "b").expect("a file");
    rds.ok(&["cp", &here("tree"), &format!("{vm}:/workspace/cp/tree")]).await;
    rds.ok(&["cp", &here("b.txt"), &format!("{vm}:/workspace/cp/")]).await;
    assert_eq!(api.sh(vm, "cat cp/tree/sub/a.txt cp/b.txt").await, "ab");
    rds.ok(&["cp", &format!("{vm}:/workspace/cp"), &here("back")]).await;
    rds.ok(&["cp", &format!("{vm}:/workspace/cp/b.txt"), &here("c.txt")]).await;
    let read = |name: &str| std::fs::read_to_string(Path::new(&here(name))).expect("a copy");
    assert_eq!((read("back/tree/sub/a.txt"), read("back/b.txt"), read("c.txt")), ("a".into(), "b".into(), "b".into()));
    assert_eq!(rds.run(&["cp", &format!("{vm}:/workspace/none"), &here("d")]).await.status.code(), Some(5));
    // What says that it is empty and is not.
    rds.ok(&["cp", "/proc/version", &format!("{vm}:/workspace/cp/version")]).await;
    assert!(api.sh(vm, "cat cp/version; chmod u+x cp/version").await.starts_with("Linux"));
    rds.ok(&["cp", &format!("{vm}:/workspace/cp/version"), &here("run")]).await;
    let mode = std::fs::metadata(here("run")).expect("a copy").permissions().mode();
    assert_eq!(mode & 0o100, 0o100, "{mode:o}");
}

async fn programs_are_run_from_local_files(world: &World) {
    let (_, vm) = world.vm().await;
    let rds = Rds { url: world.server().await.url() };
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("a.ts").display().to_string();
    std::fs::write(&file, "const n: number = Number(Deno.args[0]); console.log('out'); result.set(n * 2)")
        .expect("a file");
    assert_eq!(rds.ok(&["run-ts", vm, &file, "--", "21"]).await, "out\nresult: 42");
    std::fs::write(&file, "console.log(require('os').platform()); process.exit(9)").expect("a file");
    let output = rds.run(&["run-js", vm, &file]).await;
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(9), &b"linux\n"[..]));
}

async fn images_and_logs_are_listed(world: &World) {
    let (_, vm) = world.vm().await;
    let rds = Rds { url: world.server().await.url() };
    let id = rds.ok(&["image", "create", "cli-image"]).await;
    assert!(rds.ok(&["image", "ls"]).await.contains("cli-image"));
    assert_eq!(rds.ok(&["image", "rm", "cli-image"]).await, id);
    // One whose file is missing is not left half made, in the way of the next of that name.
    let failed = rds.run(&["image", "create", "cli-typo", "--kernel", "/nonexistent"]).await;
    assert!(!failed.status.success() && !rds.ok(&["image", "ls"]).await.contains("cli-typo"));
    assert!(rds.json(&["vm", "logs", vm, "--type", "serial.log"]).await["lines"].is_array());
    rds.ok(&["vm", "logs", vm]).await;
}

async fn api_keys_are_made_and_revoked(world: &World) {
    let url = world.server().await.url();
    let login = ["--email", crate::harness::ADMIN_EMAIL, "--password", crate::harness::ADMIN_PASSWORD];
    let rds = Rds { url };
    let made = rds.json(&[&["api-key", "create", "cli"], &login[..]].concat()).await;
    let (id, key) = (made["id"].as_str().expect("an id"), made["apiKey"].as_str().expect("a key"));
    rds.ok(&["vm", "ls", "--api-key", key]).await;
    assert!(rds.ok(&[&["api-key", "ls"], &login[..]].concat()).await.contains("cli"));
    rds.ok(&[&["api-key", "revoke", id], &login[..]].concat()).await;
    assert_eq!(rds.run(&["vm", "ls", "--api-key", key]).await.status.code(), Some(4));
}

async fn webhooks_are_made_and_removed(world: &World) {
    let login = ["--email", crate::harness::ADMIN_EMAIL, "--password", crate::harness::ADMIN_PASSWORD];
    let rds = Rds { url: world.server().await.url() };
    let hook = |words: &[&'static str]| [&["webhook"], words, &login[..]].concat();
    let add = hook(&["add", "https://hooks.example/", "--event", "vm.none_such"]);
    let made = rds.json(&[&add[..], &["--name", "cli"]].concat()).await;
    let id = made["id"].as_str().expect("an id");
    let one = |word: &'static str| [&["webhook", word, id], &login[..]].concat();
    assert!(made["secret"].as_str().is_some_and(|secret| secret.starts_with("whsec_")), "{made}");
    assert!(rds.ok(&hook(&["ls"])).await.contains("vm.none_such"));
    assert!(rds.ok(&one("rotate")).await.starts_with("whsec_"));
    rds.ok(&one("disable")).await;
    let refused = rds.run(&one("test")).await;
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("disabled"), "{refused:?}");
    assert_eq!(rds.json(&one("log")).await, serde_json::json!([]));
    rds.ok(&one("rm")).await;
    assert!(!rds.ok(&hook(&["ls"])).await.contains(id));
    let inside = hook(&["add", "http://127.0.0.1/", "--event", "*"]);
    assert_eq!(rds.run(&inside).await.status.code(), Some(1));
}

async fn the_demo_shows_and_leaves_nothing(world: &World) {
    let server = world.own_server(&[("VM_SECRET_KEY", "words")]).await;
    let rds = Rds { url: server.url() };
    let results = rds.json(&["demo"]).await;
    assert_eq!(results["run-ts"]["items"], 6, "{results}");
    assert_eq!(results["run-js"]["items"], 4, "{results}");
    let (seen, calls) = (&results["peers"]["consumer"], &results["peers"]["audit"]);
    assert_eq!((&seen["hasToken"], &seen["unread"][0]["from"]), (&json!(false), &json!("ada@example.org")), "{seen}");
    let struck = "Error: 401 from the mail server: no mailbox archive for Bearer [redacted]";
    assert_eq!((seen["thrown"].as_str(), calls[1]["strikes"].as_u64()), (Some(struck), Some(1)), "{results}");
    let outcomes: Vec<&Value> = calls.as_array().expect("a list").iter().map(|call| &call["outcome"]).collect();
    assert_eq!(outcomes, ["refused", "threw", "returned"], "{calls}");
    server.assert_no_trace().await;
}

async fn peers_are_linked_changed_and_approved(world: &World) {
    let server = world.own_server(&[("VM_SECRET_KEY", "words")]).await;
    let rds = Rds { url: server.url() };
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let manifest = json!({"sdk": {"name": "Echo", "description": "d"}, "modules": [{"path": "echo.mjs", "exports": [{
        "name": "secret", "description": "d", "params": [], "returns": {"description": "r", "schema": {}},
        "examples": [{"description": "e", "code": "await secret()"}]}]}]});
    file("sdk/.rds-peer/manifest.json", &manifest.to_string());
    file("sdk/echo.mjs", "export const secret = () => process.env.SHORT;");
    let secrets = file("secrets", "# a comment\n\nSHORT=a = b\n");
    let policy = file("policy.json", r#"{"require": "approval", "maxSeconds": 60}"#);
    let program = file(
        "app.mjs",
        "import { secret } from '/workspace/peers/echo/proxy/echo.mjs';\n\
         result.set(await secret().catch((error) => error.message));",
    );

    rds.ok(&["vm", "create", "--name", "sdk", "--mem", "256", "--secret-file", &secrets]).await;
    rds.ok(&["cp", &dir.path().join("sdk").display().to_string(), "sdk:/workspace"]).await;
    let link = ["--peer", "echo=sdk:mounted", "--peer-policy", &format!("echo={policy}")];
    let app = rds.ok(&[&["vm", "create", "--name", "app", "--mem", "256"], &link[..]].concat()).await;
    let links = rds.json(&["peers", "ls", "app"]).await;
    assert_eq!(
        (&links[0]["sourceMode"], &links[0]["policy"]["maxSeconds"]),
        (&json!("mounted"), &json!(60)),
        "{links}"
    );

    let run = ["run-js", "app", &program];
    for (answer, expected) in [("deny", "A person denied the call"), ("approve", "a = b")] {
        let answered = async {
            let waiting = loop {
                let waiting = rds.json(&["peers", "approvals"]).await;
                if waiting[0]["id"].is_string() {
                    break waiting;
                }
            };
            let id = waiting[0]["id"].as_str().expect("an id");
            assert!(rds.ok(&["peers", "approvals"]).await.ends_with("echo.mjs#secret()"));
            rds.ok(&["peers", "approvals", answer, id]).await;
        };
        let (ran, ()) = tokio::join!(rds.json(&run), answered);
        assert_eq!(ran["result"], expected, "{ran}");
    }

    rds.ok(&["peers", "set", "app", "echo", "--source-mode", "hidden", "--policy", &file("none.json", "{}")]).await;
    assert_eq!(rds.run(&["exec", "app", "--", "ls", "/workspace/peers/echo/source"]).await.status.code(), Some(2));
    assert_eq!(rds.run(&["secrets", "set", "sdk"]).await.status.code(), Some(2));
    rds.ok(&["secrets", "set", "sdk", "--secret-file", &file("secrets", "SHORT=c")]).await;
    assert_eq!(rds.json(&run).await["result"], "c");
    assert_eq!(rds.json(&["peers", "sync", "app"]).await["synced"], app);
    assert_eq!(rds.run(&["peers", "set", "app", "none", "--source-mode", "hidden"]).await.status.code(), Some(5));
    rds.ok(&["vm", "rm", "app", "sdk"]).await;
    server.assert_no_trace().await;
}

async fn an_interrupted_demo_leaves_nothing(world: &World) {
    let server = world.own_server(&[]).await;
    let (rds, api) = (Rds { url: server.url() }, server.api());
    // Once while the VM is being made, once while it runs.
    for state in ["CREATED STARTING", "RUNNING"] {
        let demo = rds.spawn(&["demo", "--mem", "256"]);
        let begun = Instant::now();
        loop {
            let vms = api.get("/v1/vms").await.ok().json();
            let seen = vms[0]["state"].as_str();
            if seen.is_some_and(|seen| state.contains(seen)) {
                break;
            }
            assert!(begun.elapsed().as_secs() < 60 && seen != Some("RUNNING"), "it is never {state}");
        }
        processes::signal(demo.id().expect("it runs"), Signal::INT);
        let ended = timeout(Duration::from_secs(60), demo.wait_with_output()).await.expect("it ends");
        let ended = ended.expect("it ends");
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        server.assert_no_trace().await;
    }
}

async fn a_program_that_is_lost_ends_with_125(world: &World) {
    let mut server = world.own_server(&[]).await;
    let api = server.api();
    let vm = &create(&api, json!({})).await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("a.js").display().to_string();
    std::fs::write(&file, "require('fs').writeFileSync('4', ''); setTimeout(() => {}, 60_000)").expect("a file");
    let url = server.url().to_owned();
    let rds = Rds { url: &url };
    let programs = [
        rds.spawn(&["exec", vm, "--", "touch 1; sleep 60"]),
        rds.spawn(&["exec", "-it", vm, "--", "touch 2; sleep 60"]),
        rds.spawn(&["--json", "exec", vm, "--timeout", "70000", "--", "touch 3; sleep 60"]),
        rds.spawn(&["run-js", vm, &file, "--timeout", "70000"]),
    ];
    let begun = Instant::now();
    while api.exec(vm, "ls 1 2 3 4").await["exitCode"] != 0 {
        assert!(begun.elapsed().as_secs() < 60, "they do not begin");
    }
    server.kill();
    for program in programs {
        let ended = timeout(Duration::from_secs(20), program.wait_with_output()).await.expect("it ends");
        let ended = ended.expect("it ends");
        assert_eq!(ended.status.code(), Some(125), "{ended:?}");
        assert!(String::from_utf8_lossy(&ended.stderr).contains("rds: "), "{ended:?}");
    }
}

async fn doctor_and_completions_need_no_server(_: &World) {
    let rds = Rds { url: "http://127.0.0.1:1" };
    let doctor = rds.run(&["--json", "doctor"]).await;
    let report: Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
    assert!(report["checks"].is_array(), "{report}");
    for shell in ["bash", "zsh", "fish"] {
        assert!(rds.ok(&["completions", shell]).await.contains("run-ts"));
    }
}

async fn up_keeps_its_key_and_starts_again_quickly(world: &World) {
    let root = tempfile::Builder::new().prefix("rds-u").tempdir_in("/tmp").expect("a directory");
    let (mut keys, mut seals) = (Vec::new(), Vec::new());
    for start in 0..2 {
        let begun = Instant::now();
        let mut command = Command::new(env!("CARGO_BIN_EXE_rds"));
        command.args(["--json", "up", "--port", "0", "--network", "off"]).kill_on_drop(true);
        command.env("STORAGE_ROOT", root.path()).env("RDS_AGENT_PATH", &world.found.agent);
        command.envs(world.found.image_settings());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("rds runs");
        let mut said = String::new();
        let mut stdout = tokio::io::BufReader::new(child.stdout.take().expect("a pipe"));
        while !said.trim_end().ends_with('}') {
            let read = tokio::io::AsyncBufReadExt::read_line(&mut stdout, &mut said).await.expect("text");
            assert_ne!(read, 0, "it ended: {said}");
        }
        let said: Value = serde_json::from_str(&said).expect("JSON");
        assert!(start == 0 || begun.elapsed().as_secs() < 5, "the second start took {:?}", begun.elapsed());
        let (url, key) = (said["url"].as_str().expect("a URL"), said["apiKey"].as_str().expect("a key"));
        let reply = reqwest::Client::new().get(format!("{url}/v1/vms")).header("x-api-key", key).send().await;
        assert_eq!(reply.expect("a reply").status().as_u16(), 200);
        keys.push(key.to_owned());
        seals.push(std::fs::read_to_string(root.path().join("vm-secret-key")).expect("a key"));
        child.kill().await.expect("it ends");
    }
    assert_eq!((&keys[0], &seals[0]), (&keys[1], &seals[1]));
    assert_eq!(seals[0].trim().len(), 64);
}
