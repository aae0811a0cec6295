use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::manifest::{Limits, parse};

fn mail() -> Value {
    let example = json!([{"description": "Find *unread*", "code": "await search(\"is:unread\");"}]);
    let query =
        json!({"name": "query", "description": "What to look for.", "schema": {"type": "string", "minLength": 1}});
    let search = json!({
        "name": "search", "description": "Finds mails.\n\nNewest first.", "examples": example,
        "params": [query, {"name": "class", "description": "At most */ so many.", "schema": {"type": "integer", "default": 10}}],
        "returns": {"description": "What was found.", "schema": {"type": "array", "items": {"$ref": "#/$defs/Mail"}, "$defs": {
            "Mail": {"type": "object", "required": ["id"], "properties": {"id": {"type": "string", "description": "Stable."}, "from": {"type": ["string", "null"]}}}}}},
    });
    let send = json!({
        "name": "default", "description": "Sends one.", "examples": example, "params": [],
        "returns": {"description": "Nothing.", "schema": {"type": "null"}},
    });
    let module = |path: &str| json!({"path": path, "description": "Mail & more", "exports": [search, send]});
    json!({"sdk": {"name": "Mail", "description": "Reads <b>mail</b>."}, "modules": [
        module("sdk/mail.ts"), module("sdk/in ner/mail.mjs"), module("mail.cjs"), module("mail.js"), module("mail.jsx")]})
}

fn tree(document: &Value) -> Vec<GeneratedFile> {
    let manifest = parse(document.to_string().as_bytes(), Limits::default()).unwrap();
    peer_tree(&Alias::new("mail").unwrap(), &manifest).unwrap()
}

fn contents(files: &[GeneratedFile], path: &str) -> String {
    files.iter().find(|file| file.path == path).unwrap_or_else(|| panic!("{path}")).contents.clone()
}

#[test]
fn the_files_of_a_peer() {
    let files = tree(&mail());
    let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    insta::assert_snapshot!("paths", paths.join("\n"));
    insta::assert_snapshot!("readme", contents(&files, "peers/mail/README.md"));
    insta::assert_snapshot!("typescript", contents(&files, "peers/mail/proxy/sdk/mail.ts"));
    insta::assert_snapshot!("esm", contents(&files, "peers/mail/proxy/sdk/in ner/mail.mjs"));
    insta::assert_snapshot!("declarations", contents(&files, "peers/mail/proxy/sdk/in ner/mail.d.mts"));
    insta::assert_snapshot!("commonjs", contents(&files, "peers/mail/proxy/mail.cjs"));
}

#[test]
fn the_index() {
    let manifest = parse(mail().to_string().as_bytes(), Limits::default()).unwrap();
    let entry = IndexEntry::new(&Alias::new("mail").unwrap(), &manifest, SourceMode::Mounted);
    insta::assert_snapshot!(index(&[entry]).contents);
    assert_eq!(serde_json::from_str::<Value>(&index(&[]).contents).unwrap(), json!({"peers": []}));
}

/// Each is below the limits of its own.
#[test]
fn what_grows_too_large_is_no_tree() {
    let definition = json!({"const": "x".repeat(1000)});
    let large =
        json!({"$defs": {"D": definition}, "prefixItems": vec![json!({"$ref": "#/$defs/D"}); 60], "items": false});
    let mut deep = json!(vec![1; 100_000]);
    for _ in 0..50 {
        deep = json!([deep]);
    }
    let with = |modules: usize, exports: usize, schema: &Value| {
        let export = |n| {
            json!({"name": format!("f{n}"), "description": "", "examples": [{"description": "", "code": ""}],
            "params": [], "returns": {"description": "", "schema": schema}})
        };
        let exports: Vec<Value> = (0..exports).map(export).collect();
        let module = |n| json!({"path": format!("{n}.js"), "exports": exports});
        let document =
            json!({"sdk": {"name": "S", "description": ""}, "modules": (0..modules).map(module).collect::<Vec<_>>()});
        let manifest = parse(document.to_string().as_bytes(), Limits::default()).unwrap();
        peer_tree(&Alias::new("mail").unwrap(), &manifest)
    };
    assert_eq!(with(1, 20, &large).unwrap().len(), 5);
    for refused in [with(1, 250, &large), with(100, 2, &large), with(1, 1, &json!({"const": deep}))] {
        let told = refused.unwrap_err().for_alias(&Alias::new("mail").unwrap());
        assert!(told.starts_with("Peer alias mail: invalid provider manifest: ") && told.contains("8 MiB"), "{told}");
    }
}

#[test]
fn names_never_meet() {
    let mut document = mail();
    let param = |name: &str| json!({"name": name, "description": "", "schema": {"type": "string"}});
    document["modules"][0]["exports"][0]["params"] =
        json!([param("a b"), param("arg1"), param("$call"), param("in"), param("arg1_")]);
    let code = contents(&tree(&document), "peers/mail/proxy/sdk/mail.ts");
    assert!(code.contains("import { call as $$call }"), "{code}");
    assert!(code.contains("(arg1__: string, arg1: string, $call: string, arg4: string, arg1_: string)"), "{code}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever the texts say, the lines that are code stay the same.
    #[test]
    fn texts_never_become_code(hostile in hostile()) {
        let fill = |text: &str| {
            let mut document = mail();
            document["sdk"]["description"] = json!(text);
            for export in [0, 1] {
                let export = &mut document["modules"][0]["exports"][export];
                for place in ["/description", "/returns/description", "/params/0/description", "/examples/0/code", "/examples/0/description"] {
                    if let Some(place) = export.pointer_mut(place) {
                        *place = json!(text);
                    }
                }
            }
            contents(&tree(&document), "peers/mail/proxy/sdk/mail.ts")
        };
        prop_assert_eq!(without_comments(&fill(&hostile)), without_comments(&fill("plain")));
    }
}

fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[*/`\"'\\\\${}\n\r\u{2028}\u{2029}a;<>()\\[\\]#-]{0,40}"]
}

/// Drops block comments as a JavaScript reader does. The fixture has no `/*` in a string.
fn without_comments(code: &str) -> String {
    let mut rest = code;
    let mut out = String::new();
    while let Some((before, after)) = rest.split_once("/*") {
        out.push_str(before);
        rest = after.split_once("*/").map_or("", |(_, after)| after);
    }
    out + rest
}
