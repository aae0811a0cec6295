//! The proof that a secret stays where it belongs: a random one is planted, everything is done that could carry it away,
//! and then it is looked for wherever it must not be.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use reqwest::Method;
use serde_json::{Value, json};

use super::sdk::{Sdk, export};
use super::stage::{consumer, deno, invoke, link, node, token};
use crate::harness::{Api, TestServer, World, cases, processes};

cases![a_secret_is_nowhere_but_in_its_vms_memory];

/// Piece of a process's memory that is read at once.
const PIECE: usize = 1 << 20;

/// A random secret, and what to look for: its text, and the beginnings of it that are in its encodings.
struct Canary {
    secret: String,
    /// A file of what to look for, one a line. Not an argument: those of processes are searched, too.
    patterns: PathBuf,
}

impl Canary {
    fn new(dir: &Path, name: &str) -> Self {
        let random: String = rand::random::<[u8; 16]>().iter().map(|byte| format!("{byte:02x}")).collect();
        let secret = format!("cnry-{random}");
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        // The random part alone in base64, at each of the three places that a byte can have in it.
        let base64 = (0..3).map(|skip| {
            let text: String = base64(&random.as_bytes()[skip..]);
            text.chars().take(28).collect::<String>()
        });
        let patterns: Vec<String> = [random.clone(), hex].into_iter().chain(base64).collect();
        let file = dir.join(name);
        fs::write(&file, patterns.join("\n") + "\n").expect("a file");
        Self { secret, patterns: file }
    }

    /// Whether it is in what `feed` writes.
    fn is_in(&self, feed: impl FnOnce(&mut dyn Write)) -> bool {
        let mut grep = Command::new("grep");
        grep.args(["-qazF", "-f"]).arg(&self.patterns).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = grep.spawn().expect("grep is there");
        // It ends at the first find.
        feed(&mut child.stdin.take().expect("a pipe"));
        match child.wait().expect("grep ends").code() {
            Some(0) => true,
            Some(1) => false,
            code => panic!("grep failed: {code:?}"),
        }
    }

    fn is_in_bytes(&self, bytes: &[u8]) -> bool {
        self.is_in(|to| drop(to.write_all(bytes)))
    }

    /// Files under a directory that it is in.
    fn files(&self, root: &Path) -> Vec<PathBuf> {
        let mut grep = Command::new("grep");
        grep.args(["-rlazF", "--devices=skip", "-f"]).arg(&self.patterns).arg(root);
        let output = grep.output().expect("grep is there");
        assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
        String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect()
    }

    /// Processes of this machine that it is an argument or a variable of.
    fn processes(&self) -> Vec<String> {
        let entries = fs::read_dir("/proc").expect("there is /proc").flatten();
        let numbers =
            entries.filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()));
        let files = numbers.flat_map(|entry| ["cmdline", "environ"].map(|name| entry.path().join(name)));
        let found = files.filter(|file| fs::read(file).is_ok_and(|bytes| self.is_in_bytes(&bytes)));
        found.map(|file| file.display().to_string()).collect()
    }

    /// Whether it is in a process's memory; `None` if this user may not look.
    fn is_in_memory(&self, pid: u32) -> Option<bool> {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
        let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
        let ranges = maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|flags| flags.starts_with('r')));
        let ranges: Vec<(u64, u64)> = ranges.filter_map(range).collect();
        let mut total = 0;
        let found = self.is_in(|to| {
            let mut piece = vec![0; PIECE];
            for (start, end) in ranges {
                let mut at = start;
                while at < end {
                    let wanted = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
                    let Ok(read @ 1..) = memory.read_at(&mut piece[..wanted], at) else { break };
                    total += read;
                    if to.write_all(&piece[..read]).is_err() {
                        return;
                    }
                    at += read as u64;
                }
            }
        });
        (total > PIECE).then_some(found)
    }
}

fn range(line: &str) -> Option<(u64, u64)> {
    let (start, end) = line.split(' ').next()?.split_once('-')?;
    Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |three: &[u8]| {
        let number = three.iter().fold(0_usize, |number, byte| number << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(ALPHABET[number >> shift & 63]))
    };
    bytes.as_chunks::<3>().0.iter().flat_map(|three| group(three)).collect()
}

