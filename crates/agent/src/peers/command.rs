//! How a worker is started. Pure.

use std::collections::BTreeMap;
use std::ffi::CString;

use crate::exec::command::{Network, c_string, deno_permissions, environment};
use crate::runtime::{DENO_WORKER, NODE_WORKER};

/// What runs a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Runtime {
    /// TypeScript.
    Deno,
    /// JavaScript.
    Node,
}

impl Runtime {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::Deno, Self::Node];

    /// The one for a module, by its ending.
    pub(super) fn of(path: &str) -> Self {
        match path.rsplit_once('.') {
            Some((_, "ts" | "mts" | "tsx" | "jsx")) => Self::Deno,
            _ => Self::Node,
        }
    }

    /// Its program.
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Deno => "deno",
            Self::Node => "node",
        }
    }

    /// The worker's arguments and environment.
    pub(super) fn render(
        self,
        has_bash: bool,
        secrets: &BTreeMap<String, String>,
    ) -> Result<(Vec<CString>, Vec<CString>), String> {
        let arguments = match self {
            // Whether there is a network is the firewall's to decide.
            Self::Deno => [deno_permissions(None, Network::All), vec![DENO_WORKER.into()]].concat(),
            Self::Node => vec!["node".into(), NODE_WORKER.into()],
        };
        let mut variables = environment(has_bash, self == Self::Deno);
        variables.extend(secrets.iter().map(|(name, value)| (name.clone(), value.clone())));
        let arguments = arguments.into_iter().map(|text| c_string("an argument", text));
        let variables = variables.into_iter().map(|(name, value)| c_string("a variable", format!("{name}={value}")));
        Ok((arguments.collect::<Result<_, _>>()?, variables.collect::<Result<_, _>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_decides() {
        for path in ["/workspace/a.ts", "/workspace/a.mts", "/workspace/a.b.tsx", "/workspace/a.jsx"] {
            assert_eq!(Runtime::of(path), Runtime::Deno, "{path}");
        }
        for path in ["/workspace/a.js", "/workspace/a.cjs", "/workspace/ts"] {
            assert_eq!(Runtime::of(path), Runtime::Node, "{path}");
        }
    }

    #[test]
    fn a_worker_has_the_secrets() {
        let secrets = [("KEY".to_owned(), "value".to_owned())].into();
        for runtime in Runtime::ALL {
            let (arguments, environment) = runtime.render(true, &secrets).unwrap();
            assert_eq!(arguments[0].to_str(), Ok(runtime.program()));
            assert!(environment.iter().any(|variable| variable.to_str() == Ok("KEY=value")));
        }
    }
}
