//! From hostile bytes to a [`Manifest`]: every rule is checked, and every fault is told at once.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::names::PROXY_PACKAGE;
use super::{Example, Export, ExportName, Faults, Manifest, Module, ModulePath, Param, ProviderFault, Returns, Sdk};
use crate::json::{self, MAX_DEPTH};
use crate::schema;

/// How much a manifest may hold. The defaults are several times what the largest SDKs need, and keep the files made
/// from a manifest, and the work to make them, small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the file.
    pub bytes: usize,
    /// Modules.
    pub modules: usize,
    /// Exports of all modules together.
    pub exports: usize,
    /// Parameters of one export, and examples of one export.
    pub per_export: usize,
    /// Characters of one text.
    pub text: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 1024 * 1024, modules: 256, exports: 2048, per_export: 32, text: 16 * 1024 }
    }
}

/// Parses and checks a manifest.
pub fn parse(bytes: &[u8], limits: Limits) -> Result<Manifest, ProviderFault> {
    let document = json::parse(bytes, json::Limits { bytes: limits.bytes, depth: MAX_DEPTH })?;
    let mut reader = Reader { limits, exports: 0, patterns: schema::Patterns::default(), faults: Faults::default() };
    let manifest = reader.manifest(&document);
    match manifest {
        Some(manifest) if reader.faults.is_empty() => Ok(manifest),
        _ => Err(ProviderFault::Invalid(reader.faults)),
    }
}

/// Reads parts of the document. A part that breaks a rule leaves a fault and comes back as `None` or cut short; the
/// caller goes on with the next one.
struct Reader {
    limits: Limits,
    exports: usize,
    patterns: schema::Patterns,
    faults: Faults,
}

impl Reader {
    fn manifest(&mut self, document: &Value) -> Option<Manifest> {
        let fields = self.object(document, "")?;
        let sdk = self.sdk(fields);
        let modules = self.list(fields, "", "modules", 1, self.limits.modules, Self::module);
        self.unique(modules.iter().map(|module| module.path.as_str()), "/modules", "path");
        self.apart(&modules);
        Some(Manifest { sdk: sdk?, modules })
    }

    /// The proxies lie where the modules do, with files of their own beside them: none of those may be a directory.
    fn apart(&mut self, modules: &[Module]) {
        let declared = |path: &ModulePath| path.declared_in().map(|extension| format!("{}.{extension}", path.stem()));
        let mut files: HashSet<String> = modules.iter().filter_map(|module| declared(&module.path)).collect();
        files.extend(modules.iter().map(|module| module.path.as_str().to_owned()));
        files.insert(PROXY_PACKAGE.to_owned());
        for path in modules.iter().map(|module| module.path.as_str()) {
            let above = |slash: usize| path.get(..slash).filter(|above| files.contains(*above));
            if let Some(file) = path.match_indices('/').find_map(|(slash, _)| above(slash)) {
                let message =
                    format!("has a module {path:?} where a sync writes a file {file:?}; rename the directory");
                self.faults.add("/modules".to_owned(), message);
            }
        }
    }

    fn sdk(&mut self, fields: &Map<String, Value>) -> Option<Sdk> {
        let sdk = self.member(fields, "", "sdk")?;
        let fields = self.object(sdk, "/sdk")?;
        let (name, description) = (self.name(fields, "/sdk"), self.text(fields, "/sdk", "description"));
        Some(Sdk { name: name?, description: description? })
    }

    fn module(&mut self, value: &Value, at: &str) -> Option<Module> {
        let fields = self.object(value, at)?;
        let path = self.text(fields, at, "path").and_then(|path| {
            let checked = ModulePath::new(&path);
            self.check(checked, at, "path")
        });
        let description = match fields.get("description") {
            None | Some(Value::Null) => None,
            Some(_) => self.text(fields, at, "description"),
        };
        let exports = self.list(fields, at, "exports", 1, self.limits.exports, Self::export);
        self.unique(exports.iter().map(|export| export.name.as_str()), &format!("{at}/exports"), "name");
        Some(Module { path: path?, description, exports })
    }

    fn export(&mut self, value: &Value, at: &str) -> Option<Export> {
        self.exports += 1;
        if self.exports > self.limits.exports {
            self.faults.add(at.to_owned(), format!("is one too many: at most {} exports in all", self.limits.exports));
            return None;
        }
        let fields = self.object(value, at)?;
        let name = self.text(fields, at, "name").and_then(|name| {
            let checked = ExportName::new(&name);
            self.check(checked, at, "name")
        });
        let description = self.text(fields, at, "description");
        let params = self.list(fields, at, "params", 0, self.limits.per_export, Self::param);
        self.unique(params.iter().map(|param| param.name.as_str()), &format!("{at}/params"), "name");
        let returns = self.returns(fields, at);
        let examples = self.list(fields, at, "examples", 1, self.limits.per_export, Self::example);
        Some(Export { name: name?, description: description?, params, returns: returns?, examples })
    }

