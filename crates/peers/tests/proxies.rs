//! Generated proxies as the real tools see them: compiled by `tsc --strict`, run by Node.js and Deno against a bridge.
//!
//! Each needs programs, so it runs with `--ignored` alone: `NODE` (Node.js 24 or newer), `DENO`, and `TSC` (the compiler's
//! `bin/tsc`, run by `NODE`).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use rds_peers::codegen::{GeneratedFile, IndexEntry, SourceMode, index, peer_tree};
use rds_peers::manifest::{Alias, Limits, Manifest, parse};
use rds_peers::runtime::{self, Bridge};
use serde_json::{Value, json};

fn manifest() -> Manifest {
    let example = json!([{"description": "e", "code": "c"}]);
    let query = json!({"name": "query", "description": "q", "schema": {"type": "object", "required": ["text"], "properties": {
        "text": {"type": "string"}, "tags": {"type": "array", "items": {"enum": ["new", "old"]}}}}});
    let limit = json!({"name": "limit", "description": "l", "schema": {"type": "integer", "default": 3}});
    let found = json!({"type": "object", "required": ["count"], "properties": {"count": {"type": "integer"}, "next": {"type": ["string", "null"]}}});
    let export = |name: &str| json!({"name": name, "description": "d */ ` ${x}", "params": [query, limit], "returns": {"description": "r", "schema": found}, "examples": example});
    let module = |path: &str| json!({"path": path, "exports": [export("search"), export("default"), export("constructor"), export("name")]});
    let document = json!({"sdk": {"name": "Mail", "description": "d"}, "modules": [
        module("sdk/a.ts"), module("sdk/b.mts"), module("c.js"), module("d d/ü.mjs"), module("e.cjs")]});
    parse(document.to_string().as_bytes(), Limits::default()).unwrap()
}

/// A consumer's `/workspace`, with a `package.json` that makes everything CommonJS, as `npm init` does.
fn workspace(url: &str) -> tempfile::TempDir {
    let (alias, manifest) = (Alias::new("mail").unwrap(), manifest());
    let directory = tempfile::tempdir().unwrap();
    let mut files = peer_tree(&alias, &manifest).unwrap();
    files.push(index(&[IndexEntry::new(&alias, &manifest, SourceMode::Hidden)]));
    files.extend(runtime::files(&Bridge { url: url.to_owned(), token: "t0ken".to_owned() }));
    files.push(GeneratedFile { path: "package.json".to_owned(), contents: r#"{"type":"commonjs"}"#.to_owned() });
    for GeneratedFile { path, contents } in files {
        write(&directory.path().join(path), &contents);
    }
    directory
}

fn write(path: &Path, contents: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, contents).unwrap();
}

/// The program that a variable names. The tests are ignored unless asked for, and then it must be there.
fn program(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("set {variable}"))
}

/// Answers calls as the agent's bridge would: each with what was asked, but an error for the text `fail`.
fn bridge() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/internal/v1/peer/invoke", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || serve(stream.unwrap()));
        }
    });
    url
}

fn serve(mut stream: std::net::TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let (mut length, mut token, mut lines) = (0, false, 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            lines += 1;
            let line = line.trim().to_ascii_lowercase();
            token |= line == "authorization: bearer t0ken";
            length = line.strip_prefix("content-length: ").map_or(length, |value| value.parse().unwrap());
            if line.is_empty() {
                break;
            }
        }
        assert!(lines > 1);
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let call: Value = serde_json::from_slice(&body).unwrap();
        let (status, reply) = match (token, call["args"][0]["text"].as_str()) {
            (false, _) => ("401 Unauthorized", json!({"message": "no token"})),
            (true, Some("fail")) => {
                ("502 Bad Gateway", json!({"message": "no such mailbox", "name": "RangeError", "code": "peer_threw"}))
            }
            _ => (
                "200 OK",
                json!({"result": {"count": call["args"].as_array().unwrap().len(), "next": call["exportName"], "call": call}}),
            ),
        };
        let reply = reply.to_string();
        let head =
            format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", reply.len());
        if stream.write_all(format!("{head}{reply}").as_bytes()).is_err() {
            return;
        }
    }
}

