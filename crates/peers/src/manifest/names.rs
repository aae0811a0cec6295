//! The names that a manifest and a link may use, as types that hold only allowed ones.

use std::fmt;

use thiserror::Error;

/// A name that is refused; the message says what would be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct NameError(&'static str);

/// The name by which a consumer knows a provider: 1 to 64 of `[A-Za-z0-9_-]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Alias(String);

/// Path of a module relative to `/workspace`: normal (no `.`, `..`, empty or absolute parts), printable, with an
/// extension that a runtime loads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModulePath(String);

/// Name of an export: a JavaScript identifier that may be declared in a strict module, or `default`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExportName(String);

impl Alias {
    /// Checks an alias.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError("an alias is 1 to 64 of the characters A-Z, a-z, 0-9, _ and -"))
        }
    }

    /// The alias.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The file beside all proxies that says what they are.
pub(crate) const PROXY_PACKAGE: &str = "package.json";

/// Longest path of a module in bytes: with the consumer's prefix it stays far below PATH_MAX.
const MAX_PATH: usize = 512;

/// Longest file name, as in ext4.
const MAX_PART: usize = 255;

impl ModulePath {
    /// Checks a path relative to `/workspace`; `.` parts fall away.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.starts_with('/') {
            return Err(NameError("must be relative to /workspace, like \"sdk/mail.ts\""));
        }
        if text.len() > MAX_PATH || text.split('/').any(|part| part.len() > MAX_PART) {
            return Err(NameError("is too long: at most 512 bytes, and 255 between slashes"));
        }
        if text.contains('\\') || text.chars().any(is_invisible) {
            return Err(NameError("must not contain backslashes, control or invisible characters"));
        }
        let parts: Vec<&str> = text.split('/').filter(|part| *part != ".").collect();
        if parts.contains(&"..") {
            return Err(NameError("must not leave /workspace: \"..\" is not allowed"));
        }
        if parts.iter().any(|part| part.is_empty()) {
            return Err(NameError("must name a file: no empty part, no slash at the end"));
        }
        let path = Self(parts.join("/"));
        if path.split_extension().is_none() {
            return Err(NameError("must end in .ts, .mts, .tsx, .js, .mjs, .cjs or .jsx, and not in .d.ts or .d.mts"));
        }
        Ok(path)
    }

    /// Checks the absolute path that a call gives as `modulePath`.
    pub fn from_absolute(text: &str) -> Result<Self, NameError> {
        let relative = text.strip_prefix("/workspace/").ok_or(NameError("must begin with /workspace/"))?;
        Self::new(relative)
    }

    /// The path relative to `/workspace`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path as calls name it.
    pub fn absolute(&self) -> String {
        format!("/workspace/{}", self.0)
    }

    /// How many directories it lies below `/workspace`.
    pub fn directories(&self) -> usize {
        self.0.matches('/').count()
    }

    /// The extension without its dot.
    pub fn extension(&self) -> &str {
        self.split_extension().map_or("", |(_, extension)| extension)
    }

    /// The path without its extension and the dot before it.
    pub fn stem(&self) -> &str {
        self.split_extension().map_or(&self.0, |(stem, _)| stem)
    }

    /// The extension of the file that declares the types of its proxy, in the place of its own, if its language has none.
    pub(crate) fn declared_in(&self) -> Option<&'static str> {
        match self.extension() {
            "js" | "jsx" => Some("d.ts"),
            "mjs" => Some("d.mts"),
            "cjs" => Some("d.cts"),
            _ => None,
        }
    }

    fn split_extension(&self) -> Option<(&str, &str)> {
        let (stem, extension) = self.0.rsplit_once('.')?;
        let name = stem.rsplit('/').next().unwrap_or(stem);
        let declaration = name.ends_with(".d") && matches!(extension, "ts" | "mts");
        let known = matches!(extension, "ts" | "mts" | "tsx" | "js" | "mjs" | "cjs" | "jsx");
        (known && !declaration && !name.is_empty()).then_some((stem, extension))
    }
}

/// Longest name of an export in bytes.
const MAX_NAME: usize = 128;

impl ExportName {
    /// The name of a default export.
    pub const DEFAULT: &'static str = "default";