    fn param(&mut self, value: &Value, at: &str) -> Option<Param> {
        let fields = self.object(value, at)?;
        let name = self.name(fields, at);
        let description = self.text(fields, at, "description");
        let (schema, optional) = self.schema(fields, at).unzip();
        Some(Param { name: name?, description: description?, schema: schema?, optional: optional? })
    }

    fn returns(&mut self, fields: &Map<String, Value>, at: &str) -> Option<Returns> {
        let value = self.member(fields, at, "returns")?;
        let at = format!("{at}/returns");
        let fields = self.object(value, &at)?;
        let (description, schema) = (self.text(fields, &at, "description"), self.schema(fields, &at));
        Some(Returns { description: description?, schema: schema?.0 })
    }

    fn example(&mut self, value: &Value, at: &str) -> Option<Example> {
        let fields = self.object(value, at)?;
        let (description, code) = (self.text(fields, at, "description"), self.text(fields, at, "code"));
        Some(Example { description: description?, code: code? })
    }

    /// A schema, and whether a parameter that has it may be left out.
    fn schema(&mut self, fields: &Map<String, Value>, at: &str) -> Option<(Value, bool)> {
        let value = self.member(fields, at, "schema")?;
        let at = format!("{at}/schema");
        self.object(value, &at)?;
        match schema::Checker::compile_with(value, &mut self.patterns) {
            Ok(checker) => Some((value.clone(), checker.is_optional(value))),
            Err(fault) => {
                self.faults.add(format!("{at}{}", fault.pointer), fault.message);
                None
            }
        }
    }

    fn name(&mut self, fields: &Map<String, Value>, at: &str) -> Option<String> {
        let name = self.text(fields, at, "name")?;
        if name.trim().is_empty() || name.chars().count() > 128 || name.chars().any(super::names::is_invisible) {
            self.faults.add(format!("{at}/name"), "must be 1 to 128 visible characters");
            return None;
        }
        Some(name)
    }

    fn text(&mut self, fields: &Map<String, Value>, at: &str, key: &str) -> Option<String> {
        let value = self.member(fields, at, key)?;
        let Value::String(text) = value else {
            self.faults.add(format!("{at}/{key}"), format!("must be a string, not {}", kind(value)));
            return None;
        };
        if text.chars().count() > self.limits.text {
            self.faults.add(format!("{at}/{key}"), format!("must have at most {} characters", self.limits.text));
            return None;
        }
        Some(text.clone())
    }

    fn list<T>(
        &mut self,
        fields: &Map<String, Value>,
        at: &str,
        key: &str,
        least: usize,
        most: usize,
        read: impl Fn(&mut Self, &Value, &str) -> Option<T>,
    ) -> Vec<T> {
        let Some(value) = self.member(fields, at, key) else { return Vec::new() };
        let at = format!("{at}/{key}");
        let Value::Array(items) = value else {
            self.faults.add(at, format!("must be an array, not {}", kind(value)));
            return Vec::new();
        };
        if items.len() < least || items.len() > most {
            self.faults.add(at.clone(), format!("must have {least} to {most} entries, not {}", items.len()));
        }
        let entries = items.iter().take(most).enumerate();
        entries.filter_map(|(index, item)| read(self, item, &format!("{at}/{index}"))).collect()
    }