/// Uses every proxy in every way, and prints one line.
const PROGRAM: &str = r#"
import * as a from "./peers/mail/proxy/sdk/a.ts";
import * as b from "./peers/mail/proxy/sdk/b.mts";
import * as c from "./peers/mail/proxy/c.js";
import * as d from "./peers/mail/proxy/d%20d/%C3%BC.mjs";
import e, { search, constructor as made, name } from "./peers/mail/proxy/e.cjs";
import { createRequire } from "node:module";
const required = createRequire(import.meta.url)("./peers/mail/proxy/e.cjs");
const assert = (truth, what) => { if (!truth) throw new Error(what); };
for (const module of [a, b, c, d, { search, default: e, constructor: made, name }, required]) {
  for (const key of ["search", "default", "constructor", "name"]) {
    const { count, next } = await module[key]({ text: "x" }, undefined);
    assert(count === 1 && next === key, `${key}: ${next}`);
  }
}
assert((await required({ text: "x" }, 2)).next === "default", "a CommonJS default export stands for the module");
const many = await Promise.all(Array.from({ length: 200 }, (_, n) => d.search({ text: `${n}` }, n)));
assert(many.every(({ call }, n) => call.args[0].text === `${n}` && call.args[1] === n), "answers are mixed up");
assert(many[0].call.modulePath === "/workspace/d d/ü.mjs" && many[0].call.alias === "mail", "another module");
const error = await a.search({ text: "fail" }).then(() => undefined, (error) => error);
assert(error instanceof Error && error.name === "RangeError" && error.message === "no such mailbox" && error.status === 502, `${error}`);
const { call } = await import("./.rds/peer-runtime.ts");
const reason = await call("mail", "m", "e", [], { signal: AbortSignal.abort(new Error("stop")) }).catch((error) => error);
assert(reason.message === "stop", `${reason}`);
console.log("all is well");
"#;

fn check(output: &Output) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((out.trim(), err.trim()), ("all is well", ""));
}

#[test]
#[ignore = "needs NODE"]
fn node_runs_proxies() {
    let directory = workspace(&bridge());
    write(&directory.path().join("main.mjs"), PROGRAM);
    check(&Command::new(program("NODE")).arg("main.mjs").current_dir(directory.path()).output().unwrap());
}

#[test]
#[ignore = "needs DENO"]
fn deno_runs_proxies() {
    let url = bridge();
    let host = url.trim_start_matches("http://").split('/').next().unwrap();
    let directory = workspace(&url);
    write(&directory.path().join("main.mjs"), PROGRAM);
    let mut command = Command::new(program("DENO"));
    command
        .args(["run", "--quiet", "--no-prompt", "--cached-only", "--allow-read=."])
        .arg(format!("--allow-net={host}"));
    let output = command
        .arg("main.mjs")
        .env("NO_COLOR", "1")
        .env("DENO_DIR", directory.path().join(".deno"))
        .current_dir(directory.path())
        .output();
    check(&output.unwrap());
}

#[test]
#[ignore = "needs NODE and TSC"]
fn tsc_accepts_right_programs_and_rejects_wrong_ones() {
    let (node, tsc) = (program("NODE"), program("TSC"));
    let directory = workspace("http://127.0.0.1:1/");
    let compile = |name: &str, program: &str| {
        write(&directory.path().join(name), program);
        let flags = [
            "--strict",
            "--noEmit",
            "--erasableSyntaxOnly",
            "--allowImportingTsExtensions",
            "--module",
            "nodenext",
            "--target",
            "es2022",
            "--lib",
            "es2022,dom",
        ];
        let output =
            Command::new(&node).arg(&tsc).args(flags).arg(name).current_dir(directory.path()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let right = r#"
import { search } from "./peers/mail/proxy/sdk/a.ts";
import more, { search as mjs } from "./peers/mail/proxy/d d/ü.mjs";
import { search as js } from "./peers/mail/proxy/c.js";
import { search as cjs } from "./peers/mail/proxy/e.cjs";
const found = await search({ text: "x", tags: ["new"] }, 3);
const next: string | null | undefined = found.next;
const count: number = (await mjs({ text: "x" })).count + (await more({ text: "x" })).count;
export const all = [next, count, await js({ text: "x" }), await cjs({ text: "x" })];
"#;
    assert_eq!(compile("right.mts", right), "");
    for (name, wrong) in [
        ("w1.mts", "import { search } from \"./peers/mail/proxy/sdk/a.ts\"; search({ text: 1 });"),
        ("w2.mts", "import { search } from \"./peers/mail/proxy/sdk/a.ts\"; search({ text: \"x\", tag: [] });"),
        ("w3.mts", "import { search } from \"./peers/mail/proxy/d d/ü.mjs\"; search();"),
        ("w4.mts", "import { search } from \"./peers/mail/proxy/e.cjs\"; search({ text: \"x\", tags: [\"other\"] });"),
        ("w5.mts", "import { none } from \"./peers/mail/proxy/c.js\"; none();"),
    ] {
        assert!(compile(name, wrong).contains("error TS"), "{wrong}");
    }
}
