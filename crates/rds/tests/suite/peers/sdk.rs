//! A provider's files: the modules of an SDK, and the manifest that declares them.

use serde_json::{Value, json};

use crate::harness::archives::{file, targz};
use crate::harness::{Api, create};

/// An SDK.
#[derive(Clone)]
pub(crate) struct Sdk {
    manifest: Value,
    files: Vec<(String, String)>,
}

impl Sdk {
    /// One without modules, which is no valid one yet.
    pub(crate) fn new(name: &str) -> Self {
        let manifest = json!({"sdk": {"name": name, "description": format!("What {name} can do.")}, "modules": []});
        Self { manifest, files: Vec::new() }
    }

    /// The same under another name and with another description.
    pub(crate) fn named(mut self, name: &str, description: &str) -> Self {
        self.manifest["sdk"] = json!({"name": name, "description": description});
        self
    }

    /// Adds a module with its declared exports.
    pub(crate) fn module(mut self, path: &str, code: &str, exports: &[Value]) -> Self {
        let module = json!({"path": path, "description": format!("Module {path}."), "exports": exports});
        self.manifest["modules"].as_array_mut().expect("a list").push(module);
        self.file(path, code)
    }

    /// Adds a file that nothing declares.
    pub(crate) fn file(mut self, path: &str, text: &str) -> Self {
        self.files.push((path.to_owned(), text.to_owned()));
        self
    }

    /// Makes a provider VM with it.
    pub(crate) async fn provide(&self, api: &Api, wish: Value) -> String {
        let vm = create(api, wish).await;
        self.upload(api, &vm).await;
        vm
    }

    /// Writes its files into a VM.
    pub(crate) async fn upload(&self, api: &Api, vm: &str) {
        let manifest = self.manifest.to_string();
        let mut entries = vec![file(".rds-peer/manifest.json", manifest.as_bytes())];
        entries.extend(self.files.iter().map(|(path, text)| file(path, text.as_bytes())));
        api.upload(vm, "/workspace", targz(&entries)).await.status(204);
    }
}

/// An export as a manifest declares it.
pub(crate) fn export(name: &str, params: &[(&str, Value)], returns: Value) -> Value {
    let params: Vec<Value> = params
        .iter()
        .map(|(name, schema)| json!({"name": name, "description": format!("The {name}."), "schema": schema}))
        .collect();
    let mut export = json!({
        "name": name, "description": format!("Does {name}."), "params": params,
        "returns": {"description": "What it gives."},
        "examples": [{"description": "Use it", "code": format!("await {name}()")}],
    });
    export["returns"]["schema"] = returns;
    export
}

/// An SDK of one module in TypeScript.
pub(crate) fn typescript(code: &str, exports: &[Value]) -> Sdk {
    Sdk::new("Small").module("sdk/small.ts", code, exports)
}

/// An SDK of one ES module in JavaScript.
pub(crate) fn javascript(code: &str, exports: &[Value]) -> Sdk {
    Sdk::new("Small").module("sdk/small.mjs", code, exports)
}
