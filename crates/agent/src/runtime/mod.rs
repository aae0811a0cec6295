//! What Deno and Node.js load before a program: the global `result`.

/// Files that lie, read-only and root's, in [`crate::sandbox::tree::RUNTIME`].
pub(crate) const PRELUDES: [(&str, &str); 2] = [
    ("deno.mjs", concat!(include_str!("outcome.js"), include_str!("deno.mjs"))),
    ("node.cjs", concat!(include_str!("outcome.js"), include_str!("node.cjs"))),
];

/// Deno's prelude, in the sandbox.
pub(crate) const DENO_PRELUDE: &str = "/run/rds/deno.mjs";

/// Node's prelude, in the sandbox.
pub(crate) const NODE_PRELUDE: &str = "/run/rds/node.cjs";

/// Variable that names the file for results. The preludes take it out of the environment.
pub(crate) const RESULT_VARIABLE: &str = "RDS_RESULT";

/// Variable that names the inline script to Node's prelude, which decides what kind of module it is.
pub(crate) const SCRIPT_VARIABLE: &str = "RDS_SCRIPT";
