//! The usage guide of a peer, for whoever writes the consumer's code.

use std::fmt::Write as _;

use super::text;
use super::types::{Docs, type_of};
use super::{Room, TOO_LARGE};
use crate::manifest::{Alias, Export, Manifest, Module, ProviderFault, is_identifier, is_reserved};

/// The guide. No more is made of one that has no room.
pub(super) fn readme(alias: &Alias, manifest: &Manifest, room: Room) -> Result<String, ProviderFault> {
    let mut out = format!("# {}\n\n", text::markdown(&manifest.sdk.name));
    push_paragraphs(&mut out, &manifest.sdk.description);
    let _ = write!(
        out,
        "Peer alias: `{alias}`\n\n## How to use it\n\n\
         Use proxy imports for execution. Each function below runs in another VM, which has the credentials it needs; \
         this VM has none. Arguments and results are JSON, every function is asynchronous, and what it throws is an \
         `Error` with the provider's name and message. Arguments are checked against the types below before the call.\n\n\
         A call may take 30 seconds. For another limit, or to cancel, call the runtime directly:\n\n"
    );
    out.push_str(&text::code_block("ts", &runtime_example(alias, manifest)));
    for module in &manifest.modules {
        let _ = write!(out, "\n## Module {}\n\n", text::code_span(module.path.as_str()));
        push_paragraphs(&mut out, module.description.as_deref().unwrap_or_default());
        for export in &module.exports {
            push_export(&mut out, alias, module, export);
            if out.len() > room.0 {
                return Err(TOO_LARGE);
            }
        }
    }
    Ok(out)
}

fn push_paragraphs(out: &mut String, text: &str) {
    let paragraphs = text::markdown_paragraphs(text);
    if !paragraphs.is_empty() {
        let _ = write!(out, "{paragraphs}\n\n");
    }
}

fn runtime_example(alias: &Alias, manifest: &Manifest) -> String {
    let place = manifest.modules.first().and_then(|module| Some((module, module.exports.first()?)));
    let Some((module, export)) = place else { return String::new() };
    format!(
        "import {{ call }} from \"file:///workspace/.rds/peer-runtime.mjs\";\n\
         await call({}, {}, {}, [/* arguments */], {{ timeoutMs: 120000, signal: AbortSignal.timeout(60000) }});",
        text::literal(alias.as_str()),
        text::literal(&module.path.absolute()),
        text::literal(export.name.as_str()),
    )
}

fn push_export(out: &mut String, alias: &Alias, module: &Module, export: &Export) {
    let _ = write!(out, "### {}\n\n", text::code_span(export.name.as_str()));
    push_paragraphs(out, &export.description);
    out.push_str(&text::code_block("ts", &import_line(alias, module, export)));
    out.push_str("\nParameters:\n\n");
    if export.params.is_empty() {
        out.push_str("- none\n");
    }
    for param in &export.params {
        let (name, kind) = (text::code_span(&param.name), text::code_span(&type_of(&param.schema, Docs::Hidden)));
        let _ = writeln!(out, "- {name} ({kind}): {}", text::markdown(&param.description));
    }
    let kind = text::code_span(&type_of(&export.returns.schema, Docs::Hidden));
    let _ = write!(out, "\nReturns {kind}: {}\n\n", text::markdown(&export.returns.description));
    for example in &export.examples {
        let _ = write!(out, "Example: {}\n\n", text::markdown(&example.description));
        out.push_str(&text::code_block("ts", &example.code));
        out.push('\n');
    }
}

/// The line that imports an export; a default export is named after its file.
fn import_line(alias: &Alias, module: &Module, export: &Export) -> String {
    let path = text::url_path(module.path.as_str());
    let url = format!("file:///workspace/peers/{alias}/proxy/{path}");
    if export.name.is_default() {
        format!("import {} from \"{url}\";", default_name(module))
    } else {
        format!("import {{ {} }} from \"{url}\";", export.name)
    }
}

fn default_name(module: &Module) -> String {
    let file = module.path.stem().rsplit('/').next().unwrap_or_default();
    let name: String = file.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if is_identifier(&name) && !is_reserved(&name) { name } else { format!("_{name}") }
}
