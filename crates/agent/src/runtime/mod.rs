//! What Deno and Node.js run for the agent: before a program, the global `result`; in a provider, its workers.

/// Files that lie, read-only and root's, in [`crate::sandbox::tree::RUNTIME`].
pub(crate) const FILES: [(&str, &str); 4] = [
    ("deno.mjs", concat!(include_str!("json.js"), include_str!("outcome.js"), include_str!("deno.mjs"))),
    ("node.cjs", concat!(include_str!("json.js"), include_str!("outcome.js"), include_str!("node.cjs"))),
    ("worker.deno.mjs", concat!(include_str!("json.js"), include_str!("worker.js"), include_str!("worker.deno.mjs"))),
    ("worker.node.mjs", concat!(include_str!("json.js"), include_str!("worker.js"), include_str!("worker.node.mjs"))),
];

/// The programs that serve calls of a provider's modules, in the sandbox.
pub(crate) const DENO_WORKER: &str = "/run/rds/worker.deno.mjs";
pub(crate) const NODE_WORKER: &str = "/run/rds/worker.node.mjs";

/// Deno's prelude, in the sandbox.
pub(crate) const DENO_PRELUDE: &str = "/run/rds/deno.mjs";

/// Node's prelude, in the sandbox.
pub(crate) const NODE_PRELUDE: &str = "/run/rds/node.cjs";

/// Variable that names the file for results. The preludes take it out of the environment.
pub(crate) const RESULT_VARIABLE: &str = "RDS_RESULT";

/// Variable that names the inline script to Node's prelude, which decides what kind of module it is.
pub(crate) const SCRIPT_VARIABLE: &str = "RDS_SCRIPT";
