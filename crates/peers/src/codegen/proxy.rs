//! Proxies: modules with the exports of a provider's module that call the provider.

use super::Room;
use super::text;
use super::types::{Docs, type_of};
use crate::manifest::{Alias, Export, ExportName, Module, Param, ProviderFault, is_identifier, is_reserved};

/// The dialect of a proxy, and of the runtime that it imports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    TypeScript,
    Esm,
    CommonJs,
}

/// Text of a proxy, and the declarations that belong beside it, if any, with their extension.
pub(super) struct Proxy {
    pub(super) code: String,
    pub(super) declarations: Option<(&'static str, String)>,
}

/// Makes the proxy of a module. No more is made of one that has no room.
pub(super) fn proxy(alias: &Alias, module: &Module, mut room: Room) -> Result<Proxy, ProviderFault> {
    let call = call_name(module);
    let mut functions = Vec::new();
    for export in &module.exports {
        let function = Function::new(alias, module, export, &call);
        room.take(function.bytes())?;
        functions.push(function);
    }
    let dialect = match module.path.extension() {
        "js" | "jsx" | "mjs" => Dialect::Esm,
        "cjs" => Dialect::CommonJs,
        _ => Dialect::TypeScript,
    };
    let declared = module.path.declared_in();
    let runtime = format!("{}.rds/peer-runtime", "../".repeat(module.path.directories() + 3));
    let head = match dialect {
        Dialect::TypeScript => format!("import {{ call as {call} }} from \"{runtime}.ts\";\n"),
        Dialect::Esm => format!("import {{ call as {call} }} from \"{runtime}.mjs\";\n"),
        Dialect::CommonJs => {
            format!("\"use strict\";\nconst {{ call: {call} }} = require(\"{runtime}.cjs\");\n{}", exports(&functions))
        }
    };
    let body: String = functions.iter().map(|function| function.code(dialect)).collect();
    let declarations = declared.map(|extension| {
        let body: String = functions.iter().map(Function::declaration).collect();
        (extension, format!("{HEADER}export {{}};\n{body}"))
    });
    // Deno does not look beside a module for its types.
    let types = declared.map_or_else(String::new, |extension| {
        let stem = module.path.stem();
        let name = stem.rsplit_once('/').map_or(stem, |(_, name)| name);
        format!("// @ts-self-types=\"./{}.{extension}\"\n", text::url_path(name))
    });
    Ok(Proxy { code: format!("{types}{HEADER}{head}{body}"), declarations })
}

const HEADER: &str = "// Calls a peer. Made from the provider's manifest; changes are lost with the next sync.\n";

/// A name for the runtime's `call` that no export or parameter has.
fn call_name(module: &Module) -> String {
    let taken = |name: &str| {
        let is_param = |export: &Export| export.params.iter().any(|param| param.name == name);
        module.exports.iter().any(|export| export.name.as_str() == name || is_param(export))
    };
    let mut name = "$call".to_owned();
    while taken(&name) {
        name.insert(0, '$');
    }
    name
}

struct Function {
    name: String,
    doc: String,
    params: Vec<Parameter>,
    returns: String,
    call: String,
    arguments: String,
}

struct Parameter {
    name: String,
    optional: bool,
    kind: String,
}

impl Function {
    fn new(alias: &Alias, module: &Module, export: &Export, call: &str) -> Self {
        let params = parameters(export);
        let names: Vec<&str> = params.iter().map(|param| param.name.as_str()).collect();
        let arguments = format!(
            "({}, {}, {}, [{}])",
            text::literal(alias.as_str()),
            text::literal(&module.path.absolute()),
            text::literal(export.name.as_str()),
            names.join(", "),
        );
        let (doc, returns) = (doc(export, &names), type_of(&export.returns.schema, Docs::Shown));
        Self { name: export.name.as_str().to_owned(), doc, params, returns, call: call.to_owned(), arguments }
    }

    /// What is large of it.
    fn bytes(&self) -> usize {
        self.doc.len() + self.returns.len() + self.params.iter().map(|param| param.kind.len()).sum::<usize>()
    }

    fn is_default(&self) -> bool {
        self.name == ExportName::DEFAULT
    }

    fn code(&self, dialect: Dialect) -> String {
        let Self { name, doc, returns, call, arguments, .. } = self;
        match dialect {
            Dialect::TypeScript => {
                format!("{doc}{} {{\n  return {call}<{returns}>{arguments};\n}}\n", self.signature())
            }
            Dialect::Esm => format!("{doc}{}({}) {{\n  return {call}{arguments};\n}}\n", self.head(), self.names()),
            Dialect::CommonJs if self.is_default() => String::new(),
            Dialect::CommonJs => {
                let value = format!("({}) => {call}{arguments}", self.names());
                let name = text::literal(name);
                format!("{doc}Object.defineProperty(module.exports, {name}, {{ enumerable: true, value: {value} }});\n")
            }
        }
    }

    fn names(&self) -> String {
        self.params.iter().map(|param| param.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    fn head(&self) -> String {
        if self.is_default() { "export default function ".to_owned() } else { format!("export function {}", self.name) }
    }

    fn signature(&self) -> String {
        let param = |Parameter { name, optional, kind }: &Parameter| {
            let mark = if *optional { "?" } else { "" };
            format!("{name}{mark}: {kind}")
        };
        let params: Vec<String> = self.params.iter().map(param).collect();
        format!("{}({}): Promise<{}>", self.head(), params.join(", "), self.returns)
    }

    fn declaration(&self) -> String {
        format!("{}{};\n", self.doc, self.signature())
    }
}

/// The object that a CommonJS proxy exports: the default export itself where there is one, as in the provider.
fn exports(functions: &[Function]) -> String {
    let Some(default) = functions.iter().find(|function| function.is_default()) else {
        return "module.exports = {};\n".to_owned();
    };
    let Function { doc, call, arguments, .. } = default;
    let itself = "Object.defineProperty(module.exports, \"default\", { enumerable: true, value: module.exports });\n";
    format!("{doc}module.exports = ({}) => {call}{arguments};\n{itself}", default.names())
}

fn parameters(export: &Export) -> Vec<Parameter> {
    let mut names: Vec<String> = Vec::new();
    for (index, param) in export.params.iter().enumerate() {
        let usable = is_identifier(&param.name) && !is_reserved(&param.name);
        let mut name = if usable { param.name.clone() } else { format!("arg{}", index + 1) };
        while names.contains(&name) || (!usable && export.params.iter().any(|other| other.name == name)) {
            name.push('_');
        }
        names.push(name);
    }
    let trailing = export.params.iter().rev().take_while(|param| param.optional).count();
    let first_optional = names.len() - trailing;
    let parameter = |(index, (name, param)): (usize, (String, &Param))| Parameter {
        name,
        optional: index >= first_optional,
        kind: type_of(&param.schema, Docs::Shown),
    };
    names.into_iter().zip(&export.params).enumerate().map(parameter).collect()
}

fn doc(export: &Export, names: &[&str]) -> String {
    let mut lines: Vec<String> = text::comment_lines(&export.description).collect();
    for (name, param) in names.iter().zip(&export.params) {
        lines.push(format!("@param {name} {}", text::comment(&param.description)));
    }
    lines.push(format!("@returns {}", text::comment(&export.returns.description)));
    let lines: String = lines.iter().map(|line| format!(" * {line}").trim_end().to_owned() + "\n").collect();
    format!("\n/**\n{lines} */\n")
}
