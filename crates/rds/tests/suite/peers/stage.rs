//! What most tests of peers share: a provider with a module of every kind, and a consumer that is linked to it.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::sdk::{Sdk, export};
use crate::harness::{Api, Reply, World, create};

/// The secret of the shared provider.
pub(crate) const TOKEN: &str = "mail-token-6b1d2f";

/// The modules of the shared provider, each of another kind, and the runtime of each.
pub(crate) const MODULES: [(&str, &str); 8] = [
    ("sdk/mail.ts", "deno"),
    ("sdk/mail.mts", "deno"),
    ("sdk/view.tsx", "deno"),
    ("sdk/view.jsx", "deno"),
    ("sdk/mail.mjs", "node"),
    ("sdk/mail.cjs", "node"),
    ("sdk/plain.js", "node"),
    ("esm/mail.js", "node"),
];

/// A provider and a consumer that run. Tests leave them as they were.
pub(crate) struct Stage {
    pub(crate) api: Api,
    pub(crate) provider: String,
    pub(crate) consumer: String,
}

/// The shared stage, on the shared server.
pub(crate) async fn stage(world: &World) -> &'static Stage {
    static STAGE: OnceCell<Stage> = OnceCell::const_new();
    STAGE
        .get_or_init(|| async {
            let api = world.api().await;
            let wish = json!({"memMb": 512, "secretEnv": [format!("MAIL_TOKEN={TOKEN}")]});
            let provider = mail().provide(&api, wish).await;
            let consumer = consumer(&api, &[link("mail", &provider)]).await;
            Stage { api, provider, consumer }
        })
        .await
}

/// A link as a request has it.
pub(crate) fn link(alias: &str, provider: &str) -> Value {
    json!({"alias": alias, "vmId": provider})
}

/// Makes a consumer without a network.
pub(crate) async fn consumer(api: &Api, links: &[Value]) -> String {
    create(api, json!({"memMb": 512, "peerLinks": links})).await
}

/// The shared provider's SDK.
fn mail() -> Sdk {
    let exports = [
        export("whoAmI", &[], json!({"type": "object"})),
        export("echo", &[("value", json!({}))], json!({})),
        export("fail", &[("name", json!({"type": "string"})), ("message", json!({"type": "string"}))], json!({})),
        export(
            "search",
            &[
                ("query", json!({"type": "string", "minLength": 1})),
                ("limit", json!({"type": "integer", "minimum": 1, "maximum": 50, "default": 10})),
            ],
            json!({"type": "array", "items": {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}}}),
        ),
    ];
    let body = "
        const runtime = globalThis.Deno ? 'deno' : 'node';
        const whoAmI = () => ({ runtime, token: process.env.MAIL_TOKEN.length });
        const echo = (value) => value;
        const fail = async (name, message) => { const error = new Error(message); error.name = name; throw error; };
        const search = async (query, limit = 10) => Array.from({ length: limit }, (_, n) => ({ id: `${query}-${n}` }));
    ";
    let esm = format!("import process from 'node:process';\n{body}\nexport {{ whoAmI, echo, fail, search }};");
    let cjs = format!("{body}\nmodule.exports = {{ whoAmI, echo, fail, search }};");
    let mut sdk = Sdk::new("Mail").file("esm/package.json", r#"{"type": "module"}"#);
    for (path, _) in MODULES {
        let code = if path.ends_with(".cjs") || path == "sdk/plain.js" { &cjs } else { &esm };
        sdk = sdk.module(path, code, &exports);
    }
    sdk
}

/// Runs a TypeScript program that ends well; gives its result.
pub(crate) async fn deno(api: &Api, vm: &str, code: &str) -> Value {
    run(api, vm, "run-ts", json!({"code": code, "timeoutMs": 120_000})).await
}

/// Runs a JavaScript program under Node.js that ends well; gives its result.
pub(crate) async fn node(api: &Api, vm: &str, code: &str) -> Value {
    run(api, vm, "run-js", json!({"code": code, "timeoutMs": 120_000})).await
}

async fn run(api: &Api, vm: &str, how: &str, body: Value) -> Value {
    let reply = api.post(&format!("/v1/vms/{vm}/{how}"), &body).await.ok().json();
    assert_eq!(reply["exitCode"], 0, "{body}: {reply}");
    reply["result"].clone()
}

/// The bearer token of a consumer's present start, as its code can read it.
pub(crate) async fn token(api: &Api, consumer: &str) -> String {
    let bridge: Value =
        serde_json::from_str(&api.sh(consumer, "cat /workspace/.rds/peer-bridge.json").await).expect("JSON");
    bridge["token"].as_str().expect("a token").to_owned()
}

/// Calls by the door of the HTTP API.
pub(crate) async fn invoke(anonymous: &Api, token: &str, body: &Value) -> Reply {
    let request = anonymous.request(Method::POST, "/internal/v1/peer/invoke");
    anonymous.send(request.bearer_auth(token).json(body)).await
}

/// A program for Node.js that sends texts (JavaScript expressions) as calls to the bridge, as no proxy would; its result
/// is a list of `[status, body]`.
pub(crate) fn raw_calls(bodies: &[&str]) -> String {
    format!(
        "const http = require('http');
         const {{ url, token }} = JSON.parse(require('fs').readFileSync('/workspace/.rds/peer-bridge.json'));
         const send = (body, headers = {{ authorization: `Bearer ${{token}}` }}, method = 'POST', to = url) => new Promise((resolve) => {{
           const request = http.request(to, {{ method, headers }}, (reply) => {{
             let text = '';
             reply.on('data', (piece) => text += piece);
             reply.on('end', () => resolve([reply.statusCode, text ? JSON.parse(text) : null]));
           }});
           request.on('error', (error) => resolve([0, error.code]));
           request.end(body);
         }});
         const call = (fields) => JSON.stringify({{ alias: 'mail', modulePath: '/workspace/sdk/mail.mjs', exportName: 'echo', args: [1], ...fields }});
         (async () => {{
           const replies = [];
           for (const one of [{}]) replies.push(await one());
           result.set(replies);
         }})();",
        bodies.iter().map(|body| format!("() => {body}")).collect::<Vec<_>>().join(", ")
    )
}