/// An SDK that does with its secret whatever a careless one might.
fn careless() -> Sdk {
    let code = "import process from 'node:process';
        const key = () => process.env.CANARY ?? '';
        export const whole = () => key().length;
        export const give = () => ({ key: key(), [key()]: [key()], basic: btoa(`user:${key()}`), url: `https://x/?k=${encodeURIComponent(key())}` });
        export const wrong = () => key();
        export const throwIt = () => { const error = new Error(`401 for ${key()}`); error.name = key(); error.stack = key(); throw error; };
        export const print = () => { for (let n = 0; n < 100; n++) { console.log(key()); console.error(key()); } return 1; };
        export const loose = () => { Promise.reject(new Error(key())); return 1; };
        export const later = async () => { setTimeout(() => { throw new Error(key()); }, 10); await new Promise(() => {}); };
        export const quit = () => { console.error(key()); process.exit(1); };
        export const abort = () => { const held = key(); console.error(held); (process.abort ?? process.exit)(); };
        export const slow = async () => { await new Promise((wake) => setTimeout(wake, 30000)); return key(); };";
    let any = json!({});
    let mut exports: Vec<Value> = ["give", "throwIt", "print", "loose", "later", "quit", "abort", "slow", "whole"]
        .map(|name| export(name, &[], any.clone()))
        .into();
    exports.push(export("wrong", &[], json!({"type": "integer"})));
    Sdk::new("Careless").module("a.ts", code, &exports).module("b.mjs", code, &exports)
}

/// A server with a careless provider and a consumer of it, and all that was heard from the API.
struct Scene {
    server: TestServer,
    provider: String,
    consumer: String,
    heard: Vec<u8>,
}

impl Scene {
    fn api(&self) -> Api {
        self.server.api()
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.heard.extend_from_slice(bytes);
        self.heard.push(0);
    }

    async fn get(&mut self, path: &str) {
        let reply = self.api().get(path).await;
        let headers = format!("{:?}", reply.headers);
        self.hear(&reply.body);
        self.hear(headers.as_bytes());
    }

    /// Every function of the SDK, by both runtimes, through proxies and the manager's own door.
    async fn call_everything(&mut self, length: usize) {
        let (api, vm) = (self.api(), self.consumer.clone());
        let token = token(&api, &vm).await;
        for module in ["/workspace/a.ts", "/workspace/b.mjs"] {
            for name in ["give", "wrong", "throwIt", "print", "loose", "later", "quit", "abort", "slow", "whole"] {
                let body = json!({"alias": "c", "modulePath": module, "exportName": name, "timeoutMs": 20_000});
                let body = if name == "slow" {
                    json!({"timeoutMs": 500, "alias": "c", "modulePath": module, "exportName": name})
                } else {
                    body
                };
                let reply = invoke(&self.server.anonymous(), &token, &body).await;
                if name == "whole" {
                    assert_eq!(reply.json()["result"], length, "the provider has it: {reply:?}");
                }
                self.hear(&reply.body);
            }
        }
        let program = "import fs from 'node:fs';
            import * as a from 'file:///workspace/peers/c/proxy/a.ts';
            import * as b from 'file:///workspace/peers/c/proxy/b.mjs';
            const told = [];
            for (const sdk of [a, b]) for (const name of ['give', 'wrong', 'throwIt', 'print', 'whole']) {
              told.push(await sdk[name]().catch((error) => [error.name, error.message, error.stack, String(error)]));
            }
            fs.appendFileSync('/workspace/told.json', JSON.stringify(told));
            console.log(told);
            result.set(told);";
        let told = [node(&api, &vm, program).await, deno(&api, &vm, program).await];
        self.hear(json!(told).to_string().as_bytes());
        let uncaught =
            json!({"code": "import { throwIt } from 'file:///workspace/peers/c/proxy/b.mjs'; await throwIt()"});
        let reply = api.post(&format!("/v1/vms/{vm}/run-js"), &uncaught).await;
        self.hear(&reply.body);
        api.sh(&vm, "sync").await;
    }

    /// Everything that the API tells about the two VMs.
    async fn read_everything(&mut self) {
        for vm in [self.provider.clone(), self.consumer.clone()] {
            for path in [
                "",
                "/exec-logs?limit=200",
                "/logs",
                "/logs?type=serial.log&tail=1000",
                "/logs?type=vmm.log&tail=1000",
                "/logs?type=firecracker.stdout.log&tail=1000",
            ] {
                self.get(&format!("/v1/vms/{vm}{path}")).await;
            }
        }
        for path in [
            "/v1/vms",
            "/v1/images",
            "/v1/admin/activity?limit=1000",
            "/v1/admin/overview",
            "/v1/audit?limit=1000",
            "/v1/audit?format=jsonl",
            "/v1/peers/approvals",
            "/v1/snapshots?scope=all",
        ] {
            self.get(path).await;
        }
    }
}

