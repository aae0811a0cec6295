//! The client libraries: their own tests, against a server.

use std::ffi::OsString;
use std::path::Path;

use tokio::process::Command;

use crate::harness::{API_KEY, World, cases};

cases![
    typescript_programs_can_do_it_all needs "TYPESCRIPT_CLIENT",
    python_programs_can_do_it_all needs "PYTHON_CLIENT",
];

async fn typescript_programs_can_do_it_all(world: &World) {
    passes(world, "typescript", "node", &["--test"]).await;
}

async fn python_programs_can_do_it_all(world: &World) {
    let python = std::env::var_os("PYTHON_CLIENT").expect("checked before");
    passes(world, "python", python, &["-m", "pytest", "--quiet"]).await;
}

/// Runs a library's tests in its directory.
async fn passes(world: &World, library: &str, program: impl Into<OsString>, arguments: &[&str]) {
    let server = world.server().await;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk").join(library);
    let mut tests = Command::new(program.into());
    tests.args(arguments).current_dir(directory).kill_on_drop(true);
    let output = tests.env("RDS_URL", server.url()).env("RDS_API_KEY", API_KEY).output().await.expect("it runs");
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