    /// Checks a name.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text == Self::DEFAULT {
            return Ok(Self(text.to_owned()));
        }
        if text.len() > MAX_NAME || !is_identifier(text) {
            return Err(NameError("must be a JavaScript identifier of at most 128 bytes, or \"default\""));
        }
        match text {
            "__proto__" => Err(NameError("is no export: \"__proto__\" is every object's prototype")),
            "then" => {
                Err(NameError("would make the module look like a promise to `await import(…)`; choose another name"))
            }
            _ if is_reserved(text) => Err(NameError("is a reserved word of JavaScript; choose another name")),
            _ => Ok(Self(text.to_owned())),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the default export.
    pub fn is_default(&self) -> bool {
        self.0 == Self::DEFAULT
    }
}

/// Whether a text is an identifier by its characters. Reserved words are identifiers here.
///
/// Unicode's XID classes are used, a subset of JavaScript's ID classes, without invisible characters.
pub(crate) fn is_identifier(text: &str) -> bool {
    let mut characters = text.chars();
    let start = |c: char| c == '$' || c == '_' || unicode_ident::is_xid_start(c);
    let part = |c: char| c == '$' || (unicode_ident::is_xid_continue(c) && !is_invisible(c));
    characters.next().is_some_and(start) && characters.all(part)
}

/// Words that cannot be declared at the top of a strict module (ECMA-262, 12.7.2 and 13.1.1), and the literals.
pub(crate) fn is_reserved(text: &str) -> bool {
    matches!(
        text,
        "arguments"
            | "await"
            | "break"
            | "case"
            | "catch"
            | "class"
            | "const"
            | "continue"
            | "debugger"
            | "default"
            | "delete"
            | "do"
            | "else"
            | "enum"
            | "eval"
            | "export"
            | "extends"
            | "false"
            | "finally"
            | "for"
            | "function"
            | "if"
            | "implements"
            | "import"
            | "in"
            | "instanceof"
            | "interface"
            | "let"
            | "new"
            | "null"
            | "package"
            | "private"
            | "protected"
            | "public"
            | "return"
            | "static"
            | "super"
            | "switch"
            | "this"
            | "throw"
            | "true"
            | "try"
            | "typeof"
            | "undefined"
            | "var"
            | "void"
            | "while"
            | "with"
            | "yield"
    )
}

/// Control characters, line separators, and characters that change how their neighbours are shown.
pub(crate) fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{00AD}' | '\u{061C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}')
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ModulePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ExportName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_stay_inside_and_have_a_known_extension() {
        for good in ["a.ts", "sdk/mail.mjs", ".hidden/x.cjs", "a b/ü.tsx", "x.test.js", "a..b/c.ts", "d.ts"] {
            assert_eq!(ModulePath::new(good).unwrap().as_str(), good);
        }
        assert_eq!(ModulePath::new("./sdk/./x.ts").unwrap().as_str(), "sdk/x.ts");
        for bad in [
            "",
            "/",
            "/workspace/a.ts",
            "../a.ts",
            "a/../b.ts",
            "a//b.ts",
            "a.ts/",
            "a",
            "a.json",
            ".ts",
            "a/.js",
            "a.d.ts",
            "a.d.mts",
            "a.cts",
            "a\\b.ts",
            "a\n.ts",
            "a\0.ts",
            "a\u{202e}.ts",
            "a.TS",
        ] {
            assert!(ModulePath::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(ModulePath::new("sdk/x.test.ts").unwrap().stem(), "sdk/x.test");
        assert!(ModulePath::from_absolute("/workspace/../etc/a.ts").is_err());
        assert!(ModulePath::from_absolute("/workspacex/a.ts").is_err());
        assert_eq!(ModulePath::from_absolute("/workspace/a.ts").unwrap().absolute(), "/workspace/a.ts");
    }

    #[test]
    fn exports_are_identifiers() {
        for good in ["a", "default", "$", "_x", "größe", "constructor", "async", "of", "toString"] {
            assert!(ExportName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "1a", "a-b", "a.b", "a b", "class", "__proto__", "then", "await", "a\u{200d}b", "a();//", "*"] {
            assert!(ExportName::new(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_path_has_no_part_that_moves(text in "[./a-c\\\\\u{0}]{0,12}(\\.ts)?") {
            if let Ok(path) = ModulePath::new(&text) {
                prop_assert!(path.as_str().split('/').all(|part| !matches!(part, "" | "." | "..")));
                prop_assert_eq!(ModulePath::from_absolute(&path.absolute()).unwrap(), path);
            }
        }
    }
}