async fn a_secret_is_nowhere_but_in_its_vms_memory(world: &World) {
    let dir = tempfile::tempdir().expect("a directory");
    let [first, second, control] = ["first", "second", "control"].map(|name| Canary::new(dir.path(), name));
    let server = world.own_server(&[("RUST_LOG", "debug")]).await;
    let api = server.api();
    let provider =
        careless().provide(&api, json!({"memMb": 512, "secretEnv": [format!("CANARY={}", first.secret)]})).await;
    let consumer = consumer(&api, &[json!({"alias": "c", "vmId": provider, "sourceMode": "mounted"})]).await;
    let mut scene = Scene { server, provider, consumer, heard: Vec::new() };
    let (provider, vm) = (scene.provider.clone(), scene.consumer.clone());

    scene.call_everything(first.secret.len()).await;
    // Programs in the provider see it; what they print is told to who ran them, and not written down.
    let printed = api.sh(&provider, "echo $CANARY; echo $CANARY >&2").await;
    assert_eq!(printed, first.secret);
    api.post(&format!("/v1/vms/{provider}/exec"), &json!({"cmd": "ulimit -c unlimited; kill -SEGV $$"})).await.ok();
    let failing = json!({"code": "throw new Error(process.env.CANARY)"});
    let told = api.post(&format!("/v1/vms/{provider}/run-js"), &failing).await.ok().json();
    assert_eq!(told["error"]["message"], first.secret);
    for one in [&provider, &vm] {
        let kept = api.poke(&format!("/v1/vms/{one}/snapshots")).await.status(201);
        scene.hear(&kept.body);
    }
    // A module that cannot be loaded, and a create and a sync that fail for it.
    api.sh(&provider, "cp b.mjs kept && echo 'throw new Error(process.env.CANARY)' > b.mjs").await;
    let refused = api.poke(&format!("/v1/vms/{vm}/peers/sync")).await.status(400);
    scene.hear(&refused.body);
    let wish = json!({"cpu": 1, "memMb": 128, "allowIps": [], "peerLinks": [link("x", &provider)]});
    let refused = api.post("/v1/vms", &wish).await.status(400);
    assert!(refused.message().contains("[redacted]"), "{}", refused.message());
    scene.hear(&refused.body);
    api.sh(&provider, "mv kept b.mjs").await;
    api.poke(&format!("/v1/vms/{vm}/peers/sync")).await.status(204);
    // Managers come and go, in good order and not.
    scene.server.kill();
    scene.server.restart(&[]).await;
    scene.call_everything(first.secret.len()).await;
    scene.server.stop().await;
    scene.server.restart(&[]).await;
    let api = scene.api();
    api.poke(&format!("/v1/vms/{provider}/stop")).await.status(204);
    api.poke(&format!("/v1/vms/{provider}/start")).await.status(204);
    scene.call_everything(first.secret.len()).await;
    // Another secret takes its place.
    let request = api.request(Method::PUT, &format!("/v1/vms/{provider}/secrets"));
    let reply = api
        .send(request.json(&json!({"secretEnv": [format!("CANARY={}", second.secret), "MORE=x"]})))
        .await
        .status(204);
    scene.hear(&reply.body);
    scene.call_everything(second.secret.len()).await;
    scene.read_everything().await;

    // What is no secret is found where it was put, so the search is one.
    api.sh(&vm, &format!("echo {} > control && sync", control.secret)).await;
    scene.get(&format!("/v1/vms/{vm}/exec-logs?limit=1")).await;
    assert!(control.is_in_bytes(&scene.heard), "the search of replies finds nothing");
    assert!(control.files(scene.server.root()).len() >= 2, "the search of files finds no disk and no database");
    for (canary, name) in [(&first, "the first"), (&second, "the second")] {
        assert!(!canary.is_in_bytes(&scene.heard), "{name} is in a reply of the API");
        assert_eq!(canary.processes(), Vec::<String>::new(), "{name} is in arguments or variables");
        // Database, journal, logs, disks of both VMs, initramfs.
        assert_eq!(canary.files(scene.server.root()), Vec::<PathBuf>::new(), "{name} is on the disk");
    }
    let own = |vm: &str| processes::holding(&scene.server.root().join("vms").join(vm), Some(scene.server.pid()));
    let (of_provider, of_consumer) = (own(&provider), own(&vm));
    assert!(!of_provider.is_empty() && !of_consumer.is_empty());
    let in_provider: Vec<_> = of_provider.iter().map(|pid| second.is_in_memory(*pid)).collect();
    match in_provider.iter().flatten().any(|found| *found) {
        true => {
            for pid in of_consumer {
                assert_eq!(first.is_in_memory(pid), Some(false), "the first is in the consumer's memory");
                assert_eq!(second.is_in_memory(pid), Some(false), "the second is in the consumer's memory");
            }
        }
        false => {
            assert!(
                in_provider.iter().all(Option::is_none),
                "the provider's memory can be read, and its secret is not found"
            );
            eprintln!("*** the memory of the VMs' processes is NOT searched: this user may not read it ***");
        }
    }
    // A VM that dies, and its removal.
    of_provider.into_iter().for_each(processes::kill);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    scene.read_everything().await;
    for vm in [&vm, &provider] {
        scene.api().delete(&format!("/v1/vms/{vm}")).await.status(204);
    }
    scene.server.stop().await;
    for canary in [&first, &second] {
        assert!(!canary.is_in_bytes(&scene.heard));
        assert_eq!(canary.files(scene.server.root()), Vec::<PathBuf>::new());
    }
}