    fn object<'a>(&mut self, value: &'a Value, at: &str) -> Option<&'a Map<String, Value>> {
        let object = value.as_object();
        if object.is_none() {
            self.faults.add(at.to_owned(), format!("must be an object, not {}", kind(value)));
        }
        object
    }

    fn member<'a>(&mut self, fields: &'a Map<String, Value>, at: &str, key: &str) -> Option<&'a Value> {
        let member = fields.get(key);
        if member.is_none() {
            self.faults.add(format!("{at}/{key}"), "is required");
        }
        member
    }

    fn check<T>(&mut self, checked: Result<T, super::NameError>, at: &str, key: &str) -> Option<T> {
        checked.map_err(|error| self.faults.add(format!("{at}/{key}"), error.to_string())).ok()
    }

    fn unique<'a>(&mut self, names: impl Iterator<Item = &'a str>, at: &str, what: &str) {
        let mut seen = HashSet::new();
        for name in names {
            if !seen.insert(name) {
                self.faults.add(at.to_owned(), format!("has two entries with the {what} {name:?}"));
            }
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn read(document: &Value) -> Result<Manifest, ProviderFault> {
        parse(document.to_string().as_bytes(), Limits::default())
    }

    fn export(name: &str) -> Value {
        json!({
            "name": name, "description": "d", "examples": [{"description": "e", "code": "c"}],
            "params": [{"name": "q", "description": "p", "schema": {"type": "string"}}],
            "returns": {"description": "r", "schema": {}},
        })
    }

    fn manifest() -> Value {
        json!({"sdk": {"name": "Mail", "description": "Mails."}, "modules": [{"path": "sdk/mail.ts", "exports": [export("send")]}]})
    }

    fn faults(document: &Value) -> String {
        match read(document).unwrap_err() {
            ProviderFault::Invalid(faults) => faults.to_string().replace("; ", "\n"),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_good_manifest_comes_back_as_it_was() {
        let parsed = read(&manifest()).unwrap();
        let text = parsed.to_json(10_000).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), manifest());
        assert_eq!(read(&serde_json::from_str(&text).unwrap()).unwrap(), parsed);
        assert_eq!(parsed.to_json(text.len()).as_ref(), Some(&text));
        assert_eq!(parsed.to_json(text.len() - 1), None);
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let document = json!({
            "sdk": {"name": " ", "description": 1},
            "modules": [
                {"path": "../up.ts", "exports": [
                    {"name": "class", "description": "d", "params": {}, "examples": [], "returns": {"description": "r", "schema": true}},
                    {"name": "ok", "description": "d", "params": [
                        {"name": "a", "description": "p", "schema": {"type": "strin"}},
                        {"name": "b", "description": "p", "schema": {"$ref": "https://example.com/s.json"}},
                        {"name": "b", "description": "p", "schema": {}},
                        {"name": "b", "description": "p", "schema": {}},
                        {"name": "c", "description": "p", "schema": {"properties": {"x": {"pattern": "("}}}},
                    ], "examples": [{"description": "e"}]},
                ]},
                {"path": "a.ts", "exports": []},
                {"path": "./a.ts", "exports": [export("x"), export("x")]},
                7,
            ],
        });
        insta::assert_snapshot!(faults(&document));
    }

    #[test]
    fn a_module_below_what_is_a_file_of_the_proxies_is_refused() {
        let told = |paths: &[&str]| {
            let mut document = manifest();
            let module = |path: &&str| json!({"path": path, "exports": [export("f")]});
            document["modules"] = paths.iter().map(module).collect();
            read(&document).map_err(|fault| fault.to_string())
        };
        for paths in [
            &["package.json/x.ts"][..],
            &["b/a.d.mts/x.ts", "b/a.mjs"],
            &["a.js", "a.d.ts/b/c.js"],
            &["a.ts", "a.ts/b.ts"],
        ] {
            let told = told(paths).unwrap_err();
            assert!(told.contains("/modules: has a module") && told.contains("rename the directory"), "{told}");
        }
        assert!(told(&["a/package.json/x.ts", "a.d.mts/x.ts", "a.ts", "aa/a.mjs"]).is_ok());
    }

    #[test]
    fn wrong_documents() {
        let mut found = Vec::new();
        for document in [json!(null), json!([]), json!({}), json!({"sdk": null, "modules": 3})] {
            found.push(format!("{document}: {}", faults(&document)));
        }
        insta::assert_snapshot!(found.join("\n---\n"));
        assert!(matches!(parse(b"{", Limits::default()), Err(ProviderFault::NotJson(_))));
        assert!(matches!(parse(&[b' '; 2_000_000], Limits::default()), Err(ProviderFault::NotJson(_))));
    }

    #[test]
    fn numbers_of_entries_are_bounded() {
        let mut document = manifest();
        document["modules"] = json!(vec![manifest()["modules"][0].clone(); 257]);
        assert!(faults(&document).starts_with("/modules: must have 1 to 256 entries, not 257"));
        let exports: Vec<Value> = (0..2100).map(|n| export(&format!("f{n}"))).collect();
        document["modules"] =
            json!([{"path": "a.ts", "exports": exports[..1500]}, {"path": "b.ts", "exports": exports[1500..]}]);
        assert!(faults(&document).contains("at most 2048 exports in all"));
    }

    #[test]
    fn all_schemas_share_an_allowance_for_patterns() {
        let mut document = manifest();
        let patterns = |n: usize| -> Vec<Value> {
            let schema = json!({"pattern": format!("^{}", "x".repeat(16_000))});
            (0..n).map(|n| json!({"name": format!("p{n}"), "description": "p", "schema": schema})).collect()
        };
        document["modules"] = json!([{"path": "a.ts", "exports": [export("f"), export("g")]}]);
        document["modules"][0]["exports"][0]["params"] = json!(patterns(5));
        assert!(read(&document).is_ok());
        document["modules"][0]["exports"][1]["params"] = json!(patterns(5));
        let faults = faults(&document);
        assert!(
            faults.starts_with("/modules/0/exports/1/params/3/schema/pattern: is one pattern too many"),
            "{faults}"
        );
    }

    proptest! {
        #[test]
        fn any_change_of_one_value_is_answered(pick in any::<prop::sample::Index>(), with in 0..6_usize) {
            let mut document = manifest();
            let mut places = Vec::new();
            pointers(&document, String::new(), &mut places);
            let place = pick.get(&places);
            let values = [json!(null), json!(1), json!(""), json!([]), json!({}), json!("__proto__")];
            *document.pointer_mut(place).unwrap() = values[with].clone();
            if let Err(ProviderFault::Invalid(faults)) = read(&document) {
                prop_assert!(!faults.shown.is_empty());
            }
        }
    }

    fn pointers(value: &Value, at: String, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                members.iter().for_each(|(key, value)| pointers(value, format!("{at}/{key}"), found));
            }
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(n, value)| pointers(value, format!("{at}/{n}"), found));
            }
            _ => {}
        }
        found.push(at);
    }
}
